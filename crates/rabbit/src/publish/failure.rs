use std::error::Error;
use std::fmt;

use throughline_core::PublishError;

/// What became of a message whose publish failed.
///
/// # Examples
///
/// ```
/// use throughline_core::PublishError;
/// use throughline_rabbit::PublishFailure;
///
/// fn may_publish_again(error: &PublishError) -> bool {
///     PublishFailure::of(error) == Some(PublishFailure::NotSent)
/// }
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PublishFailure {
    /// It was not sent.
    NotSent,
    /// The server refused it, or no queue took it. A message that went to several queues may be in some of them.
    Refused,
    /// It was sent, and the server did not say what it did with it. Whoever publishes it again may have it twice.
    MaybeStored,
}

impl PublishFailure {
    /// Returns what became of the message; `None` where the error is not one of publishing to RabbitMQ.
    #[must_use]
    pub fn of(error: &PublishError) -> Option<Self> {
        let source = error.source()?;
        source.downcast_ref::<Cause>().map(|cause| cause.failure)
    }
}

impl fmt::Display for PublishFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSent => "the message was not sent",
            Self::Refused => "the server did not take the message",
            Self::MaybeStored => "the message may have been stored",
        })
    }
}

/// The source of an error of publishing: what became of the message, and the client's error.
#[derive(Debug)]
pub(crate) struct Cause {
    pub(crate) failure: PublishFailure,
    pub(crate) client: Option<lapin::Error>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.client.as_ref().map(|client| client as &(dyn Error + 'static))
    }
}
