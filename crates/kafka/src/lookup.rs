use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

/// Tells whether the brokers know a topic; `None` where they do not say. Blocks.
pub(crate) fn exists<C: ClientContext>(client: &Client<C>, topic: &str, limit: Duration) -> Option<bool> {
    partitions(client, topic, limit).ok().map(|found| found.is_some())
}

/// Returns how many partitions a topic has; `None` where there is no such topic. Blocks.
pub(crate) fn partitions<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    limit: Duration,
) -> KafkaResult<Option<usize>> {
    let metadata = client.fetch_metadata(Some(topic), limit)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(Some(found.partitions().len())),
        Some(code) if is_missing(code) => Ok(None),
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

/// Tells whether brokers say that they do not know a topic.
pub(crate) const fn is_missing(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
}
