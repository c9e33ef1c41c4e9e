//! RabbitMQ.
//!
//! The tests run against version 4, and those of what all brokers have in common once more against 3.10, the one in
//! Debian 12. A local server is Debian's packages in a folder of their own.

mod address;
mod install;
mod jars;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::workspace::Workspace;

use super::broker::{Broker, Pass, Program};
use super::compose::Project;
use super::error::{ServerError, ServerErrorKind};
use super::local::{Process, Start};
use super::python::Package;
use super::server::Server;
use super::set_variable;

pub use self::install::PROGRAM_VARIABLE;

/// The variable that names a server to use, and gives tests the address of the one that was started.
pub const URL_VARIABLE: &str = "THROUGHLINE_RABBIT_URL";

/// The variable that names a Python program which has the client of the tests that is not ours, and gives tests the one that is used.
pub const PYTHON_VARIABLE: &str = "THROUGHLINE_RABBIT_PYTHON";

/// The variable that names a folder with the jars of Java's client, which is not ours either, and gives tests the one that is used.
pub const JARS_VARIABLE: &str = "THROUGHLINE_RABBIT_JARS";

/// RabbitMQ in the table of brokers.
///
/// # Examples
///
/// ```
/// use xtask::servers::rabbit;
///
/// assert_eq!(rabbit::BROKER.url_variable, rabbit::URL_VARIABLE);
/// ```
pub const BROKER: Broker = Broker {
    name: "rabbit",
    url_variable: URL_VARIABLE,
    program_variable: PROGRAM_VARIABLE,
    others: &[
        Program { name: "Java with amqp-client", variable: JARS_VARIABLE, find: jars::jars },
        Program { name: "Python with pika", variable: PYTHON_VARIABLE, find: python },
    ],
    passes: &[
        Pass { name: CURRENT.service, tests: &[], required: true, start: find_or_start, program },
        Pass {
            name: OLDEST.service,
            tests: &["conformance::", "faults::", "foreign::", "golden::", "hostile::", "poison::", "raw_rows::"],
            required: false,
            start: find_or_start_3_10,
            program: program_3_10,
        },
    ],
};

const CURRENT: Version =
    Version { line: "4", service: "rabbit", port_variable: "THROUGHLINE_RABBIT_PORT", suite: "trixie" };

const OLDEST: Version =
    Version { line: "3.10", service: "rabbit-3.10", port_variable: "THROUGHLINE_RABBIT_3_10_PORT", suite: "bookworm" };

const HELP: &str = "\
start one with Docker Compose, then run the command again with THROUGHLINE_RABBIT_URL=amqp://guest:guest@127.0.0.1:5672/%2f
  docker compose up rabbit
or install what a local server is made with, then run the command again as root or where everybody may have namespaces
  sudo apt-get install debian-archive-keyring util-linux";

const CLIENT: Package = Package {
    name: "pika",
    version: "1.4.4",
    requirements: "pika==1.4.4",
    module: "pika",
    install: "pika",
    size: "20 MB",
    variable: PYTHON_VARIABLE,
};

/// A local server, its node and the node's directory.
const PORTS: u16 = 3;

/// A version that is tested.
struct Version {
    /// How its numbers begin.
    line: &'static str,
    /// Its service in `compose.yaml`.
    service: &'static str,
    /// The variable that sets the service's port.
    port_variable: &'static str,
    /// The release of Debian that has it.
    suite: &'static str,
}

/// Finds a RabbitMQ server, or starts one of version 4.
///
/// Takes the address in [`URL_VARIABLE`], else Docker Compose, else a local server, installed into the
/// project's tool folder when there is none. What takes long is announced on standard error. Blocks until
/// the server answers.
///
/// # Errors
///
/// When there is no way to have one; printed, the error says what was tried and how to start one.
///
/// # Examples
///
/// ```no_run
/// let server = xtask::servers::rabbit::find_or_start()?;
/// println!("connect to {}", server.url());
/// # Ok::<(), xtask::servers::ServerError>(())
/// ```
pub fn find_or_start() -> Result<Server, ServerError> {
    match set_variable(URL_VARIABLE) {
        Some(url) => elsewhere(url),
        None => start(&CURRENT, vec![format!("{URL_VARIABLE} is not set")]),
    }
}

