use std::borrow::Cow;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use lapin::types::DeliveryTag;
use throughline_core::raw::{RawMessage, ReadMessage};
use throughline_core::telemetry::Consumer;

use super::message::RawPlace;
use super::{ClientMessage, Instrumentation, RawClient, SubscriptionTelemetry};
use crate::Queue;
use crate::carrier::ClientHeaders;
use crate::semconv::{DIRECT_REPLY, is_anonymous};

/// Processing.
impl Instrumentation {
    /// Returns the telemetry of one queue, described as for the framework: by its name and its bindings. Nothing is declared.
    ///
    /// A message is shown by exchange, binding and queue, as in `process orders:placed.*:stock`. What came by no binding that is named here is
    /// shown by the queue. A queue that the server named is given by that name, which telemetry then recognises and keeps out of span names.
    /// Say [`quorum`](Queue::quorum) of a quorum queue: its count of deliveries is read then.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use futures_util::StreamExt;
    /// use throughline_rabbit::{Exchange, Queue};
    /// # async fn handle(_message: &lapin::message::Delivery) {}
    /// # async fn example(
    /// #     otel: throughline_rabbit::Instrumentation, mut consumer: lapin::Consumer,
    /// # ) -> lapin::Result<()> {
    ///
    /// let stock = otel.subscription(Queue::new("stock").bind(Exchange::topic("orders"), "placed.*"));
    /// while let Some(message) = consumer.next().await {
    ///     let message = message?;
    ///     stock.process(&message, handle(&message)).await; // the span is `process orders:placed.*:stock`
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn subscription(&self, queue: Queue) -> SubscriptionTelemetry {
        self.reader().telemetry(&queue)
    }

    /// Acknowledges a message, as the client's `Acker` does. See [`SubscriptionTelemetry::ack`].
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    pub async fn ack(&self, message: &impl ClientMessage, options: BasicAckOptions) -> lapin::Result<bool> {
        self.reader().of(message).ack(message, options).await
    }

    /// Refuses a message, as the client's `Acker` does. See [`SubscriptionTelemetry::nack`].
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    pub async fn nack(&self, message: &impl ClientMessage, options: BasicNackOptions) -> lapin::Result<bool> {
        self.reader().of(message).nack(message, options).await
    }

    /// Refuses a message, as the client's `Acker` does. See [`SubscriptionTelemetry::reject`].
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    pub async fn reject(&self, message: &impl ClientMessage, options: BasicRejectOptions) -> lapin::Result<bool> {
        self.reader().of(message).reject(message, options).await
    }

    /// Acknowledges by a delivery tag, as the client's `Channel` does. See [`SubscriptionTelemetry::basic_ack`].
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    pub async fn basic_ack(
        &self,
        channel: &Channel,
        delivery_tag: DeliveryTag,
        options: BasicAckOptions,
    ) -> lapin::Result<()> {
        self.reader().messages.basic_ack(channel, delivery_tag, options).await
    }

    /// Refuses by a delivery tag, as the client's `Channel` does. See [`SubscriptionTelemetry::basic_nack`].
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    pub async fn basic_nack(
        &self,
        channel: &Channel,
        delivery_tag: DeliveryTag,
        options: BasicNackOptions,
    ) -> lapin::Result<()> {
        self.reader().messages.basic_nack(channel, delivery_tag, options).await
    }

    /// Refuses one message by its delivery tag, as the client's `Channel` does. See [`SubscriptionTelemetry::basic_reject`].
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    pub async fn basic_reject(
        &self,
        channel: &Channel,
        delivery_tag: DeliveryTag,
        options: BasicRejectOptions,
    ) -> lapin::Result<()> {
        self.reader().messages.basic_reject(channel, delivery_tag, options).await
    }
}

impl RawClient {
    /// Returns the telemetry of the queue that a message came from, as far as that is known: what the default exchange has led to a queue
    /// without a name of its own is known by its key.
    // ATTR-R-08.
    fn of(&self, message: &impl ClientMessage) -> &SubscriptionTelemetry {
        let message = message.as_delivery();
        let key = message.routing_key.as_str();
        if self.is_queue_known || !message.exchange.as_str().is_empty() || !is_anonymous(key) {
            &self.messages
        } else if key.starts_with(DIRECT_REPLY) {
            &self.replies
        } else {
            &self.generated
        }
    }
}

/// The messages of a queue that is not known, or of the only one.
impl<M: ClientMessage> ReadMessage<M> for RawClient {
    type Headers = ClientHeaders;
    type Native = RawPlace;

    fn consumer(&self, message: Option<&M>) -> Cow<'_, Consumer> {
        let telemetry = message.map_or(&self.messages, |message| self.of(message));
        Cow::Borrowed(&telemetry.reader().consumer)
    }

    fn read<'a>(&self, message: &'a M) -> RawMessage<'a, ClientHeaders, RawPlace> {
        self.of(message).reader().read(message)
    }
}
