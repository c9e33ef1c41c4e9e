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

    /// Stops taking messages and gives back those that were buffered but not handed out.
    async fn close(&mut self) {}

    /// Returns the next message that was taken from the broker and cannot be given back; called after [`close`](Self::close)
    /// until it returns `None`. The default has none.
    async fn drain(&mut self) -> Option<Received> {
        None
    }
}

/// Is a message as an adapter hands it over, with the handle that settles it.
pub struct Received {
    /// The message.
    pub delivery: Delivery,
    /// Settles it; `None` where the broker knows no settlement.
    pub settle: Option<Box<dyn Settle>>,
}

impl Received {
    /// Creates a message that needs no settlement.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, broker::Received};
    /// assert!(Received::new(Delivery::new("orders", "x")).settle.is_none());
    /// ```
    #[must_use]
    pub fn new(delivery: Delivery) -> Self {
        Self { delivery, settle: None }
    }

    /// Adds the handle that settles the message.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Settlement, broker::{BrokerError, Received, Settle}};
    ///
    /// struct Nothing;
    ///
    /// #[async_trait::async_trait]
    /// impl Settle for Nothing {
    ///     async fn settle(&self, _settlement: &Settlement) -> Result<(), BrokerError> { Ok(()) }
    /// }
    ///
    /// assert!(Received::new(Delivery::new("orders", "x")).with_settle(Nothing).settle.is_some());
    /// ```
    #[must_use]
    pub fn with_settle(mut self, settle: impl Settle + 'static) -> Self {
        self.settle = Some(Box::new(settle));
        self
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("delivery", &self.delivery).finish_non_exhaustive()
    }
}

/// Settles one message. Dropped without a call, the message is unsettled and the broker delivers it again.
#[async_trait]
pub trait Settle: Send + Sync {
    /// Tells the broker what is to happen; returns when the broker knows, as far as its protocol says so.
    ///
    /// A `Retry` without a delay means: at once.
    ///
    /// # Errors
    ///
    /// Fails when the broker could not be told; the message will then be delivered again.
    async fn settle(&self, settlement: &Settlement) -> Result<(), BrokerError>;

    /// Returns how often [`extend`](Self::extend) must be called while a handler runs; `None` where it need not.
    fn heartbeat(&self) -> Option<Duration> {
        None
    }

    /// Tells the broker that the message is still being worked on. It is not a settlement and has no span (SPAN-34).
    ///
    /// # Errors
    ///
    /// Fails when the broker could not be told.
    async fn extend(&self) -> Result<(), BrokerError> {
        Ok(())
    }
}
