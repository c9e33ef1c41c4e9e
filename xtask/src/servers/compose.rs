//! Docker Compose, where an engine answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::thread;
use std::time::{Duration, Instant};

use crate::interrupt;
use crate::tools::{self, POLL};

use super::error::{ServerError, ServerErrorKind};
use super::local::free_address;

const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The first start pulls the image.
const START_WITHIN: Duration = Duration::from_secs(600);
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// One service of `compose.yaml` under a project name of its own. Dropped, it is taken down with its data.
#[derive(Debug)]
pub(super) struct Project {
    file: PathBuf,
    name: String,
    port_variable: &'static str,
    address: SocketAddr,
}

impl Project {
    /// Starts `service` and waits until `probe` accepts it. `port_variable` is the one that sets the port
    /// the service has on loopback, in `compose.yaml`.
    pub(super) fn start<T>(
        root: &Path,
        service: &str,
        port_variable: &'static str,
        probe: impl Fn(SocketAddr) -> io::Result<T>,
    ) -> Result<(Self, SocketAddr, T), ServerError> {
        engine_answers()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_address()?.port()));
        let name = format!("throughline-{}-{}-{}", service.replace('.', "-"), id(), address.port());
        // Made before `up`: what a failed or interrupted start leaves behind is taken down too.
        let project = Self { file: root.join("compose.yaml"), name, port_variable, address };
        eprintln!("xtask: starting `{service}` with Docker Compose");
        tools::run(project.command().args(["up", "--detach", "--quiet-pull", service]), START_WITHIN)?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            match probe(address) {
                Ok(learned) => return Ok((project, address, learned)),
                Err(_) if interrupt::requested() => return Err(ServerError::interrupted()),
                Err(_) if Instant::now() < deadline => thread::sleep(POLL),
                Err(error) => {
                    let text = format!(
                        "the service `{service}` did not answer at {address} within {} s",
                        READY_WITHIN.as_secs()
                    );
                    return Err(ServerError::new(ServerErrorKind::NotReady, text).with_source(error));
                }
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("compose")
            .arg("--file")
            .arg(&self.file)
            .args(["--project-name", &self.name])
            .env(self.port_variable, self.address.port().to_string());
        command
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // Not `tools::run`: it gives up after Ctrl-C, and this is what Ctrl-C has to do.
        let mut command = self.command();
        command.args(["down", "--volumes", "--remove-orphans", "--timeout", "2"]);
        if let Err(error) = tools::run_to_the_end(&mut command, STOP_WITHIN) {
            eprintln!("xtask: stop the Compose project `{}` yourself: {error}", self.name);
        }
    }
}

/// A client without an engine is common, so only an answer of the engine counts.
fn engine_answers() -> Result<(), ServerError> {
    if tools::find_on_path("docker").is_none() {
        return Err(ServerError::new(ServerErrorKind::Unavailable, "Docker Compose: `docker` is not on the path"));
    }
    for arguments in [&["info", "--format", "{{.ServerVersion}}"][..], &["compose", "version"]] {
        if let Err(error) = tools::output(Command::new("docker").args(arguments), ANSWER_WITHIN) {
            let text = match ServerError::from(error) {
                interrupted if interrupted.kind() == ServerErrorKind::Interrupted => {
                    return Err(interrupted);
                }
                other => format!("Docker Compose: no engine answers, {other}"),
            };
            return Err(ServerError::new(ServerErrorKind::Unavailable, text));
        }
    }
    Ok(())
}
