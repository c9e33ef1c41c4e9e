use std::ops::Deref;

use futures_util::{Stream, StreamExt};
use lapin::Channel;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::BasicGetOptions;
use lapin::types::ShortString;
use throughline_core::raw::{Door, ReadMessage as _};
use throughline_core::telemetry::{Consumer, ParentMode, Trust};

use super::message::Subscribed;
use crate::error;

/// What is said of a pull that failed.
const PULL: &str = "receive a message";

/// The telemetry of one queue of a raw client: receive, process and settle. A clone is cheap.
///
/// [`Instrumentation::subscription`](super::Instrumentation::subscription) makes one. [`process`](Door::process) and what goes with it are
/// those of [`Door`], to which this leads.
///
/// # Examples
///
/// ```no_run
/// use throughline_rabbit::{Instrumentation, Queue};
/// # async fn handle(_message: &lapin::message::Delivery) {}
/// # async fn example(message: lapin::message::Delivery) {
/// let orders = Instrumentation::from_globals().subscription(Queue::new("orders"));
/// orders.process(&message, handle(&message)).await;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SubscriptionTelemetry {
    door: Door<Subscribed>,
}

impl SubscriptionTelemetry {
    pub(super) const fn new(subscribed: Subscribed) -> Self {
        Self { door: Door::new(subscribed) }
    }

    fn changed(&self, change: impl FnOnce(Consumer) -> Consumer) -> Self {
        let mut subscribed = self.reader().clone();
        subscribed.consumer = change(subscribed.consumer);
        Self::new(subscribed)
    }

    /// Sets what the parent of a process span is, for this queue alone.
    #[must_use]
    pub fn with_parent_mode(self, mode: ParentMode) -> Self {
        self.changed(|consumer| consumer.with_parent_mode(mode))
    }

    /// Sets how far incoming headers are trusted, for this queue alone.
    #[must_use]
    pub fn with_trust(self, trust: Trust) -> Self {
        self.changed(|consumer| consumer.with_trust(trust))
    }

    /// Waits for the next message of a consumer of the client, with a receive span around the wait. When the consumer has ended, there is no
    /// message and no span.
    ///
    /// For services that pull: where a loop does nothing but take and process messages, the process spans are enough. Messages are counted
    /// when they are received from then on, and not again when they are processed.
    ///
    /// # Cancel safety
    ///
    /// As the client's: a dropped call loses no message, and has no span.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(
    /// #     orders: throughline_rabbit::SubscriptionTelemetry, mut consumer: lapin::Consumer,
    /// # ) -> lapin::Result<()> {
    /// if let Some(message) = orders.next(&mut consumer).await {
    ///     println!("{} bytes", message?.data.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    // METR-14.
    pub async fn next<S>(&self, consumer: &mut S) -> Option<lapin::Result<Delivery>>
    where
        S: Stream<Item = lapin::Result<Delivery>> + Unpin,
    {
        let receiving = self.reader().consumer.receive();
        let next = consumer.next().await;
        match &next {
            Some(Ok(message)) => receiving.finish(&self.reader().read(message).incoming()),
            Some(Err(failed)) => receiving.fail(&error::broker(failed, PULL)),
            None => {}
        }
        next
    }

    /// Takes the first message of the queue, as the client does, with a receive span around the call, also when there is none.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Cancel safety
    ///
    /// As the client's: a message that a dropped call has taken comes back when its channel is closed. The call has no span then.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lapin::Channel;
    /// use lapin::options::BasicGetOptions;
    /// use throughline_rabbit::{Instrumentation, Queue};
    /// # async fn handle(_message: &lapin::message::Delivery) {}
    /// # async fn example(channel: Channel) -> lapin::Result<()> {
    ///
    /// let orders = Instrumentation::from_globals().subscription(Queue::new("orders"));
    /// if let Some(message) = orders.basic_get(&channel, "orders".into(), BasicGetOptions::default()).await? {
    ///     orders.process(&message, handle(&message)).await;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    // SPAN-31.
    pub async fn basic_get(
        &self,
        channel: &Channel,
        queue: ShortString,
        options: BasicGetOptions,
    ) -> lapin::Result<Option<BasicGetMessage>> {
        let receiving = self.reader().consumer.receive();
        let got = channel.basic_get(queue, options).await;
        match &got {
            Ok(Some(message)) => receiving.finish(&self.reader().read(message).incoming()),
            Ok(None) => receiving.finish_empty(),
            Err(failed) => receiving.fail(&error::broker(failed, PULL)),
        }
        got
    }
}

/// Leads to what processes messages.
impl Deref for SubscriptionTelemetry {
    type Target = Door<Subscribed>;

    fn deref(&self) -> &Door<Subscribed> {
        &self.door
    }
}
