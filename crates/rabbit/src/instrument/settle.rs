use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use lapin::types::DeliveryTag;
use opentelemetry::Context;
use throughline_core::broker::BrokerErrorKind;
use throughline_core::raw::ReadMessage as _;
use throughline_core::{BrokerError, Settlement};

use super::{ClientMessage, SubscriptionTelemetry};
use crate::delivery::tag_attribute;
use crate::error::{self, CONNECTION_LOST, OTHER};
use crate::semconv::is_anonymous;

/// What the client is asked to do, by the verb of its span.
#[derive(Clone, Copy)]
enum Verb {
    Ack,
    Nack,
    Reject,
}

impl Verb {
    /// Returns the settlement that has this verb in telemetry. The verb is that of the call, whether the message is requeued or not.
    // SPAN-08.
    fn settlement(self) -> Settlement {
        match self {
            Self::Ack => Settlement::Ack,
            Self::Nack => Settlement::Retry { after: None },
            Self::Reject => Settlement::reject("rejected"),
        }
    }

    const fn doing(self) -> &'static str {
        match self {
            Self::Ack => "acknowledge a message",
            Self::Nack => "return a message",
            Self::Reject => "reject a message",
        }
    }
}

/// Settling. A settle span is a child of the current span: settle inside the processed future, or under the context of
/// [`start`](throughline_core::raw::Door::start), and it is part of the message's trace. By default only nacks, rejects and failures have
/// one. It ends when the client has written the call: the server does not answer it.
///
/// Prefer the calls that take a channel. Each call on a message becomes a task of the client's own, and they overtake each other: an
/// acknowledgement of several messages that comes before an earlier reject closes the channel. The calls on a channel keep their order. A
/// delivery tag counts only on the channel that the message came by.
// SPAN-32,
impl SubscriptionTelemetry {
    /// Acknowledges a message, as the client's `Acker` does. With `multiple` this settles all messages before it too, in one span.
    ///
    /// # Errors
    ///
    /// Fails as the client does. `Ok(false)`, which says that the message was settled before or that its channel has ended, is a failed
    /// settlement in telemetry.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lapin::options::BasicAckOptions;
    /// # async fn handle(_message: &lapin::message::Delivery) {}
    /// # async fn example(
    /// #     orders: throughline_rabbit::SubscriptionTelemetry, message: lapin::message::Delivery,
    /// # ) -> lapin::Result<()> {
    /// let settled = orders.process(&message, async {
    ///     handle(&message).await;
    ///     orders.ack(&message, BasicAckOptions::default()).await
    /// });
    /// settled.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ack(&self, message: &impl ClientMessage, options: BasicAckOptions) -> lapin::Result<bool> {
        self.settle(Verb::Ack, message, message.as_delivery().acker.ack(options)).await
    }

    /// Refuses a message, as the client's `Acker` does; `requeue` says whether it comes again.
    ///
    /// # Errors
    ///
    /// Fails as [`ack`](Self::ack).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lapin::options::BasicNackOptions;
    /// # async fn example(
    /// #     orders: throughline_rabbit::SubscriptionTelemetry, message: lapin::message::Delivery,
    /// # ) -> lapin::Result<()> {
    /// orders.nack(&message, BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn nack(&self, message: &impl ClientMessage, options: BasicNackOptions) -> lapin::Result<bool> {
        self.settle(Verb::Nack, message, message.as_delivery().acker.nack(options)).await
    }

    /// Refuses a message, as the client's `Acker` does; `requeue` says whether it comes again. On a quorum queue this counts as a failed
    /// attempt, which a nack need not.
    ///
    /// # Errors
    ///
    /// Fails as [`ack`](Self::ack).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lapin::options::BasicRejectOptions;
    /// # async fn example(
    /// #     orders: throughline_rabbit::SubscriptionTelemetry, message: lapin::message::Delivery,
    /// # ) -> lapin::Result<()> {
    /// orders.reject(&message, BasicRejectOptions { requeue: false }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reject(&self, message: &impl ClientMessage, options: BasicRejectOptions) -> lapin::Result<bool> {
        self.settle(Verb::Reject, message, message.as_delivery().acker.reject(options)).await
    }

    /// Acknowledges by a delivery tag, as the client's `Channel` does. The span has the tag, and the queue as its destination: exchange and
    /// routing key are not known here.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lapin::Channel;
    /// use lapin::options::BasicAckOptions;
    /// # async fn example(
    /// #     orders: throughline_rabbit::SubscriptionTelemetry, channel: Channel, last: lapin::message::Delivery,
    /// # ) -> lapin::Result<()> {
    /// orders.basic_ack(&channel, last.delivery_tag, BasicAckOptions { multiple: true }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn basic_ack(
        &self,
        channel: &Channel,
        delivery_tag: DeliveryTag,
        options: BasicAckOptions,
    ) -> lapin::Result<()> {
        self.settle_tag(Verb::Ack, delivery_tag, channel.basic_ack(delivery_tag, options)).await
    }

    /// Refuses by a delivery tag, as the client's `Channel` does. See [`basic_ack`](Self::basic_ack).
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
        self.settle_tag(Verb::Nack, delivery_tag, channel.basic_nack(delivery_tag, options)).await
    }

    /// Refuses one message by its delivery tag, as the client's `Channel` does. See [`basic_ack`](Self::basic_ack).
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
        self.settle_tag(Verb::Reject, delivery_tag, channel.basic_reject(delivery_tag, options)).await
    }

    async fn settle<F>(&self, verb: Verb, message: &impl ClientMessage, told: F) -> lapin::Result<bool>
    where
        F: Future<Output = lapin::Result<bool>>,
    {
        let settling = self.reader().consumer.settle(&verb.settlement(), &Context::current());
        let result = told.await;
        let failed = match &result {
            Ok(true) => None,
            Ok(false) => Some(not_settled(message.as_delivery())),
            Err(failed) => Some(error::broker(failed, verb.doing())),
        };
        settling.finish(&[self.reader().read(message).incoming()], failed.as_ref());
        result
    }

    async fn settle_tag<F>(&self, verb: Verb, tag: DeliveryTag, told: F) -> lapin::Result<()>
    where
        F: Future<Output = lapin::Result<()>>,
    {
        let settling = self.reader().consumer.settle(&verb.settlement(), &Context::current());
        let result = told.await;
        let failed = result.as_ref().err().map(|failed| error::broker(failed, verb.doing()));
        let queue = Some(self.reader().queue()).filter(|queue| !is_anonymous(queue));
        settling.finish_up_to(queue, vec![tag_attribute(tag)], failed.as_ref());
        result
    }
}

/// Makes the error of a message that the client did not settle.
fn not_settled(message: &Delivery) -> BrokerError {
    let (kind, error_type, why) = if message.acker.poisoned() {
        (BrokerErrorKind::Disconnected, CONNECTION_LOST, "its channel has ended, and the server delivers it again")
    } else {
        (BrokerErrorKind::Other, OTHER, "it was settled before")
    };
    BrokerError::new(kind, error_type, format!("the message was not settled: {why}"))
}
