use std::fmt;
use std::sync::Arc;

use super::Observe;

/// What a subscriber is told before its first message: who hears of what it does by itself, and how many messages are handled at the
/// same time.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use throughline_core::broker::Reception;
/// use throughline_core::message::{Operations, Source, System};
/// use throughline_core::telemetry::Instrumentation;
///
/// let source = Source::new(Arc::new(System::new("nats", Operations::DEFAULT)));
/// let consumer = Instrumentation::from_globals().consumer(Arc::new(source));
/// assert_eq!(Reception::new(Arc::new(consumer), 64).messages_at_once(), 64);
/// ```
#[derive(Clone)]
pub struct Reception {
    observer: Arc<dyn Observe>,
    messages_at_once: usize,
    requests_at_once: usize,
}

impl Reception {
    /// Creates it, for an adapter that wraps another one and for tests.
    #[must_use]
    pub fn new(observer: Arc<dyn Observe>, messages_at_once: usize) -> Self {
        let messages_at_once = messages_at_once.max(1);
        Self { observer, messages_at_once, requests_at_once: messages_at_once }
    }

    /// Sets how many requests are handled at the same time (default: as many as other messages).
    #[must_use]
    pub const fn with_requests_at_once(mut self, requests_at_once: usize) -> Self {
        self.requests_at_once = if requests_at_once == 0 { 1 } else { requests_at_once };
        self
    }

    /// Returns whom to tell what the subscriber does by itself.
    #[must_use]
    pub fn observer(&self) -> &Arc<dyn Observe> {
        &self.observer
    }

    /// Returns how many messages are handled at the same time at most: the concurrency of the handler, times the messages of a batch.
    /// A subscriber that holds fewer ready keeps handlers idle.
    #[must_use]
    pub const fn messages_at_once(&self) -> usize {
        self.messages_at_once
    }

    /// Returns how many requests ([`Delivery::is_request`](crate::Delivery::is_request)) are handled at the same time at most: more than other messages where the user
    /// sets nothing. A subscriber that receives requests, and holds fewer messages ready, keeps requesters waiting.
    #[must_use]
    pub const fn requests_at_once(&self) -> usize {
        self.requests_at_once
    }
}

impl fmt::Debug for Reception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reception").field("messages_at_once", &self.messages_at_once).finish_non_exhaustive()
    }
}
