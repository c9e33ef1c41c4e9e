use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::{BatchPolicy, Pattern, Subscription};

use crate::semconv::{SYSTEM, WILDCARDS};

/// What to consume from core NATS: one subject, or those a pattern stands for.
///
/// A subject consists of tokens with dots between them. `*` stands for one token, `>` for one or more at the end, and
/// `{name}` for one token that telemetry shows by that name.
///
/// Core NATS delivers at most once: what nobody is subscribed to and what a handler fails on is not delivered again. A
/// service that shuts down handles what it has taken, within the drain timeout; one that is killed loses it. For at
/// least once use [`Stream`](crate::Stream).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throughline_core::broker::Subscription;
/// use throughline_nats::Subject;
///
/// let subject = Subject::new("orders.{id}.placed").queue_group("stock").batch(100, Duration::from_millis(50));
/// let subscription = Subscription::from(subject);
/// assert!(subscription.patterns()[0].matches("orders.42.placed"));
/// assert_eq!(subscription.group(), Some("stock"));
/// ```
#[derive(Clone, Debug)]
pub struct Subject {
    name: Arc<str>,
    queue_group: Option<Arc<str>>,
    batch: Option<BatchPolicy>,
    buffer: Option<usize>,
}

impl Subject {
    /// How many messages a subscription holds that no handler took yet, where it does not say.
    pub(crate) const BUFFER: usize = 65_536;

    /// Creates a subscription that receives every matching message.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::Subscription;
    /// use throughline_nats::Subject;
    /// assert!(Subscription::from(Subject::new("orders.>")).patterns()[0].matches("orders.eu.placed"));
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), queue_group: None, batch: None, buffer: None }
    }

    /// Joins a queue group: each message reaches one subscription of the group.
    #[must_use]
    pub fn queue_group(mut self, name: impl Into<Arc<str>>) -> Self {
        self.queue_group = Some(name.into());
        self
    }

    /// Hands messages to the handler in batches: when `max_messages` are there, or when the first has waited for
    /// `max_wait`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::broker::Subscription;
    /// use throughline_nats::Subject;
    /// let billing = Subscription::from(Subject::new("orders").batch(100, Duration::from_millis(50)));
    /// assert_eq!(billing.batch().map(|policy| policy.max_messages), Some(100));
    /// ```
    #[must_use]
    pub const fn batch(mut self, max_messages: usize, max_wait: Duration) -> Self {
        self.batch = Some(BatchPolicy::new(max_messages, max_wait));
        self
    }

    /// Limits how many messages that have arrived wait for a handler. The default is 65,536, as many as the client holds.
    ///
    /// Core NATS has no other place for them: what comes while as many wait is dropped, logged as a warning and counted by the
    /// metric `throughline.consumer.dropped`. Each takes its body, its headers and some 250 bytes, so that bodies of a kilobyte
    /// need about 80 MB by default. Raise it for bursts; for handlers that are slower than what arrives no buffer is large enough.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::Subject;
    /// let prices = Subject::new("prices.changed").buffer(1_000);
    /// ```
    #[must_use]
    pub const fn buffer(mut self, messages: usize) -> Self {
        self.buffer = Some(messages);
        self
    }

    /// Returns how many messages may wait for a handler.
    pub(crate) fn held(&self) -> usize {
        self.buffer.unwrap_or(Self::BUFFER).max(1)
    }
}

impl From<Subject> for Subscription {
    fn from(subject: Subject) -> Self {
        let pattern = Pattern::new(Arc::clone(&subject.name), WILDCARDS);
        let mut subscription = Self::new(SYSTEM, pattern).without_redelivery();
        if let Some(group) = &subject.queue_group {
            subscription =
                subscription.with_group(Arc::clone(group)).with_description(format!("queue group `{group}`"));
        }
        if let Some(policy) = subject.batch {
            subscription = subscription.with_batch(policy);
        }
        subscription.with_native(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_a_star_on_the_wire_and_a_name_in_telemetry() {
        let subscription = Subscription::from(Subject::new("orders.{id}.paid"));
        let pattern = &subscription.patterns()[0];
        assert_eq!((pattern.to_wire().as_str(), pattern.as_str()), ("orders.*.paid", "orders.{id}.paid"), "ATTR-N-02");
    }

    #[test]
    fn a_test_in_memory_tries_again_in_place_as_core_nats_does() {
        assert!(!Subscription::from(Subject::new("orders")).redelivers());
    }

    #[test]
    fn the_wildcards_are_those_of_nats() {
        let matches =
            |pattern: &'static str, subject| Subscription::from(Subject::new(pattern)).patterns()[0].matches(subject);
        assert!(matches("orders.*", "orders.42") && !matches("orders.*", "orders.42.paid"));
        assert!(matches("orders.>", "orders.42.paid") && !matches("orders.>", "orders"));
        assert!(matches(">", "orders") && matches("orders", "orders"));
    }

    #[test]
    fn the_memory_broker_can_imitate_it() {
        let subscription = Subscription::from(Subject::new("orders"));
        assert!(subscription.needs().is_empty());
        assert_eq!(subscription.system(), "nats");
    }
}
