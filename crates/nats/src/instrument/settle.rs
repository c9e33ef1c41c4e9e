use async_nats::jetstream::Message as StreamMessage;
use async_nats::jetstream::message::AckKind;
use opentelemetry::Context;
use throughline_core::Settlement;
use throughline_core::raw::ReadMessage as _;

use super::SubscriptionTelemetry;
use crate::acks::within_reach;
use crate::error;

/// Settling.
impl SubscriptionTelemetry {
    /// Acknowledges a message of a stream, as the client does.
    ///
    /// A settle span is a child of the current span: settle inside the processed future, or under the context of
    /// [`start`](throughline_core::raw::Door::start), and it is part of the message's trace. By default only other settlements and failures
    /// have one.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn handle(_message: &async_nats::Message) {}
    /// # async fn example(
    /// #     orders: throughline_nats::SubscriptionTelemetry, message: async_nats::jetstream::Message,
    /// # ) -> Result<(), async_nats::Error> {
    /// let settled = orders.process(&message, async {
    ///     handle(&message).await;
    ///     orders.ack(&message).await
    /// });
    /// settled.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ack(&self, message: &StreamMessage) -> Result<(), async_nats::Error> {
        self.settle(message, &Settlement::Ack, message.ack()).await
    }

    /// Settles a message of a stream, as the client does: `ack`, `nak` or `term`. Progress is no settlement and has no
    /// span.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use async_nats::jetstream::AckKind;
    /// # async fn example(
    /// #     orders: throughline_nats::SubscriptionTelemetry, message: async_nats::jetstream::Message,
    /// # ) -> Result<(), async_nats::Error> {
    /// orders.ack_with(&message, AckKind::Nak(Some(Duration::from_secs(5)))).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ack_with(&self, message: &StreamMessage, kind: AckKind) -> Result<(), async_nats::Error> {
        let kind = countable(kind);
        match settlement(kind) {
            Some(settlement) => self.settle(message, &settlement, message.ack_with(kind)).await,
            None => message.ack_with(kind).await,
        }
    }

    /// Acknowledges a message of a stream and waits until the server has confirmed it, as the client does. The
    /// operation is `ack` and ends with the server's answer.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(
    /// #     orders: throughline_nats::SubscriptionTelemetry, message: async_nats::jetstream::Message,
    /// # ) -> Result<(), async_nats::Error> {
    /// orders.double_ack(&message).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn double_ack(&self, message: &StreamMessage) -> Result<(), async_nats::Error> {
        self.settle(message, &Settlement::Ack, message.double_ack()).await
    }

    /// Settles a message of a stream and waits until the server has confirmed it, as the client does.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use async_nats::jetstream::AckKind;
    /// # async fn example(
    /// #     orders: throughline_nats::SubscriptionTelemetry, message: async_nats::jetstream::Message,
    /// # ) -> Result<(), async_nats::Error> {
    /// orders.double_ack_with(&message, AckKind::Term).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn double_ack_with(&self, message: &StreamMessage, kind: AckKind) -> Result<(), async_nats::Error> {
        let kind = countable(kind);
        match settlement(kind) {
            Some(settlement) => self.settle(message, &settlement, message.double_ack_with(kind)).await,
            None => message.double_ack_with(kind).await,
        }
    }

    async fn settle<F>(
        &self,
        message: &StreamMessage,
        settlement: &Settlement,
        told: F,
    ) -> Result<(), async_nats::Error>
    where
        F: Future<Output = Result<(), async_nats::Error>>,
    {
        let settling = self.reader().consumer.settle(settlement, &Context::current());
        let result = told.await;
        let failed = result.as_ref().err().map(error::raw_settle);
        settling.finish(&[self.reader().read(message).incoming()], failed.as_ref());
        result
    }
}

/// Leaves a delay within what the server can count; with a longer one it would deliver at once.
fn countable(kind: AckKind) -> AckKind {
    match kind {
        AckKind::Nak(Some(delay)) => AckKind::Nak(Some(within_reach(delay))),
        kind => kind,
    }
}

/// Returns what a kind of acknowledgement means; `None` where it settles nothing.
fn settlement(kind: AckKind) -> Option<Settlement> {
    match kind {
        AckKind::Ack | AckKind::Next => Some(Settlement::Ack),
        AckKind::Nak(after) => Some(Settlement::Retry { after }),
        AckKind::Term => Some(Settlement::reject("terminated")),
        AckKind::Progress => None,
    }
}