/// Finds or starts a RabbitMQ server of version 3.10, the oldest that is tested.
///
/// # Errors
///
/// As [`find_or_start`]; also when [`URL_VARIABLE`] already says which server is to be used.
///
/// # Examples
///
/// ```no_run
/// let server = xtask::servers::rabbit::find_or_start_3_10()?;
/// assert!(server.version().starts_with("3.10."));
/// # Ok::<(), xtask::servers::ServerError>(())
/// ```
pub fn find_or_start_3_10() -> Result<Server, ServerError> {
    if set_variable(URL_VARIABLE).is_some() {
        return Err(ServerError::new(
            ServerErrorKind::Unavailable,
            format!("{URL_VARIABLE} names the only server to use"),
        ));
    }
    start(&OLDEST, Vec::new())
}

fn python() -> Result<PathBuf, ServerError> {
    CLIENT.python()
}

fn program() -> Result<PathBuf, ServerError> {
    local_program(&CURRENT, &Workspace::load()?, Vec::new())
}

fn program_3_10() -> Result<PathBuf, ServerError> {
    local_program(&OLDEST, &Workspace::load()?, Vec::new())
}

fn start(version: &Version, mut tried: Vec<String>) -> Result<Server, ServerError> {
    let workspace = Workspace::load()?;
    if let Some(server) = compose(version, &workspace, &mut tried)? {
        return Ok(server);
    }
    local(&local_program(version, &workspace, tried)?)
}

/// The program that [`PROGRAM_VARIABLE`] names is one of the current version.
fn local_program(version: &Version, workspace: &Workspace, mut tried: Vec<String>) -> Result<PathBuf, ServerError> {
    let named = if version.line == CURRENT.line { install::named()? } else { None };
    if let Some(program) = named {
        return Ok(program);
    }
    install::debian(version, workspace, &mut tried)?.ok_or_else(|| {
        let text = format!("there is no RabbitMQ server {} and none could be started", version.line);
        ServerError::new(ServerErrorKind::Unavailable, text).with_tried(tried).with_help(HELP)
    })
}

fn elsewhere(url: String) -> Result<Server, ServerError> {
    let version = address::probe_url(&url).map_err(|error| {
        let (kind, text) = match error.kind() {
            io::ErrorKind::InvalidInput => {
                (ServerErrorKind::Configuration, format!("{URL_VARIABLE} is wrong: {error}"))
            }
            _ => (
                ServerErrorKind::NotReady,
                format!(
                    "{URL_VARIABLE} names a server that does not answer ({error}); start it, or unset the variable"
                ),
            ),
        };
        ServerError::new(kind, text).with_source(error)
    })?;
    Ok(Server::elsewhere(BROKER.name, url, version))
}

/// The Compose service, or the reason why not in `tried`: a local server may work where Compose does not.
fn compose(version: &Version, workspace: &Workspace, tried: &mut Vec<String>) -> Result<Option<Server>, ServerError> {
    match Project::start(workspace.root(), version.service, version.port_variable, address::probe) {
        Ok((project, address, version)) => Ok(Some(Server::compose(BROKER.name, url(address), version, project))),
        Err(error) if error.kind() == ServerErrorKind::Interrupted => Err(error),
        Err(error) => {
            tried.push(error.reason());
            Ok(None)
        }
    }
}

fn local(program: &Path) -> Result<Server, ServerError> {
    let prepare = |address: SocketAddr, data: &Path| Ok(arguments(address, data));
    let start = Start { name: BROKER.name, program, ports: PORTS, prepare: &prepare };
    let (process, address, version) = Process::start(&start, address::probe)?;
    Ok(Server::local(BROKER.name, url(address), version, program.to_owned(), process))
}

fn arguments(address: SocketAddr, data: &Path) -> Vec<OsString> {
    vec![data.into(), address.port().to_string().into(), "rabbitmq-server".into()]
}

/// The virtual host is the one called `/`.
fn url(address: SocketAddr) -> String {
    format!("amqp://guest:guest@{address}/%2f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_has_the_versions_that_are_tested() {
        let compose = include_str!("../../../../compose.yaml");
        for version in [CURRENT, OLDEST] {
            let Version { line, service, port_variable, .. } = version;
            let (_, service) = compose.split_once(&format!("\n  {service}:\n")).unwrap();
            let service = service.split("\n  rabbit").next().unwrap();
            assert!(service.contains(&format!("image: rabbitmq:{line}.")), "{service}");
            assert!(service.contains(&format!("127.0.0.1:${{{port_variable}:-")), "{service}");
        }
    }
}
