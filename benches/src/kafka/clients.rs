//! The plain clients, with the properties that the adapter sets.

use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::KafkaResult;
use rdkafka::producer::FutureProducer;

/// `client.id` of all programs.
pub(super) const CLIENT: &str = "bench";

/// What ours is connected with.
pub(super) fn config(url: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url).set("client.id", CLIENT);
    config
}

pub(super) fn producer(url: &str) -> KafkaResult<FutureProducer> {
    config(url).set("enable.idempotence", "true").set("linger.ms", "0").create()
}

/// A consumer of all partitions of a topic from their start. Offsets are stored by the program and committed by the client, as often as
/// ours commits.
pub(super) fn consumer(url: &str, group: &str, topic: &str) -> KafkaResult<StreamConsumer> {
    let consumer: StreamConsumer = config(url)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.offset.store", "false")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        .set("fetch.queue.backoff.ms", "10")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .create()?;
    consumer.subscribe(&[topic])?;
    Ok(consumer)
}
