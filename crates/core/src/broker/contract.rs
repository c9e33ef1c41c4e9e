use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{BrokerError, Publish, Subscription};
use crate::message::{Delivery, Settlement, Source};

/// Is a connection to a message broker.
///
/// # Examples
///
/// `throughline-memory` is the shortest complete implementation; a user only ever passes a broker to
/// [`serve`](crate::serve()) and takes publishers from it.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Returns what publishes on this connection.
    fn transport(&self) -> Arc<dyn Publish>;

    /// Checks all subscriptions of an app together before any of them starts.
    ///
    /// # Errors
    ///
    /// Fails with [`Configuration`](super::BrokerErrorKind::Configuration) when two of them contradict each other.
    fn check(&self, subscriptions: &[&Subscription]) -> Result<(), BrokerError> {
        super::subscription::check_distinct(subscriptions)
    }

    /// Starts a subscription. When it returns, messages published from now on reach it.
    ///
    /// # Errors
    ///
    /// Fails when the subscription is made for another broker, asks for what the broker cannot do, or is refused.
    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError>;

    /// Flushes what was published and closes the connection. Called after all handlers are done.
    ///
    /// # Errors
    ///
    /// Fails when the flush is not confirmed in time.
    async fn shutdown(&self) -> Result<(), BrokerError>;
}

/// Receives the messages of one subscription.
#[async_trait]
pub trait Subscriber: Send {
    /// Describes the subscription for telemetry.
    fn source(&self) -> Arc<Source>;

    /// Tells whether the broker itself delivers a message again when asked to, after a delay.
    ///
    /// Where it does not, the framework retries in place.
    fn redelivers(&self) -> bool {
        false
    }

    /// Waits for the next message. Reconnects are the adapter's business and not visible here.
    ///
    /// # Errors
    ///
    /// Fails when the subscription has ended and will not recover; the service then shuts down with that error.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: a dropped call loses no message.
    async fn receive(&mut self) -> Result<Received, BrokerError>;

    /// Returns a message that is here already, or why there will be none; `None` says no more than that
    /// [`receive`](Self::receive) is to be asked. The default always says so.
    ///
    /// It saves the framework a future for each message. The order is the same as with `receive`, and so is the share of each member
    /// of a group; it never blocks.
    ///
    /// # Errors
    ///
    /// Fails as `receive` does.
    fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        None
    }

    /// Stops taking messages and gives back those that were buffered but not handed out.
    async fn close(&mut self) {}

    /// Returns the next message that was taken from the broker and cannot be given back; called after [`close`](Self::close)
    /// until it returns `None`. The default has none.
    async fn drain(&mut self) -> Option<Received> {
        None
    }
}

/// Is a message as an adapter hands it over, and the way to settle it.
///
/// It is settled or given up exactly once: dropped without a call of [`settle`](Self::settle), in an aborted handler for example, it
/// is given up with [`Settle::abandon`].
pub struct Received {
    /// The message.
    pub delivery: Delivery,
    /// A number of the adapter's own, by which it knows the message again: a delivery tag, an offset, a place in a queue.
    pub tag: u64,
    settle: Option<Arc<dyn Settle>>,
}

impl Received {
    /// Creates a message that needs no settlement.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, broker::Received};
    /// assert!(!Received::new(Delivery::new("orders", "x")).needs_settlement());
    /// ```
    #[inline]
    #[must_use]
    pub const fn new(delivery: Delivery) -> Self {
        Self { delivery, tag: 0, settle: None }
    }

    /// Sets what settles the message, usually one value for all messages of a subscription, and the number by which that knows it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use throughline_core::{Delivery, Settlement, broker::{BrokerError, Received, Settle}};
    ///
    /// struct Channel;
    ///
    /// #[async_trait::async_trait]
    /// impl Settle for Channel {
    ///     async fn settle(&self, message: &Received, _settlement: &Settlement) -> Result<(), BrokerError> {
    ///         assert_eq!(message.tag, 7); // tell the broker about number 7
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let received = Received::new(Delivery::new("orders", "x")).with_settle(Arc::new(Channel), 7);
    /// assert!(received.needs_settlement());
    /// ```
    #[inline]
    #[must_use]
    pub fn with_settle(mut self, settle: Arc<dyn Settle>, tag: u64) -> Self {
        (self.settle, self.tag) = (Some(settle), tag);
        self
    }

    /// Tells whether the broker waits to hear what became of the message; false once it was told.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, broker::Received};
    /// assert!(!Received::new(Delivery::new("orders", "x")).needs_settlement());
    /// ```
    #[must_use]
    pub const fn needs_settlement(&self) -> bool {
        self.settle.is_some()
    }

    /// Tells the broker what is to happen. Only the first call does; where the broker knows no settlement, none does.
    ///
    /// # Errors
    ///
    /// Fails when the broker could not be told; the message will then be delivered again.
    ///
    /// # Cancel safety
    ///
    /// A dropped call counts as settled here; whether the broker heard of it is open, and what it did not hear of it delivers again.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Settlement, broker::{BrokerError, Subscriber}};
    ///
    /// async fn skip_one(subscriber: &mut dyn Subscriber) -> Result<(), BrokerError> {
    ///     subscriber.receive().await?.settle(&Settlement::Ack).await
    /// }
    /// ```
    pub async fn settle(&mut self, settlement: &Settlement) -> Result<(), BrokerError> {
        match self.settle.take() {
            Some(settle) => settle.settle(self, settlement).await,
            None => Ok(()),
        }
    }

    /// Takes away what settles the message, for an adapter that wraps another one; nothing is settled or given up by this value then.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, broker::Received};
    /// assert!(Received::new(Delivery::new("orders", "x")).take_settle().is_none());
    /// ```
    pub const fn take_settle(&mut self) -> Option<Arc<dyn Settle>> {
        self.settle.take()
    }

    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        self.settle.as_ref()?.heartbeat()
    }

    pub(crate) async fn extend(&self) -> Result<(), BrokerError> {
        match &self.settle {
            Some(settle) => settle.extend(self).await,
            None => Ok(()),
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle.abandon(self);
        }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("delivery", &self.delivery).field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// Settles the messages of a subscription. For each of them either [`settle`](Self::settle) or [`abandon`](Self::abandon) is called,
/// once.
#[async_trait]
pub trait Settle: Send + Sync + 'static {
    /// Tells the broker what is to happen; returns when the broker knows, as far as its protocol says so.
    ///
    /// A `Retry` without a delay means: at once.
    ///
    /// # Errors
    ///
    /// Fails when the broker could not be told; the message must then be delivered again.
    async fn settle(&self, message: &Received, settlement: &Settlement) -> Result<(), BrokerError>;

    /// Learns that nobody will settle the message, because its handler was aborted. The default does nothing, which is right where
    /// the broker by itself delivers again what was not settled. Must not block.
    fn abandon(&self, message: &Received) {
        let _ = message;
    }

    /// Returns how often [`extend`](Self::extend) must be called while a handler runs; `None` where it need not.
    fn heartbeat(&self) -> Option<Duration> {
        None
    }

    /// Tells the broker that the message is still being worked on. It is not a settlement and has no span (SPAN-34).
    ///
    /// # Errors
    ///
    /// Fails when the broker could not be told.
    async fn extend(&self, message: &Received) -> Result<(), BrokerError> {
        let _ = message;
        Ok(())
    }
}
