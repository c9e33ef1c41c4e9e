use std::error::Error;
use std::fmt;

use crate::broker::BrokerError;
use crate::message::BoxError;

/// The phase in which serving failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ServeErrorKind {
    /// What ran [alongside](crate::serve::Serve::alongside) the app failed; the subscriptions were drained.
    Alongside,
    /// The app cannot work as it is configured; the text says what to change.
    Configuration,
    /// A subscription ended while the app was running; the other subscriptions were drained.
    Ended,
    /// What was published could not be flushed, or the connection not closed.
    Shutdown,
    /// A subscription could not be started.
    Subscribe,
}

/// Why an app could not be served to its regular end.
///
/// # Examples
///
/// ```
/// use throughline_core::{ServeError, ServeErrorKind};
///
/// fn is_ours_to_fix(error: &ServeError) -> bool {
///     error.kind() == ServeErrorKind::Configuration
/// }
/// ```
#[derive(Debug)]
pub struct ServeError {
    kind: ServeErrorKind,
    message: String,
    source: Option<BoxError>,
}

impl ServeError {
    pub(super) fn configuration(message: String) -> Self {
        Self { kind: ServeErrorKind::Configuration, message, source: None }
    }

    pub(super) fn broker(kind: ServeErrorKind, message: String, source: BrokerError) -> Self {
        Self { kind, message, source: Some(source.into()) }
    }

    pub(super) fn alongside(name: &str, source: BoxError) -> Self {
        let message = format!("`{name}`, which ran alongside the app, failed");
        Self { kind: ServeErrorKind::Alongside, message, source: Some(source) }
    }

    /// Returns in which phase serving failed.
    #[must_use]
    pub const fn kind(&self) -> ServeErrorKind {
        self.kind
    }

    /// Returns the broker's error behind it, where it is one.
    #[must_use]
    pub fn broker_error(&self) -> Option<&BrokerError> {
        self.source.as_ref()?.downcast_ref()
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}
