use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    BoxFuture, BrokerError, ConnectionState, Existence, Outbound, Publish, Reception, RetryRoute, Routes, Subscription,
};
use crate::guard::discard;
use crate::message::{Delivery, Failure, Settlement, Source};

/// A connection to a message broker.
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

    /// Returns what is noted of all apps of the connection. Without it, only what one app alone does is known.
    fn routes(&self) -> Option<&Routes> {
        None
    }

    /// Tells whether the server is reached, for the probes of an orchestrator. Asked often: it must neither block nor ask the server. The
    /// default does not say.
    fn connection(&self) -> ConnectionState {
        ConnectionState::Unknown
    }

    /// Starts a subscription. When it returns, messages published from now on reach it.
    ///
    /// # Errors
    ///
    /// Fails when the subscription is made for another broker, asks for what the broker cannot do, or is refused.
    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError>;

    /// Asks the broker whether the destinations exist to which an app will publish, as far as they are known at its start: those of
    /// replies and dead letters. Called once, when all subscriptions have started and before the first message is taken. Returns one
    /// result for each, in order.
    ///
    /// The framework waits ten seconds, then drops the call and takes all of them for unknown. The default asks nobody and says that all
    /// are usable, which is right where a message needs nothing to be there.
    ///
    /// # Errors
    ///
    /// A result is an error where a message could not be published, and it says how to create what is missing: the app does not start
    /// then. A broker that cannot be asked is none, it makes the destination [`Unknown`](Existence::Unknown): a warning, and the app
    /// starts.
    async fn check_destinations(&self, outbound: &[Outbound<'_>]) -> Vec<Result<Existence, BrokerError>> {
        outbound.iter().map(|_| Ok(Existence::Usable)).collect()
    }

    /// Flushes what was published and closes the connection. Called after all handlers are done.
    ///
    /// The deadline is that of the whole end of the app. The framework drops the call a moment after it.
    ///
    /// # Errors
    ///
    /// Fails when the flush is not confirmed by the deadline.
    async fn shutdown(&self, deadline: Instant) -> Result<(), BrokerError>;
}

/// What receives the messages of one subscription.
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

    /// Returns where messages wait for their next attempt, for a broker that does not deliver them again by itself; the default is in
    /// place, with the messages behind them.
    fn retry_route(&self) -> Option<Arc<dyn RetryRoute>> {
        None
    }

    /// Returns what publishes the replies and what else the handlers of this subscription send, where that is not the broker's own
    /// [`transport`](Broker::transport).
    fn transport(&self) -> Option<Arc<dyn Publish>> {
        None
    }

    /// Returns how many deliveries are handled at the same time where the user sets nothing; the default is one.
    ///
    /// With [lanes](Received::with_lane) it is the most lanes at a time.
    fn concurrency(&self) -> usize {
        1
    }

    /// Learns, before the first message is asked for, whom to tell what it does by itself, and how many messages are handled at the same
    /// time. The default tells nobody and holds ready what it holds.
    fn prepare(&mut self, reception: Reception) {
        let _ = reception;
    }

    /// Begins to receive, when all subscriptions of the service are there. The default does nothing, for an adapter that has begun before
    /// or begins with the first message that is asked for.
    ///
    /// # Errors
    ///
    /// Fails when the broker refuses it, and the start of the service with it. What may pass is no error: the adapter tries again.
    async fn begin(&mut self) -> Result<(), BrokerError> {
        Ok(())
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

    /// Stops taking messages and gives back those that were buffered but not handed out. A message whose last delivery this is
    /// ([`Delivery::is_last_attempt`]) is not given back: the broker would drop it. It is left for [`drain`](Self::drain).
    ///
    /// The deadline is that of the whole end of the app. The framework drops the call when it drops the handlers.
    async fn close(&mut self, deadline: Instant) {
        let _ = deadline;
    }

    /// Returns the next message that was taken from the broker and cannot be given back; called after [`close`](Self::close)
    /// until it returns `None`. The default has none.
    async fn drain(&mut self) -> Option<Received> {
        None
    }

    /// Ends the subscription. Called last, when every message that was handed out is settled or given up: what was only noted
    /// ([`Settle::is_deferred`]) the broker is told now. The default does nothing.
    ///
    /// The deadline is that of the whole end of the app, of which some is left for [`Broker::shutdown`]. The framework drops the call
    /// at that time.
    ///
    /// # Errors
    ///
    /// Fails when the broker could not be told in time; it delivers again what it did not hear of.
    async fn finish(&mut self, deadline: Instant) -> Result<(), BrokerError> {
        let _ = deadline;
        Ok(())
    }
}

