use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

/// Tells whether the brokers know a topic; `None` where they do not say. Blocks.
pub(crate) fn exists<C: ClientContext>(client: &Client<C>, topic: &str, limit: Duration) -> Option<bool> {
    let metadata = client.fetch_metadata(Some(topic), limit).ok()?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.map(|found| found.error().map(RDKafkaErrorCode::from)) {
        None | Some(Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => Some(false),
        Some(None) => Some(true),
        Some(Some(_)) => None,
    }
}
