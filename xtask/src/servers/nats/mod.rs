//! NATS with JetStream.
//!
//! The tests run against the current server and once more against 2.9, the one in Debian 12, which lacks
//! what came later.

mod address;
mod install;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::workspace::Workspace;

use super::broker::{Broker, Pass};
use super::compose::Project;
use super::error::{ServerError, ServerErrorKind};
use super::local::{Process, Start};
use super::server::Server;
use super::set_variable;

use self::address::Info;
pub use self::install::PROGRAM_VARIABLE;

/// The variable that names a server to use, and gives tests the address of the one that was started.
pub const URL_VARIABLE: &str = "THROUGHLINE_NATS_URL";

/// NATS in the table of brokers.
///
/// # Examples
///
/// ```
/// use xtask::servers::nats;
///
/// assert_eq!(nats::BROKER.url_variable, nats::URL_VARIABLE);
/// ```
pub const BROKER: Broker = Broker {
    name: "nats",
    url_variable: URL_VARIABLE,
    program_variable: PROGRAM_VARIABLE,
    others: &[],
    passes: &[
        Pass { name: "nats", tests: &[], required: true, start: find_or_start, program },
        Pass {
            name: "nats-2.9",
            tests: OF_THE_SERVER,
            required: false,
            start: find_or_start_2_9,
            program: program_2_9,
        },
    ],
};

/// The tests of what a server does with messages. What the connection does, and what strangers' headers do to a service, is the client's.
const OF_THE_SERVER: &[&str] = &[
    "answers::",
    "core_nats::",
    "forwards::",
    "jetstream::",
    "kept::",
    "last_delivery::",
    "limits::",
    "restart::",
    "starts::",
    "statuses::",
];

const HELP: &str = "\
start one with one of these, then run the command again with THROUGHLINE_NATS_URL=nats://127.0.0.1:4222
  docker run --rm -p 127.0.0.1:4222:4222 nats:2.15-alpine -js
  go install github.com/nats-io/nats-server/v2@v2.15.2 && nats-server -a 127.0.0.1 -js -sd \"$(mktemp -d)\"
  sudo apt-get install nats-server && nats-server -a 127.0.0.1 -js -sd \"$(mktemp -d)\"";

/// Finds a NATS server, or starts one: the current version where it can be had.
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
/// let server = xtask::servers::nats::find_or_start()?;
/// println!("connect to {}", server.url());
/// # Ok::<(), xtask::servers::ServerError>(())
/// ```
pub fn find_or_start() -> Result<Server, ServerError> {
    if let Some(url) = set_variable(URL_VARIABLE) {
        return elsewhere(url);
    }
    let workspace = Workspace::load()?;
    let mut tried = vec![format!("{URL_VARIABLE} is not set")];
    if let Some(server) = compose(&workspace, "nats", "THROUGHLINE_NATS_PORT", &mut tried)? {
        return Ok(server);
    }
    local(&found(install::current(&workspace, &mut tried)?, tried)?)
}

/// Finds or starts a NATS server of version 2.9, the oldest that is tested.
///
/// # Errors
///
/// As [`find_or_start`]; also when [`URL_VARIABLE`] already says which server is to be used.
///
/// # Examples
///
/// ```no_run
/// let server = xtask::servers::nats::find_or_start_2_9()?;
/// assert!(server.version().starts_with("2.9."));
/// # Ok::<(), xtask::servers::ServerError>(())
/// ```
pub fn find_or_start_2_9() -> Result<Server, ServerError> {
    if set_variable(URL_VARIABLE).is_some() {
        return Err(ServerError::new(
            ServerErrorKind::Unavailable,
            format!("{URL_VARIABLE} names the only server to use"),
        ));
    }
    let workspace = Workspace::load()?;
    let mut tried = Vec::new();
    if let Some(server) = compose(&workspace, "nats-2.9", "THROUGHLINE_NATS_2_9_PORT", &mut tried)? {
        return Ok(server);
    }
    local(&found_2_9(install::version_2_9(&workspace, &mut tried)?, tried)?)
}

fn program() -> Result<PathBuf, ServerError> {
    let mut tried = Vec::new();
    found(install::current(&Workspace::load()?, &mut tried)?, tried)
}

fn program_2_9() -> Result<PathBuf, ServerError> {
    let mut tried = Vec::new();
    found_2_9(install::version_2_9(&Workspace::load()?, &mut tried)?, tried)
}

fn found(program: Option<PathBuf>, tried: Vec<String>) -> Result<PathBuf, ServerError> {
    program.ok_or_else(|| {
        ServerError::new(ServerErrorKind::Unavailable, "there is no NATS server and none could be started")
            .with_tried(tried)
            .with_help(HELP)
    })
}

fn found_2_9(program: Option<PathBuf>, tried: Vec<String>) -> Result<PathBuf, ServerError> {
    program
        .ok_or_else(|| ServerError::new(ServerErrorKind::Unavailable, "there is no NATS server 2.9").with_tried(tried))
}

fn elsewhere(url: String) -> Result<Server, ServerError> {
    let info = address::probe_url(&url).map_err(|error| {
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
    if !info.jetstream {
        let text = format!("the server that {URL_VARIABLE} names runs without JetStream; start it with `-js`");
        return Err(ServerError::new(ServerErrorKind::Configuration, text));
    }
    Ok(Server::elsewhere(BROKER.name, url, info.version))
}

/// A Compose service, or the reason why not in `tried`: a local server may work where Compose does not.
fn compose(
    workspace: &Workspace,
    service: &str,
    port: &'static str,
    tried: &mut Vec<String>,
) -> Result<Option<Server>, ServerError> {
    match Project::start(workspace.root(), service, port, address::probe) {
        Ok((project, address, Info { version, .. })) => {
            Ok(Some(Server::compose(BROKER.name, url(address), version, project)))
        }
        Err(error) if error.kind() == ServerErrorKind::Interrupted => Err(error),
        Err(error) => {
            tried.push(error.reason());
            Ok(None)
        }
    }
}

fn local(program: &Path) -> Result<Server, ServerError> {
    let prepare = |address: SocketAddr, data: &Path| Ok(arguments(address, data));
    let start = Start { name: BROKER.name, program, ports: 1, prepare: &prepare };
    let (process, address, info) = Process::start(&start, address::probe)?;
    Ok(Server::local(BROKER.name, url(address), info.version, program.to_owned(), process))
}

fn arguments(address: SocketAddr, data: &Path) -> Vec<OsString> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    vec!["-a".into(), host.into(), "-p".into(), port.into(), "-js".into(), "-sd".into(), data.into()]
}

fn url(address: SocketAddr) -> String {
    format!("nats://{address}")
}
