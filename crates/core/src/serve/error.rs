use std::error::Error;
use std::fmt;

use crate::broker::BrokerError;
use crate::causes::{Causes, debug_with_causes};
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
/// Its text has everything in one line: the subscription, the broker's error and the causes of that. So does its `Debug`, for a `main` that
/// returns it. Since the text has them, they are not the [`source`](Error::source) as well; [`cause`](Self::cause) and
/// [`broker_error`](Self::broker_error) return them.
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

    /// Returns the error behind it: the broker's, or that of what ran alongside the app.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use throughline_core::ServeError;
    ///
    /// fn is_taken(error: &ServeError) -> bool {
    ///     let io = error.cause().and_then(|cause| cause.downcast_ref::<io::Error>());
    ///     io.is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    /// }
    /// ```
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }

    /// Returns the broker's error behind it, where it is one.
    #[must_use]
    pub fn broker_error(&self) -> Option<&BrokerError> {
        self.source.as_ref()?.downcast_ref()
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {}", Causes(&**source)),
            None => Ok(()),
        }
    }
}

debug_with_causes!(ServeError);

impl Error for ServeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::BrokerErrorKind;

    fn error() -> ServeError {
        let client = std::io::Error::other("unknown topic");
        let broker =
            BrokerError::new(BrokerErrorKind::NotFound, "x", "topic `orders` does not exist").with_source(client);
        ServeError::broker(ServeErrorKind::Subscribe, "cannot subscribe to `orders` (group `stock`)".to_owned(), broker)
    }

    const TEXT: &str = "cannot subscribe to `orders` (group `stock`): topic `orders` does not exist: unknown topic";

    #[test]
    fn the_text_has_the_causes() {
        assert_eq!(error().to_string(), TEXT);
        assert_eq!(format!("{:?}", error()), TEXT);
        assert_eq!(format!("{:#?}", error()), TEXT);
        assert_eq!(ServeError::configuration("no name".to_owned()).to_string(), "no name");
    }

    /// As `{:#}` of `anyhow` prints it, and as reporters print each cause on a line.
    #[test]
    fn a_chain_of_causes_says_each_once() {
        let error = error();
        let mut chain = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            chain.push(error.to_string());
            cause = error.source();
        }
        assert_eq!(chain.join(": "), TEXT);
    }

    #[test]
    fn the_error_of_what_ran_alongside_is_at_hand() {
        let error = ServeError::alongside("http", std::io::Error::other("address in use").into());
        assert_eq!(error.to_string(), "`http`, which ran alongside the app, failed: address in use");
        assert!(error.broker_error().is_none() && error.cause().is_some_and(|cause| cause.is::<std::io::Error>()));
    }

    #[test]
    fn the_error_of_the_broker_is_at_hand() {
        assert_eq!(error().broker_error().map(BrokerError::kind), Some(BrokerErrorKind::NotFound));
    }
}
