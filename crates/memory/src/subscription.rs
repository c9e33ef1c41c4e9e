use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::{BatchPolicy, Pattern, Subscription, Wildcards};

use crate::semconv::SYSTEM;

/// The signs of the in-memory broker: those of NATS.
const WILDCARDS: Wildcards = Wildcards::new('.', "*", ">");

/// What to consume from a [`Memory`](crate::Memory): one channel, or those a pattern stands for.
///
/// The name consists of tokens with dots between them. `*` stands for one token, `>` for one or more at the end, and
/// `{name}` for one token that telemetry shows by that name.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throughline_core::broker::Subscription;
/// use throughline_memory::Channel;
///
/// let channel = Channel::new("orders.{id}.placed").group("stock").batch(100, Duration::from_millis(50));
/// let subscription = Subscription::from(channel);
/// assert!(subscription.patterns()[0].matches("orders.42.placed"));
/// assert_eq!(subscription.group(), Some("stock"));
/// ```
#[derive(Clone, Debug)]
pub struct Channel {
    name: Arc<str>,
    group: Option<Arc<str>>,
    batch: Option<BatchPolicy>,
}

impl Channel {
    /// Creates a subscription that receives every matching message.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::Subscription;
    /// use throughline_memory::Channel;
    /// assert!(Subscription::from(Channel::new("orders.>")).patterns()[0].matches("orders.eu.placed"));
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), group: None, batch: None }
    }

    /// Joins a group: each message reaches one subscription of the group.
    #[must_use]
    pub fn group(mut self, name: impl Into<Arc<str>>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Hands messages to the handler in batches: when `max_messages` are there, or when the first has waited for `max_wait`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::broker::Subscription;
    /// use throughline_memory::Channel;
    /// let billing = Subscription::from(Channel::new("orders").batch(100, Duration::from_millis(50)));
    /// assert_eq!(billing.batch().map(|policy| policy.max_messages), Some(100));
    /// ```
    #[must_use]
    pub const fn batch(mut self, max_messages: usize, max_wait: Duration) -> Self {
        self.batch = Some(BatchPolicy::new(max_messages, max_wait));
        self
    }
}

impl From<Channel> for Subscription {
    fn from(channel: Channel) -> Self {
        let mut subscription = Self::new(SYSTEM, Pattern::new(channel.name, WILDCARDS));
        if let Some(group) = channel.group {
            subscription = subscription.with_group(group);
        }
        if let Some(policy) = channel.batch {
            subscription = subscription.with_batch(policy);
        }
        subscription
    }
}
