use std::time::{SystemTime, UNIX_EPOCH};

use throughline_core::Envelope;

/// A record's own properties, which other brokers do not have: its partition and its timestamp.
///
/// # Examples
///
/// ```
/// use std::time::SystemTime;
/// use throughline_core::{PublishError, Publisher};
/// use throughline_kafka::RecordProperties;
///
/// async fn checkout(publisher: &Publisher) -> Result<(), PublishError> {
///     let properties = RecordProperties::new().partition(3).timestamp(SystemTime::now());
///     publisher.publish("orders", "{}").native(properties).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RecordProperties {
    pub(crate) partition: Option<i32>,
    /// Milliseconds since 1970.
    pub(crate) timestamp: Option<i64>,
}

impl RecordProperties {
    /// Creates properties that leave all to the client.
    #[must_use]
    pub const fn new() -> Self {
        Self { partition: None, timestamp: None }
    }

    /// Sets the partition, counted from 0. The default is the one the client computes from the key (property
    /// `partitioner`), or any where there is no key.
    #[must_use]
    pub const fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets when the message was made, to the millisecond. The default is now. A topic whose
    /// `message.timestamp.type` is `LogAppendTime` replaces it. One up to 1970 counts as now.
    #[must_use]
    pub fn timestamp(mut self, time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.timestamp = Some(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        self
    }

    pub(crate) fn of(envelope: &Envelope) -> Self {
        envelope.native::<Self>().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_message_of_a_batch_keeps_its_own() {
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let placed = Envelope::new("", "a").with_native(RecordProperties::new().partition(3).timestamp(time));
        let batch = Envelope::batch("orders", [placed, Envelope::new("", "b")]);
        let found: Vec<_> = batch.messages().iter().map(RecordProperties::of).collect();
        let expected = RecordProperties { partition: Some(3), timestamp: Some(1_700_000_000_123) };
        assert_eq!(found, [expected, RecordProperties::default()]);
    }
}
