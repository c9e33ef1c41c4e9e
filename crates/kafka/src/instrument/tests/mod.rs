//! On the client's own mock of a cluster, which lives in the process and takes what a real one takes.

mod process;
mod publish;
mod pull;
mod settle;

use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer};
use rdkafka::{ClientConfig, Offset, Timestamp, TopicPartitionList};
use throughline_core::telemetry::SettleSpans;
use throughline_testing::{Capture, attributes};

use super::Instrumentation;

const SUPPLIED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn otel(capture: &Capture) -> Instrumentation {
    capture.instrumentation().settle_spans(SettleSpans::Always).build().into()
}

/// A cluster with the topics `orders` and `bills` of four partitions.
fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    for topic in ["orders", "bills"] {
        cluster.create_topic(topic, 4, 1).unwrap();
    }
    cluster
}

fn config(cluster: &MockCluster<'static, DefaultProducerContext>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap_servers()).set("linger.ms", "0");
    config
}

fn producer(cluster: &MockCluster<'static, DefaultProducerContext>) -> FutureProducer {
    config(cluster).create().unwrap()
}

fn consumer_config(cluster: &MockCluster<'static, DefaultProducerContext>) -> ClientConfig {
    let mut config = config(cluster);
    config.set("group.id", "g").set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("auto.offset.reset", "earliest");
    config
}

fn all_partitions() -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in 0..4 {
        list.add_partition_offset("orders", partition, Offset::Beginning).unwrap();
    }
    list
}

fn base_consumer(cluster: &MockCluster<'static, DefaultProducerContext>) -> BaseConsumer {
    let consumer: BaseConsumer = consumer_config(cluster).create().unwrap();
    consumer.assign(&all_partitions()).unwrap();
    consumer
}

fn stream_consumer(cluster: &MockCluster<'static, DefaultProducerContext>) -> StreamConsumer {
    let consumer: StreamConsumer = consumer_config(cluster).create().unwrap();
    consumer.assign(&all_partitions()).unwrap();
    consumer
}

fn headers(entries: &[(&str, &str)]) -> OwnedHeaders {
    entries.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }))
}

/// Message 12 of partition 3 of `orders`.
fn message(key: Option<&str>, payload: Option<&str>, entries: &[(&str, &str)]) -> OwnedMessage {
    let (key, payload) = (key.map(|key| key.as_bytes().to_vec()), payload.map(|payload| payload.as_bytes().to_vec()));
    let topic = "orders".to_owned();
    OwnedMessage::new(payload, key, topic, Timestamp::NotAvailable, 3, 12, Some(headers(entries)))
}

/// A span: its name, kind and links, and its complete attributes without those that every Kafka span has.
fn shown(span: &SpanData) -> (String, SpanKind, usize, String) {
    let set = attributes(&span.attributes);
    assert_eq!(set["messaging.system"].as_str(), "kafka", "ATTR-S-02");
    assert_eq!(set.len(), span.attributes.len(), "GEN-06");
    let common = ["messaging.system", "messaging.operation.name", "messaging.operation.type"];
    let own = set.iter().filter(|(key, _)| !common.contains(key));
    let shown: Vec<_> = own.map(|(key, value)| format!("{}={value}", key.trim_start_matches("messaging."))).collect();
    (span.name.to_string(), span.span_kind.clone(), span.links.len(), shown.join(" "))
}

/// The only span.
fn only(capture: &Capture) -> (String, SpanKind, usize, String) {
    let spans = capture.spans();
    assert_eq!(spans.len(), 1, "{spans:#?}");
    shown(&spans[0])
}

fn error_type(capture: &Capture) -> String {
    let spans = capture.spans();
    let span = spans.last().unwrap();
    assert!(matches!(span.status, Status::Error { .. }), "STAT-02: {:?}", span.status);
    attributes(&span.attributes)["error.type"].to_string()
}

fn is_unset(capture: &Capture) -> bool {
    capture.spans().iter().all(|span| span.status == Status::Unset)
}

/// Sums the points of a counter, with or without an error.
fn counted(capture: &Capture, name: &str, failed: bool) -> f64 {
    let points = capture.metrics().into_iter().filter(|point| point.name == name);
    points.filter(|point| point.attributes.contains_key("error.type") == failed).map(|point| point.sum).sum()
}
