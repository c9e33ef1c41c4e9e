//! Apache Kafka, one node in KRaft mode.
//!
//! The tests run against [`VERSION`]. A local server is Kafka's own jars on the Java of this machine.

mod address;
mod install;
mod settings;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::workspace::Workspace;

use super::broker::{Broker, Pass, Program};
use super::compose::Project;
use super::error::{ServerError, ServerErrorKind};
use super::local::{Process, Start};
use super::python::Package;
use super::server::Server;
use super::set_variable;

use self::install::Installed;
pub use self::install::{HOME_VARIABLE, VERSION};

/// The variable that names the bootstrap servers to use, and gives tests those of the server that was started.
pub const URL_VARIABLE: &str = "THROUGHLINE_KAFKA_URL";

/// The variable that names a Python program which has the client of the tests that is not ours, and gives tests the one that is used.
pub const PYTHON_VARIABLE: &str = "THROUGHLINE_KAFKA_PYTHON";

/// Kafka in the table of brokers.
///
/// # Examples
///
/// ```
/// use xtask::servers::kafka;
///
/// assert_eq!(kafka::BROKER.url_variable, kafka::URL_VARIABLE);
/// ```
pub const BROKER: Broker = Broker {
    name: "kafka",
    url_variable: URL_VARIABLE,
    program_variable: HOME_VARIABLE,
    others: &[Program { name: "Python with confluent-kafka", variable: PYTHON_VARIABLE, find: python }],
    passes: &[Pass { name: "kafka", tests: &[], required: true, start: find_or_start, program: home }],
};

const HELP: &str = "\
start one with Docker Compose, then run the command again with THROUGHLINE_KAFKA_URL=127.0.0.1:9092
  docker compose up kafka
or install Java 17 or later and Maven, then run the command again
  sudo apt-get install default-jre-headless maven";

const CLIENT: Package = Package {
    name: "confluent-kafka",
    version: "2.16.1",
    requirements: "confluent-kafka==2.16.1",
    module: "confluent_kafka",
    install: "confluent-kafka",
    size: "40 MB",
    variable: PYTHON_VARIABLE,
};

fn python() -> Result<PathBuf, ServerError> {
    CLIENT.python()
}

/// A client cannot ask for the version.
const UNKNOWN_VERSION: &str = "unknown";

/// Finds a Kafka server, or starts one.
///
/// Takes the bootstrap servers in [`URL_VARIABLE`], else Docker Compose, else a local server, whose jars are
/// fetched into the project's tool folder when they are not there. What takes long is announced on standard
/// error. Blocks until the server answers.
///
/// # Errors
///
/// When there is no way to have one; printed, the error says what was tried and how to start one.
///
/// # Examples
///
/// ```no_run
/// let server = xtask::servers::kafka::find_or_start()?;
/// println!("bootstrap.servers={}", server.url());
/// # Ok::<(), xtask::servers::ServerError>(())
/// ```
pub fn find_or_start() -> Result<Server, ServerError> {
    if let Some(servers) = set_variable(URL_VARIABLE) {
        return elsewhere(servers);
    }
    let workspace = Workspace::load()?;
    let mut tried = vec![format!("{URL_VARIABLE} is not set")];
    if let Some(server) = compose(&workspace, &mut tried)? {
        return Ok(server);
    }
    local(&found(install::kafka(&workspace, &mut tried)?, tried)?)
}

fn home() -> Result<PathBuf, ServerError> {
    let mut tried = Vec::new();
    found(install::kafka(&Workspace::load()?, &mut tried)?, tried).map(|installed| installed.home)
}

fn found(installed: Option<Installed>, tried: Vec<String>) -> Result<Installed, ServerError> {
    installed.ok_or_else(|| {
        ServerError::new(ServerErrorKind::Unavailable, "there is no Kafka server and none could be started")
            .with_tried(tried)
            .with_help(HELP)
    })
}

fn elsewhere(servers: String) -> Result<Server, ServerError> {
    address::probe_any(&servers).map_err(|error| {
        let (kind, text) = match error.kind() {
            io::ErrorKind::InvalidInput => {
                (ServerErrorKind::Configuration, format!("{URL_VARIABLE} is wrong: {error}"))
            }
            _ => (
                ServerErrorKind::NotReady,
                format!(
                    "{URL_VARIABLE} names a server that does not answer without TLS and SASL ({error}); start it, or \
                     unset the variable"
                ),
            ),
        };
        ServerError::new(kind, text).with_source(error)
    })?;
    Ok(Server::elsewhere(BROKER.name, servers, UNKNOWN_VERSION.to_owned()))
}

/// The Compose service, or the reason why not in `tried`: a local server may work where Compose does not.
fn compose(workspace: &Workspace, tried: &mut Vec<String>) -> Result<Option<Server>, ServerError> {
    match Project::start(workspace.root(), BROKER.name, "THROUGHLINE_KAFKA_PORT", address::probe) {
        Ok((project, address, ())) => {
            Ok(Some(Server::compose(BROKER.name, address.to_string(), VERSION.to_owned(), project)))
        }
        Err(error) if error.kind() == ServerErrorKind::Interrupted => Err(error),
        Err(error) => {
            tried.push(error.reason());
            Ok(None)
        }
    }
}

fn local(installed: &Installed) -> Result<Server, ServerError> {
    let prepare = |address: SocketAddr, data: &_| settings::prepare(installed, address, data);
    let start = Start { name: BROKER.name, program: &installed.java, ports: 1, prepare: &prepare };
    let (process, address, ()) = Process::start(&start, address::probe)?;
    let (version, home) = (installed.version.clone(), installed.home.clone());
    Ok(Server::local(BROKER.name, address.to_string(), version, home, process))
}