/// A message as an adapter hands it over, and the way to settle it.
///
/// It is settled or given up exactly once: dropped without a call of [`settle`](Self::settle), in an aborted handler for example, it
/// is given up with [`Settle::abandon`].
pub struct Received {
    /// The message.
    pub delivery: Delivery,
    /// A number of the adapter's own, by which it knows the message again: a delivery tag, an offset, a place in a queue.
    pub tag: u64,
    /// The lane of [`with_lane`](Self::with_lane).
    lane: Option<u32>,
    ends_batch: bool,
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
        Self { delivery, tag: 0, lane: None, ends_batch: false, settle: None }
    }

    /// Puts the message into a lane: messages of one lane are handled one after the other, in the order in which they were received,
    /// while those of other lanes are handled at the same time. It is for brokers that keep an order by parts of a destination.
    ///
    /// A lane whose handler is slow holds up no other one, since the framework takes its messages all the same and keeps them. An
    /// adapter therefore bounds how many it hands out before they are settled. Batches are not divided by lanes.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, broker::Received};
    /// assert_eq!(Received::new(Delivery::new("orders", "x")).with_lane(3).lane(), Some(3));
    /// ```
    #[inline]
    #[must_use]
    pub const fn with_lane(mut self, lane: u32) -> Self {
        self.lane = Some(lane);
        self
    }

    /// Completes the batch the message is in, where messages are handed over in batches: the next one is in another batch. It is for
    /// brokers that know which messages belong together.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, broker::Received};
    /// let last = Received::new(Delivery::new("orders", "x")).with_batch_end();
    /// # let _ = last;
    /// ```
    #[inline]
    #[must_use]
    pub const fn with_batch_end(mut self) -> Self {
        self.ends_batch = true;
        self
    }

    pub(crate) const fn ends_batch(&self) -> bool {
        self.ends_batch
    }

    /// Returns the lane of the message, if it has one.
    #[inline]
    #[must_use]
    pub const fn lane(&self) -> Option<u32> {
        self.lane
    }

    /// Sets what settles the message, usually one value for all messages of a subscription, and the number by which that knows it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use throughline_core::broker::{BoxFuture, Received, Settle, done};
    /// use throughline_core::{BrokerError, Delivery, Settlement};
    ///
    /// struct Channel;
    ///
    /// impl Settle for Channel {
    ///     fn settle<'a>(&'a self, message: &'a Received, _settlement: &'a Settlement) -> BoxFuture<'a, Result<(), BrokerError>> {
    ///         assert_eq!(message.tag, 7); // tell the broker about number 7
    ///         done()
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
    /// use throughline_core::broker::Subscriber;
    /// use throughline_core::{BrokerError, Settlement};
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

    /// Tells whether another member of the group gets the message now, see [`Settle::is_withdrawn`].
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.settle.as_ref().is_some_and(|settle| settle.is_withdrawn(self))
    }

    /// Tells what settles the message why an attempt failed. A panic of it is no matter of the message.
    pub(crate) fn tell_failed(&self, failure: &Failure, next: &Settlement) {
        let Some(settle) = &self.settle else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| settle.failed(self, failure, next))) {
            discard(panic);
        }
    }

    /// Whether both are settled by the same value.
    pub(crate) fn is_settled_with(&self, other: &Self) -> bool {
        let (Some(own), Some(others)) = (&self.settle, &other.settle) else { return false };
        std::ptr::addr_eq(Arc::as_ptr(own), Arc::as_ptr(others))
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

/// How several messages were settled.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchSettled {
    /// Each by an operation of its own, in their order.
    OneByOne(Vec<Result<(), BrokerError>>),
    /// All by one operation.
    Together(Result<(), BrokerError>),
}

impl BatchSettled {
    /// Settles the messages one after the other, for an adapter that has one operation for some of its batches only.
    pub async fn one_by_one<S: Settle + ?Sized>(settle: &S, messages: &[&Received], settlement: &Settlement) -> Self {
        let mut results = Vec::with_capacity(messages.len());
        for message in messages {
            results.push(settle.settle(message, settlement).await);
        }
        Self::OneByOne(results)
    }
}

/// What settles the messages of a subscription. For each of them either [`settle`](Self::settle) or [`abandon`](Self::abandon) is called,
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
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Tells the broker the same about several messages of a batch, all of which this value settles. Where that is one operation, such as
    /// the acknowledgement of all messages up to a place or one commit, it is one in telemetry too
    /// ([`Together`](BatchSettled::Together)). The default tells it of one after the other.
    async fn settle_batch(&self, messages: &[&Received], settlement: &Settlement) -> BatchSettled {
        BatchSettled::one_by_one(self, messages, settlement).await
    }

    /// Tells, after [`settle`](Self::settle), whether that only noted what became of the message, and the broker hears of it later
    /// and of many at once. Such a settlement is no operation of its own in telemetry; the adapter reports the later one with
    /// [`Observe::settled`](super::Observe::settled), or the settlement of another message was it. The default is that the broker is
    /// told at once.
    fn is_deferred(&self, message: &Received) -> bool {
        let _ = message;
        false
    }

    /// Tells whether the broker gives the message to another member of the group, so that this one is not to begin with it. It is
    /// given up then, and one that is being handled may still be settled. The default is that it never does.
    ///
    /// The framework asks right before each attempt: an adapter may take `false` for the beginning of it.
    fn is_withdrawn(&self, message: &Received) -> bool {
        let _ = message;
        false
    }

    /// Learns that nobody will settle the message, because its handler was aborted. The default does nothing, which is right where
    /// the broker by itself delivers again what was not settled. Must not block.
    fn abandon(&self, message: &Received) {
        let _ = message;
    }

    /// Learns that an attempt has failed, and what is done about the message next: it is tried again, by the broker or here, it is given
    /// up, or it is acknowledged because it was forwarded. The settlement itself follows where there is one. The default does nothing;
    /// it is for a broker that shows what it knows. Must not block.
    fn failed(&self, message: &Received, failure: &Failure, next: &Settlement) {
        let _ = (message, failure, next);
    }

    /// Returns how often [`extend`](Self::extend) must be called while a handler runs; `None` where it need not.
    fn heartbeat(&self) -> Option<Duration> {
        None
    }

    /// Tells the broker that the message is still being worked on. It is not a settlement and has no span.
    ///
    /// # Errors
    ///
    /// Fails when the broker could not be told.
    async fn extend(&self, message: &Received) -> Result<(), BrokerError> {
        let _ = message;
        Ok(())
    }
}
