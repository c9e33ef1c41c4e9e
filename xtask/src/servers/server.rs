//! A server that is ready.

use std::fmt;
use std::path::{Path, PathBuf};

use super::compose::Project;
use super::local::Process;

/// A server that is ready; what was started for it is stopped, and its data removed, when it is dropped.
///
/// # Examples
///
/// ```no_run
/// let server = xtask::servers::nats::find_or_start()?;
/// println!("{server}");                  // nats 2.15.2 at nats://127.0.0.1:40123 (started here)
/// drop(server);                          // stopped, data removed
/// # Ok::<(), xtask::servers::ServerError>(())
/// ```
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    url: String,
    version: String,
    running: Running,
}

/// Where a server comes from.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Started with Docker Compose.
    Compose,
    /// Someone else's, named by an environment variable.
    Environment,
    /// Started from a program on this machine.
    Local,
}

#[derive(Debug)]
enum Running {
    Compose { _project: Project },
    Elsewhere,
    Local { process: Process, program: PathBuf },
}

impl Server {
    pub(super) fn elsewhere(name: &'static str, url: String, version: String) -> Self {
        Self { name, url, version, running: Running::Elsewhere }
    }

    pub(super) fn compose(name: &'static str, url: String, version: String, project: Project) -> Self {
        Self { name, url, version, running: Running::Compose { _project: project } }
    }

    /// `program` is what tests get, see [`Server::program`].
    pub(super) fn local(name: &'static str, url: String, version: String, program: PathBuf, process: Process) -> Self {
        Self { name, url, version, running: Running::Local { process, program } }
    }

    /// The address for a client.
    ///
    /// # Examples
    ///
    /// See [`Server`].
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The version that the server says it is.
    ///
    /// # Examples
    ///
    /// See [`Server`].
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it comes from.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use xtask::servers::{Origin, nats};
    ///
    /// let ours = nats::find_or_start()?.origin() != Origin::Environment;
    /// # Ok::<(), xtask::servers::ServerError>(())
    /// ```
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self.running {
            Running::Compose { .. } => Origin::Compose,
            Running::Elsewhere => Origin::Environment,
            Running::Local { .. } => Origin::Local,
        }
    }

    /// The program of a local server, for tests that start, stop and restart one of their own; for Kafka, the
    /// folder of its jars.
    ///
    /// # Examples
    ///
    /// See [`Server`].
    #[must_use]
    pub fn program(&self) -> Option<&Path> {
        match &self.running {
            Running::Local { program, .. } => Some(program),
            Running::Compose { .. } | Running::Elsewhere => None,
        }
    }

    /// Whether it still runs, as far as can be told: only a local server can be watched.
    ///
    /// # Examples
    ///
    /// See [`Server`].
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        match &mut self.running {
            Running::Local { process, .. } => process.is_running(),
            Running::Compose { .. } | Running::Elsewhere => true,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin() {
            Origin::Compose => "started with Docker Compose",
            Origin::Environment => "from the environment",
            Origin::Local => "started here",
        };
        write!(f, "{} {} at {} ({origin})", self.name, self.version, without_credentials(&self.url))
    }
}

/// An address as it may be printed: a password in it stays out of the log.
fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_address_has_no_password() {
        assert_eq!(without_credentials("nats://me:secret@host:4222"), "nats://host:4222");
        assert_eq!(without_credentials("host:4222"), "host:4222");
        let server = Server::elsewhere("nats", "nats://me:secret@host".into(), "2.15.2".into());
        assert_eq!(server.to_string(), "nats 2.15.2 at nats://host (from the environment)");
    }
}
