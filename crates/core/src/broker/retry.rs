use std::time::Duration;

use crate::message::{Delivery, Destination};

/// The header that says which attempt the next one is; read by adapters whose messages wait at a [`RetryPlace`].
pub const RETRY_ATTEMPT: &str = "retry-attempt";

/// The header that holds the `error.type` of the attempt that failed last; never the error's text, which may be private.
pub const RETRY_ERROR: &str = "retry-error";

/// The header that says when the next attempt is due, in milliseconds since 1970.
pub const RETRY_DUE: &str = "retry-due";

/// What finds the place where a message waits for its next attempt, on a broker that does not deliver it again by itself.
///
/// The framework forwards the message there, as it is, with the headers `retry-attempt`, `retry-due`, `retry-error` (the
/// `error.type`) and `retry-origin` set and never added, and acknowledges it when that is confirmed. The subscription receives from
/// there, too, not before the message is due. How often a message is tried, and when, is the route's to say, in place of the retry policy;
/// which failures are tried at all is the policy's.
///
/// A message that cannot be forwarded is not settled: the forward is repeated, with the delays of the [`RetryPolicy`](crate::RetryPolicy),
/// until it is confirmed, the message is withdrawn, or the app ends. That counts as the same attempt and the broker is told nothing, also
/// where it [redelivers](super::Subscriber::redelivers).
pub trait RetryRoute: Send + Sync + 'static {
    /// Returns the place for a message that is to be tried again; `None` where its attempts are used up and it is given up.
    ///
    /// `after` is the delay a handler asked for by itself, without a failure; such a message has no bound.
    fn place(&self, message: &Delivery, after: Option<Duration>) -> Option<RetryPlace>;

    /// Returns, for a destination that is one of the route's places, where the messages in it came from and how long each waits there;
    /// `None` for any other destination, which is the default.
    ///
    /// A broker asks that imitates this one ([`Subscription::with_retry_route`](super::Subscription::with_retry_route)).
    fn place_at<'a>(&self, destination: &'a str) -> Option<(&'a str, Duration)> {
        let _ = destination;
        None
    }
}

/// A place where a message waits for its next attempt.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throughline_core::broker::RetryPlace;
///
/// let place = RetryPlace::new("orders.retry.1", Duration::from_secs(30));
/// assert_eq!(place.destination.name(), "orders.retry.1");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetryPlace {
    /// Where the message is sent.
    pub destination: Destination,
    /// How long it waits there before it is handled again.
    pub wait: Duration,
}

impl RetryPlace {
    /// Creates a place from where the message is sent and how long it waits there.
    #[must_use]
    pub fn new(destination: impl Into<Destination>, wait: Duration) -> Self {
        Self { destination: destination.into(), wait }
    }
}
