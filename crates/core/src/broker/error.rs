use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use super::ErrorReply;
use crate::causes::debug_with_causes;
use crate::message::{BoxError, Failure};

/// What went wrong, in portable terms, with a connection, a subscription or a settlement.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum BrokerErrorKind {
    /// What was asked for is wrong; the text says what to change.
    Configuration,
    /// The connection was lost and did not come back.
    Disconnected,
    /// The subscription ended by itself.
    Ended,
    /// A stream, topic or queue does not exist.
    NotFound,
    /// None of the above.
    Other,
    /// The broker did not answer in time.
    Timeout,
    /// The broker refused the credentials or the right.
    Unauthorized,
    /// No server answers at the address.
    Unreachable,
    /// The broker cannot do what was asked for.
    Unsupported,
}

/// What can go wrong between the framework and a broker other than publishing.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::BrokerErrorKind;
/// use throughline_core::BrokerError;
///
/// let error = BrokerError::new(BrokerErrorKind::NotFound, "stream_not_found", "stream ORDERS does not exist: declare it first");
/// assert_eq!(error.kind(), BrokerErrorKind::NotFound);
/// ```
///
/// Its `Debug` is the message and its causes, for a `main` that returns it.
pub struct BrokerError {
    // Boxed, so that a `Result` is small where all goes well.
    inner: Box<BrokerErrorInner>,
}

struct BrokerErrorInner {
    kind: BrokerErrorKind,
    error_type: Cow<'static, str>,
    message: String,
    source: Option<BoxError>,
}

impl BrokerError {
    /// Creates an error from its kind, the adapter's `error.type` (one of a documented few) and what to do about it.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::BrokerErrorKind;
    /// use throughline_core::BrokerError;
    /// let error = BrokerError::new(BrokerErrorKind::Timeout, "timeout", "no answer within 5 s");
    /// assert_eq!(error.to_string(), "no answer within 5 s");
    /// ```
    #[must_use]
    pub fn new(kind: BrokerErrorKind, error_type: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let (error_type, message) = (error_type.into(), message.into());
        Self { inner: Box::new(BrokerErrorInner { kind, error_type, message, source: None }) }
    }

    /// Keeps the client's own error as the source.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Creates the error of a configuration that cannot work.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::BrokerErrorKind;
    /// use throughline_core::BrokerError;
    /// assert_eq!(BrokerError::configuration("give the stream a name").kind(), BrokerErrorKind::Configuration);
    /// ```
    #[must_use]
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(BrokerErrorKind::Configuration, "configuration", message)
    }

    /// Returns the portable kind.
    #[must_use]
    pub fn kind(&self) -> BrokerErrorKind {
        self.inner.kind
    }

    /// Returns the value of `error.type`.
    #[must_use]
    pub fn error_type(&self) -> &str {
        &self.inner.error_type
    }
}

debug_with_causes!(BrokerError);

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl Error for BrokerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Why a message was not published, in portable terms.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum PublishErrorKind {
    /// The reply could not be decoded.
    Decode,
    /// The connection is lost.
    Disconnected,
    /// The body could not be encoded.
    Encode,
    /// The destination is not a valid name.
    InvalidDestination,
    /// The destination does not exist, is bound to nothing, or nobody answers there.
    NotFound,
    /// None of the above.
    Other,
    /// Some messages of a batch were published and some were not.
    Partial,
    /// The broker does not take this message, whenever it comes.
    Refused,
    /// The other side answers that the request failed, see [`PublishError::error_reply`].
    RequestFailed,
    /// The broker did not confirm, or nobody replied, in time.
    Timeout,
    /// The message is larger than the broker takes.
    TooLarge,
    /// The broker refused the credentials or the right.
    Unauthorized,
    /// The broker cannot take a message now: it is full, or has no leader.
    Unavailable,
    /// The broker cannot do what was asked for.
    Unsupported,
}

impl PublishErrorKind {
    /// Tells whether another attempt with the same message must fail as well.
    ///
    /// Dead letters, retries elsewhere and replies all ask here: what may pass is tried again, what cannot is given up at once. A
    /// missing destination, a missing right and a full stream count as what somebody can mend while the message waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::PublishErrorKind;
    /// assert!(PublishErrorKind::TooLarge.is_permanent());
    /// assert!(!PublishErrorKind::Disconnected.is_permanent());
    /// ```
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        match self {
            Self::Decode
            | Self::Encode
            | Self::InvalidDestination
            | Self::Refused
            | Self::TooLarge
            | Self::Unsupported => true,
            Self::Disconnected
            | Self::NotFound
            | Self::Other
            | Self::Partial
            | Self::RequestFailed
            | Self::Timeout
            | Self::Unauthorized
            | Self::Unavailable => false,
        }
    }
}

