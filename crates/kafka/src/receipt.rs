use rdkafka::Timestamp;

/// Where a published message is: the native part of its [`Receipt`](throughline_core::Receipt).
///
/// # Examples
///
/// ```no_run
/// use throughline_kafka::{Kafka, RecordMetadata};
///
/// # async fn example(kafka: Kafka) -> Result<(), throughline_core::PublishError> {
/// let receipt = kafka.publisher().publish("orders", "{}").await?;
/// if let Some(place) = receipt.native::<RecordMetadata>() {
///     println!("partition {} at {}", place.partition(), place.offset());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordMetadata {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: Timestamp,
}

impl RecordMetadata {
    /// Returns the partition, counted from 0.
    #[must_use]
    pub const fn partition(&self) -> i32 {
        self.partition
    }

    /// Returns the offset in the partition, counted from 0; negative where the broker does not say it (`acks=0`).
    #[must_use]
    pub const fn offset(&self) -> i64 {
        self.offset
    }

    /// Returns the timestamp with its kind: when the message was made, or when the broker appended it.
    #[must_use]
    pub const fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}
