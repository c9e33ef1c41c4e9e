use rdkafka::consumer::{BaseConsumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::util::Timeout;
use throughline_core::raw::ReadMessage as _;
use throughline_core::telemetry::Receiving;

use super::Instrumentation;
use crate::error;

/// Receiving, for services that pull: where a loop does nothing but take and process messages, the process spans are
/// enough. Messages are counted when they are received from then on, and not again when they are processed.
// METR-14.
impl Instrumentation {
    /// Waits for the next message, as the client does, with a receive span around the wait.
    ///
    /// # Errors
    ///
    /// Fails as the client does. The end of a partition, where the client is to tell it, is no failed span: nothing was
    /// received.
    ///
    /// # Cancel safety
    ///
    /// As the client's: a dropped call loses no message, and has no span.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::consumer::StreamConsumer;
    /// # async fn example(
    /// #     otel: throughline_kafka::Instrumentation, consumer: StreamConsumer,
    /// # ) -> Result<(), rdkafka::error::KafkaError> {
    /// let message = otel.recv(&consumer).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recv<'a, C, R>(&self, consumer: &'a StreamConsumer<C, R>) -> KafkaResult<BorrowedMessage<'a>>
    where
        C: ConsumerContext + 'static,
    {
        let receiving = self.reader().consumer.receive();
        let received = consumer.recv().await;
        self.finish(receiving, Some(&received));
        received
    }

    /// Takes the next message that comes in time, as the client does, with a receive span around the call, also when there
    /// is none.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use rdkafka::consumer::BaseConsumer;
    /// # fn example(
    /// #     otel: throughline_kafka::Instrumentation, consumer: BaseConsumer,
    /// # ) -> Result<(), rdkafka::error::KafkaError> {
    /// if let Some(message) = otel.poll(&consumer, Duration::from_secs(1)) {
    ///     let message = message?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll<'a, C: ConsumerContext>(
        &self,
        consumer: &'a BaseConsumer<C>,
        timeout: impl Into<Timeout>,
    ) -> Option<KafkaResult<BorrowedMessage<'a>>> {
        let receiving = self.reader().consumer.receive();
        let received = consumer.poll(timeout);
        self.finish(receiving, received.as_ref());
        received
    }

    fn finish(&self, receiving: Receiving, received: Option<&KafkaResult<BorrowedMessage<'_>>>) {
        match received {
            Some(Ok(message)) => receiving.finish(&self.reader().read(message).incoming()),
            None | Some(Err(KafkaError::PartitionEOF(_))) => receiving.finish_empty(),
            Some(Err(failed)) => receiving.fail(&error::broker("no message was received", failed)),
        }
    }
}