/// Why a message was not published, or a request not answered.
///
/// # Examples
///
/// ```
/// use throughline_core::{PublishError, broker::PublishErrorKind};
///
/// let error = PublishError::new(PublishErrorKind::Timeout, "timeout", "no reply within 2 s");
/// assert!(error.is_timeout());
/// ```
///
/// Its `Debug` is the message and its causes, for a `main` that returns it.
pub struct PublishError {
    // Boxed, so that a `Result` is small where all goes well.
    inner: Box<PublishErrorInner>,
}

struct PublishErrorInner {
    kind: PublishErrorKind,
    error_type: Cow<'static, str>,
    message: String,
    source: Option<BoxError>,
    failed: Vec<(usize, PublishError)>,
    error_reply: Option<ErrorReply>,
}

impl PublishError {
    /// Creates an error from its kind, the adapter's `error.type` (one of a documented few) and what to do about it.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{PublishError, broker::PublishErrorKind};
    /// let error = PublishError::new(PublishErrorKind::NotFound, "no_responders", "nobody listens on prices.get");
    /// assert_eq!(error.error_type(), "no_responders");
    /// ```
    #[must_use]
    pub fn new(kind: PublishErrorKind, error_type: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let (error_type, message) = (error_type.into(), message.into());
        let (source, failed, error_reply) = (None, Vec::new(), None);
        Self { inner: Box::new(PublishErrorInner { kind, error_type, message, source, failed, error_reply }) }
    }

    /// Keeps the client's own error as the source.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Creates the error of a message that says nowhere to go.
    pub(crate) fn no_destination() -> Self {
        let message =
            "the message has no destination: name one, or return the body alone and set `reply_to` on the subscription";
        Self::new(PublishErrorKind::InvalidDestination, "invalid_destination", message)
    }

    /// Creates the error of a batch from its failed messages and their places in the batch.
    pub(crate) fn partial(failed: Vec<(usize, Self)>, total: usize) -> Self {
        let error_type = failed.first().map_or(Cow::Borrowed("_OTHER"), |(_, error)| error.error_type_owned());
        let message = format!("{} of {total} messages were not published", failed.len());
        let mut partial = Self::new(PublishErrorKind::Partial, error_type, message);
        partial.inner.failed = failed;
        partial
    }

    /// Creates the error of a request that was answered with an error reply.
    pub(crate) fn request_failed(destination: &str, reply: ErrorReply) -> Self {
        let message = format!("`{destination}` answers that the request failed: {reply}");
        let mut failed = Self::new(PublishErrorKind::RequestFailed, "request_failed", message);
        failed.inner.error_reply = Some(reply);
        failed
    }

    /// Returns the portable kind.
    #[must_use]
    pub fn kind(&self) -> PublishErrorKind {
        self.inner.kind
    }

    /// Returns the value of `error.type`.
    #[must_use]
    pub fn error_type(&self) -> &str {
        &self.inner.error_type
    }

    /// Tells whether another attempt must fail as well, see [`PublishErrorKind::is_permanent`]. Of a batch it must when each message
    /// that failed must.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{PublishError, broker::PublishErrorKind};
    /// assert!(PublishError::new(PublishErrorKind::TooLarge, "too_large", "x").is_permanent());
    /// ```
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self.inner.kind {
            PublishErrorKind::Partial => self.failed().iter().all(|(_, error)| error.is_permanent()),
            kind => kind.is_permanent(),
        }
    }

    /// Tells whether the broker did not confirm, or nobody replied, in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.inner.kind == PublishErrorKind::Timeout
    }

    /// Returns the messages of a batch that were not published: their places in the batch and why.
    #[must_use]
    pub fn failed(&self) -> &[(usize, Self)] {
        &self.inner.failed
    }

    /// Returns what the other side of a request answered, where it answered that the request failed.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::PublishError;
    ///
    /// fn is_busy(error: &PublishError) -> bool {
    ///     error.error_reply().is_some_and(|reply| reply.code() == Some(503))
    /// }
    /// ```
    #[must_use]
    pub fn error_reply(&self) -> Option<&ErrorReply> {
        self.inner.error_reply.as_ref()
    }

    /// Makes it the failure of a message: a permanent one where another attempt must fail as well.
    pub(crate) fn into_failure(self) -> Failure {
        let is_permanent = self.is_permanent();
        let failure = Failure::new(self.error_type_owned(), self).by_framework();
        if is_permanent { failure.permanent() } else { failure }
    }

    pub(crate) fn error_type_owned(&self) -> Cow<'static, str> {
        self.inner.error_type.clone()
    }
}

debug_with_causes!(PublishError);

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl Error for PublishError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.inner.source {
            Some(source) => Some(source.as_ref()),
            None => self.inner.failed.first().map(|(_, error)| error as &(dyn Error + 'static)),
        }
    }
}
