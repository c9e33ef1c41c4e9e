//! Why there is no server.

use std::borrow::Cow;
use std::error::Error;
use std::{fmt, io};

use crate::tools::{ToolError, ToolErrorKind};
use crate::workspace::WorkspaceError;

/// There is no server to use.
///
/// Printed, it says what was tried and which commands start a server by hand; it is several lines then,
/// because it is made for a person at a terminal.
///
/// # Examples
///
/// ```no_run
/// use xtask::servers::{ServerErrorKind, nats};
///
/// match nats::find_or_start() {
///     Ok(server) => println!("using {}", server.url()),
///     Err(error) if error.kind() == ServerErrorKind::Interrupted => {}
///     Err(error) => eprintln!("{error}"),
/// }
/// ```
#[derive(Debug)]
pub struct ServerError {
    kind: ServerErrorKind,
    message: String,
    tried: Vec<String>,
    help: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What went wrong with a server.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServerErrorKind {
    /// A setting, such as the address in the environment, is wrong.
    Configuration,
    /// The user pressed Ctrl-C.
    Interrupted,
    /// There is a server, or one was started, but it does not answer as it should.
    NotReady,
    /// No server was found, and none can be had on this machine.
    Unavailable,
}

impl ServerError {
    pub(super) fn new(kind: ServerErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), tried: Vec::new(), help: Cow::Borrowed(""), source: None }
    }

    pub(super) fn interrupted() -> Self {
        Self::new(ServerErrorKind::Interrupted, "interrupted")
    }

    pub(super) fn with_tried(mut self, tried: Vec<String>) -> Self {
        self.tried = tried;
        self
    }

    pub(super) fn with_help(mut self, help: impl Into<Cow<'static, str>>) -> Self {
        self.help = help.into();
        self
    }

    pub(super) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    ///
    /// # Examples
    ///
    /// See [`ServerError`].
    #[must_use]
    pub fn kind(&self) -> ServerErrorKind {
        self.kind
    }

    /// The reason in one line, without the commands that help.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// if let Err(error) = xtask::servers::nats::find_or_start() {
    ///     eprintln!("left out: {}", error.reason());
    /// }
    /// ```
    #[must_use]
    pub fn reason(&self) -> String {
        if self.tried.is_empty() {
            self.message.clone()
        } else {
            format!("{} ({})", self.message, self.tried.join("; "))
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for tried in &self.tried {
            write!(f, "\n  - {tried}")?;
        }
        if self.help.is_empty() { Ok(()) } else { write!(f, "\n{}", self.help) }
    }
}

impl Error for ServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

impl From<ToolError> for ServerError {
    fn from(error: ToolError) -> Self {
        let kind = match error.kind() {
            ToolErrorKind::Interrupted => ServerErrorKind::Interrupted,
            _ => ServerErrorKind::Unavailable,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

impl From<WorkspaceError> for ServerError {
    fn from(error: WorkspaceError) -> Self {
        Self::new(ServerErrorKind::Configuration, error.to_string()).with_source(error)
    }
}

impl From<io::Error> for ServerError {
    fn from(error: io::Error) -> Self {
        Self::new(ServerErrorKind::Unavailable, error.to_string()).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_what_was_tried_and_what_helps() {
        let error = ServerError::new(ServerErrorKind::Unavailable, "no server")
            .with_tried(vec!["no docker".into(), "no go".into()])
            .with_help("start one");
        assert_eq!(error.to_string(), "no server\n  - no docker\n  - no go\nstart one");
        assert_eq!(error.reason(), "no server (no docker; no go)");
    }
}
