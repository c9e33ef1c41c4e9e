use std::ops::Deref;

use async_nats::jetstream::consumer::pull::{Batch, BatchError};
use futures_util::{Stream, StreamExt};
use throughline_core::raw::{Door, ReadMessage as _};
use throughline_core::telemetry::{Consumer, ParentMode, Trust};

use super::fetched::{Fetched, Pulled};
use super::message::Subscribed;
use crate::error;

/// The telemetry of one subscription of a raw client: receive, process and settle. A clone is cheap.
///
/// [`Instrumentation::subscription`](super::Instrumentation::subscription) and
/// [`Instrumentation::consumer`](super::Instrumentation::consumer) make one. [`process`](Door::process) and what goes with it are those of
/// [`Door`], to which this leads.
///
/// # Examples
///
/// ```no_run
/// use throughline_nats::{Instrumentation, Subject};
/// # async fn handle(_message: &async_nats::Message) {}
/// # async fn example(message: async_nats::Message) {
/// let orders = Instrumentation::from_globals().subscription(Subject::new("orders.*").queue_group("stock"));
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

    /// Sets what the parent of a process span is, for this subscription alone.
    #[must_use]
    pub fn with_parent_mode(self, mode: ParentMode) -> Self {
        self.changed(|consumer| consumer.with_parent_mode(mode))
    }

    /// Sets how far incoming headers are trusted, for this subscription alone.
    #[must_use]
    pub fn with_trust(self, trust: Trust) -> Self {
        self.changed(|consumer| consumer.with_trust(trust))
    }

    /// Awaits a pull of the client and returns its messages, of the client's own type, with a receive span around the
    /// pull that links to each of them.
    ///
    /// The span is recorded when the last message was taken, and ends with its arrival however long the messages are
    /// handled.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use futures_util::StreamExt;
    /// # async fn handle(_message: &async_nats::Message) {}
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, consumer: async_nats::jetstream::consumer::PullConsumer,
    /// # ) -> Result<(), async_nats::Error> {
    ///
    /// let orders = otel.consumer(&consumer);
    /// let mut messages = orders.fetch(consumer.fetch().max_messages(100).messages()).await?;
    /// while let Some(message) = messages.next().await {
    ///     let message = message?;
    ///     orders.process(&message, handle(&message)).await;
    ///     orders.ack(&message).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn fetch<F>(&self, messages: F) -> Result<Fetched, BatchError>
    where
        F: Future<Output = Result<Batch, BatchError>>,
    {
        let receiving = self.reader().consumer.receive();
        match messages.await {
            Ok(messages) => Ok(Fetched::new(self.reader().clone(), messages, receiving)),
            Err(failed) => {
                receiving.fail_after(&[], &error::raw_pull(&failed));
                Err(failed)
            }
        }
    }

    /// Waits for the next message of a subscription of the client, with a receive span around the wait.
    ///
    /// A status of the server in place of a message, as after a request that nobody answers, is logged and not returned.
    ///
    /// For services that pull: where a loop does nothing but take and process messages, the process spans are enough.
    ///
    /// # Cancel safety
    ///
    /// As the client's: a dropped call loses no message, and has no span.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use throughline_nats::{Instrumentation, Subject};
    /// # async fn example(client: async_nats::Client) -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let mut messages = client.subscribe("orders").await?;
    /// let orders = Instrumentation::from_globals().subscription(Subject::new("orders"));
    /// let message = orders.next(&mut messages).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next<S>(&self, messages: &mut S) -> Option<S::Item>
    where
        S: Stream + Unpin,
        S::Item: Pulled,
    {
        let receiving = self.reader().consumer.receive();
        let next = loop {
            let next = messages.next().await;
            match next.as_ref().map(Pulled::message) {
                Some(Ok(message)) if !self.reader().accept(message) => {}
                _ => break next,
            }
        };
        match next.as_ref().map(Pulled::message) {
            Some(Ok(message)) => receiving.finish(&self.reader().read(message).incoming()),
            Some(Err(failed)) => receiving.fail(&error::raw_pull(failed)),
            None => {}
        }
        next
    }
}

/// Leads to what processes messages.
impl Deref for SubscriptionTelemetry {
    type Target = Door<Subscribed>;

    fn deref(&self) -> &Door<Subscribed> {
        &self.door
    }
}
