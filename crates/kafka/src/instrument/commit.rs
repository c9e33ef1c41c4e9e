use opentelemetry::{Context, KeyValue};
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{Partitioner, Producer, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use throughline_core::raw::ReadMessage as _;
use throughline_core::telemetry::Settling;
use throughline_core::{BrokerError, Settlement};

use super::Instrumentation;
use crate::error;
use crate::semconv::{offset_attribute, partition_attribute};

/// Settling. A settle span is a child of the current span: commit inside the processed future, or under the context of
/// [`start`](throughline_core::raw::Door::start), and it is part of the message's trace. By default only commits that fail have one.
///
/// With [`CommitMode::Async`] the operation ends when the call returns, which says nothing about the broker; what becomes of
/// the commit is told to the `commit_callback` of the user's context. Storing an offset settles nothing, and the automatic
/// commit of the client is not seen.
// SPAN-32.
impl Instrumentation {
    /// Commits offsets, as the client does.
    ///
    /// The span names the topic where there is one only, and the partition and the last offset that is settled
    /// where there is one partition: the offset before the committed one.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::consumer::{CommitMode, StreamConsumer};
    /// use rdkafka::{Offset, TopicPartitionList};
    /// # fn example(
    /// #     otel: throughline_kafka::Instrumentation, consumer: StreamConsumer,
    /// # ) -> Result<(), rdkafka::error::KafkaError> {
    /// let mut offsets = TopicPartitionList::new();
    /// offsets.add_partition_offset("orders", 3, Offset::Offset(43))?;
    /// otel.commit(&consumer, &offsets, CommitMode::Sync)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn commit<C: ConsumerContext>(
        &self,
        consumer: &impl Consumer<C>,
        topic_partition_list: &TopicPartitionList,
        mode: CommitMode,
    ) -> KafkaResult<()> {
        self.settle_positions(topic_partition_list, || consumer.commit(topic_partition_list, mode))
    }

    /// Commits the offset after a message, as the client does: this settles the message and all before it in its partition.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::consumer::{CommitMode, StreamConsumer};
    /// use rdkafka::message::BorrowedMessage;
    /// # async fn handle(_message: &BorrowedMessage<'_>) {}
    /// # async fn example(
    /// #     otel: throughline_kafka::Instrumentation, consumer: StreamConsumer, message: BorrowedMessage<'_>,
    /// # ) -> Result<(), rdkafka::error::KafkaError> {
    /// let settled = otel.process(&message, async {
    ///     handle(&message).await;
    ///     otel.commit_message(&consumer, &message, CommitMode::Async)
    /// });
    /// settled.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn commit_message<C: ConsumerContext>(
        &self,
        consumer: &impl Consumer<C>,
        message: &BorrowedMessage<'_>,
        mode: CommitMode,
    ) -> KafkaResult<()> {
        let settling = self.settling();
        let result = consumer.commit_message(message, mode);
        settling.finish(&[self.reader().read(message).incoming()], failure(&result).as_ref());
        result
    }

    /// Commits what the consumer has stored, as the client does. The span names the topic where
    /// [`topics`](Self::topics) says it.
    ///
    /// # Errors
    ///
    /// Fails as the client does. That nothing was stored since the last commit is no failed span.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::consumer::{CommitMode, StreamConsumer};
    /// # fn example(
    /// #     otel: throughline_kafka::Instrumentation, consumer: StreamConsumer,
    /// # ) -> Result<(), rdkafka::error::KafkaError> {
    /// otel.commit_consumer_state(&consumer, CommitMode::Sync)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn commit_consumer_state<C: ConsumerContext>(
        &self,
        consumer: &impl Consumer<C>,
        mode: CommitMode,
    ) -> KafkaResult<()> {
        let settling = self.settling();
        let result = consumer.commit_consumer_state(mode);
        settling.finish_up_to(
            self.handle.settings().only_topic().map(AsRef::as_ref),
            Vec::new(),
            failure(&result).as_ref(),
        );
        result
    }

    /// Puts offsets into the transaction of a producer, as the client does: they are settled when it is committed. Beginning,
    /// committing and aborting it stays with the client.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use rdkafka::TopicPartitionList;
    /// use rdkafka::consumer::ConsumerGroupMetadata;
    /// use rdkafka::producer::{FutureProducer, Producer};
    /// # fn example(
    /// #     otel: throughline_kafka::Instrumentation, producer: FutureProducer, offsets: TopicPartitionList,
    /// #     group: ConsumerGroupMetadata,
    /// # ) -> Result<(), rdkafka::error::KafkaError> {
    /// otel.send_offsets_to_transaction(&producer, &offsets, &group, Duration::from_secs(5))?;
    /// producer.commit_transaction(Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_offsets_to_transaction<C, Part>(
        &self,
        producer: &impl Producer<C, Part>,
        offsets: &TopicPartitionList,
        cgm: &ConsumerGroupMetadata,
        timeout: impl Into<Timeout>,
    ) -> KafkaResult<()>
    where
        C: ProducerContext<Part>,
        Part: Partitioner,
    {
        self.settle_positions(offsets, || producer.send_offsets_to_transaction(offsets, cgm, timeout))
    }

    fn settle_positions(
        &self,
        offsets: &TopicPartitionList,
        tell: impl FnOnce() -> KafkaResult<()>,
    ) -> KafkaResult<()> {
        let settling = self.settling();
        let result = tell();
        // The client passes over what has no offset.
        let mut elements = offsets.elements();
        elements.retain(|element| element.offset() != Offset::Invalid);
        let (topic, attributes) = position(&elements);
        settling.finish_up_to(topic, attributes, failure(&result).as_ref());
        result
    }

    fn settling(&self) -> Settling {
        self.reader().consumer.settle(&Settlement::Ack, &Context::current())
    }
}

/// Returns the only topic, and the attributes of the only partition: it, and the last offset that is settled.
fn position<'a>(elements: &'a [TopicPartitionListElem<'_>]) -> (Option<&'a str>, Vec<KeyValue>) {
    let Some((first, others)) = elements.split_first() else { return (None, Vec::new()) };
    let topic = Some(first.topic()).filter(|topic| others.iter().all(|other| other.topic() == *topic));
    if !others.is_empty() {
        return (topic, Vec::new());
    }
    let mut attributes = vec![partition_attribute(first.partition())];
    if let Offset::Offset(next @ 1..) = first.offset() {
        attributes.push(offset_attribute(next - 1));
    }
    (topic, attributes)
}

fn failure(result: &KafkaResult<()>) -> Option<BrokerError> {
    match result {
        Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => None,
        Err(failed) => Some(error::commit(failed)),
    }
}
