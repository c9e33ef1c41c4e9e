//! What can go wrong when telemetry is set up, flushed or shut down.

use std::error::Error;
use std::fmt;

/// A failure to set up, flush or shut down telemetry.
///
/// # Examples
///
/// ```
/// use std::io::{Error, ErrorKind, Result, Write};
/// use opentelemetry::trace::{Tracer, TracerProvider};
/// use throughline_export::ExportErrorKind;
///
/// struct Closed;
/// impl Write for Closed {
///     fn write(&mut self, _: &[u8]) -> Result<usize> {
///         Err(Error::from(ErrorKind::BrokenPipe))
///     }
///     fn flush(&mut self) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// let telemetry = throughline_export::console().writer(Closed).build()?;
/// telemetry.tracer_provider().tracer("shop").in_span("checkout", |_| ());
///
/// let error = telemetry.flush().await.unwrap_err();
/// assert_eq!(error.kind(), ExportErrorKind::Write);
/// # Ok(())
/// # }
/// ```
///
/// Its `Debug` is the message and its causes, for a `main` that returns it.
pub struct ExportError {
    kind: ExportErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kind of an [`ExportError`].
///
/// # Examples
///
/// ```
/// use throughline_export::ExportErrorKind;
///
/// assert_eq!(ExportErrorKind::Write.to_string(), "the console could not be written");
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ExportErrorKind {
    /// Telemetry runs already in this process.
    AlreadyStarted,
    /// An exporter cannot be set up as the code or the environment says.
    Configuration,
    /// A provider could not flush or shut down.
    Flush,
    /// The thread on which telemetry is sent could not be started.
    Thread,
    /// The environment asks for an exporter that is not built into this version.
    UnsupportedExporter,
    /// The console could not be written.
    Write,
}

impl ExportError {
    pub(crate) fn new(kind: ExportErrorKind, message: String) -> Self {
        Self { kind, message, source: None }
    }

    pub(crate) fn caused_by(kind: ExportErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, message: kind.to_string(), source: Some(source.into()) }
    }

    /// Returns the kind, to match on.
    pub fn kind(&self) -> ExportErrorKind {
        self.kind
    }
}

impl fmt::Debug for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let said = error.to_string();
            // Some errors print their cause and return it as the source, too.
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ExportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl fmt::Display for ExportErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyStarted => "telemetry runs already in this process",
            Self::Configuration => "an exporter cannot be set up like this",
            Self::Thread => "the thread on which telemetry is sent could not be started",
            Self::Flush => "telemetry could not be flushed",
            Self::UnsupportedExporter => "the exporter is not built into this version",
            Self::Write => "the console could not be written",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a `main` that returns `Box<dyn Error>` prints.
    #[test]
    fn the_debug_is_a_text_for_people() {
        let cause = std::io::Error::other("the pipe is closed");
        let error: Box<dyn Error> = Box::new(ExportError::caused_by(ExportErrorKind::Write, cause));
        assert_eq!(error.to_string(), "the console could not be written");
        assert_eq!(format!("{error:?}"), "the console could not be written: the pipe is closed");
    }

    #[test]
    fn a_cause_that_the_text_has_is_not_said_again() {
        let cause = std::io::Error::other("the console could not be written");
        let error = ExportError::caused_by(ExportErrorKind::Write, cause);
        assert_eq!(format!("{error:?}"), "the console could not be written");
    }
}
