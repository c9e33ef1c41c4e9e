//! Publishing, read back by a raw consumer: what is confirmed, what is refused, and what waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, Timestamp, TopicPartitionList};
use throughline_core::broker::{Broker, BrokerErrorKind, PublishErrorKind};
use throughline_core::{Envelope, Receipt};
use throughline_kafka::{Kafka, RecordMetadata, RecordProperties, Tombstone};
use tokio::time::timeout;

use crate::server::{PATIENCE, url};
use crate::topics::{self, unique};

/// Larger than the client and the server take, which is 1 MB.
const OVERSIZE: usize = 1_100_000;

/// A record as a client that is not ours sees it.
#[derive(Debug, Eq, PartialEq)]
struct Record {
    partition: i32,
    offset: i64,
    timestamp: Timestamp,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|one| (one.key.to_owned(), one.value.unwrap_or_default().to_vec())).collect(),
        }
    }

    fn text(&self) -> &str {
        self.value.as_deref().map(|value| std::str::from_utf8(value).expect("text")).expect("a value")
    }
}

/// Reads this many records from the start of a topic's partitions.
async fn read(topic: &str, partitions: i32, count: usize) -> Vec<Record> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url()).set("group.id", "none").set("enable.auto.commit", "false");
    let consumer: StreamConsumer = config.create().expect("a consumer");
    let mut places = TopicPartitionList::new();
    for partition in 0..partitions {
        places.add_partition_offset(topic, partition, Offset::Beginning).expect("a position");
    }
    consumer.assign(&places).expect("the partitions");
    let received = consumer.stream().take(count).map(|message| Record::of(&message.expect("a record")));
    timeout(PATIENCE, received.collect()).await.expect("all records in time")
}

fn config(properties: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url());
    for (name, value) in properties {
        config.set(*name, *value);
    }
    config
}

async fn connect(properties: &[(&str, &str)]) -> Kafka {
    Kafka::connect_with(config(properties)).await.expect("a connection")
}

async fn topic(name: &str, partitions: i32) -> String {
    let name = unique(name);
    topics::create(&url(), &name, partitions).await;
    name
}

fn place(receipt: &Receipt) -> RecordMetadata {
    *receipt.native().expect("the place of the record")
}

fn attributes(receipt: &Receipt) -> Vec<String> {
    receipt.attributes().iter().map(|attribute| format!("{}={:?}", attribute.key, attribute.value)).collect()
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_publish_is_confirmed_with_its_place() {
    let (kafka, topic) = (connect(&[]).await, topic("place", 3).await);
    let transport = kafka.transport();
    let sent_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let envelope = Envelope::new(topic.as_str(), "{}")
        .with_native(RecordProperties::new().partition(2).timestamp(sent_at))
        .with_header("tenant", "acme")
        .with_header("Message-Id", "stale")
        .with_key("42")
        .with_id("m1")
        .with_correlation_id("c1")
        .with_content_type("application/json")
        .with_reply_to("answers");

    let receipt = transport.publish(envelope).await.expect("stored");

    let expected = ("42", "{}", Timestamp::CreateTime(1_700_000_000_123));
    let record = read(&topic, 3, 1).await.remove(0);
    assert_eq!((record.key.as_deref(), record.text()), (Some(expected.0.as_bytes()), expected.1));
    assert_eq!((record.partition, record.offset, record.timestamp), (2, 0, expected.2));
    let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    let own: [(&str, &[u8]); 5] = [
        ("tenant", b"acme"),
        ("message-id", b"m1"),
        ("correlation-id", b"c1"),
        ("content-type", b"application/json"),
        ("reply-to", b"answers"),
    ];
    assert_eq!(headers, own, "ATTR-K-09");
    let place = place(&receipt);
    assert_eq!((place.partition(), place.offset(), place.timestamp()), (2, 0, expected.2));
    assert_eq!(attributes(&receipt), ["messaging.kafka.offset=I64(0)"], "the partition was known before (ATTR-K-02)");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn the_partition_the_client_chose_is_known_afterwards() {
    let (kafka, topic) = (connect(&[]).await, topic("chosen", 4).await);
    let publisher = kafka.publisher().without_telemetry();

    let receipt = publisher.publish(topic.as_str(), "x").key("42").await.expect("stored");
    let again = publisher.publish(topic.as_str(), "y").key("42").await.expect("stored");

    let (first, second) = (place(&receipt), place(&again));
    assert_eq!(
        (first.partition(), first.offset() + 1),
        (second.partition(), second.offset()),
        "one key, one partition"
    );
    let partition = format!("messaging.destination.partition.id=String(Static(\"{}\"))", first.partition());
    assert_eq!(attributes(&receipt), [partition.as_str(), "messaging.kafka.offset=I64(0)"], "ATTR-K-02, ATTR-K-05");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_tombstone_is_null_and_an_empty_body_is_not() {
    let (kafka, topic) = (connect(&[]).await, topic("tombstone", 1).await);
    let publisher = kafka.publisher().without_telemetry();

    publisher.publish(topic.as_str(), Tombstone).key("42").await.expect("stored");
    publisher.publish(topic.as_str(), Bytes::new()).key("").await.expect("stored");
    publisher.publish(topic.as_str(), Bytes::from_static(b"x")).await.expect("stored");

    let records = read(&topic, 1, 3).await;
    let found: Vec<_> = records.iter().map(|record| (record.key.as_deref(), record.value.as_deref())).collect();
    let (empty, text) = (Some(&b""[..]), |text: &'static str| Some(text.as_bytes()));
    assert_eq!(found, [(text("42"), None), (empty, empty), (None, text("x"))]);
    assert!(records.iter().all(|record| record.headers.is_empty()));
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_batch_keeps_the_order_of_each_partition() {
    const MESSAGES: usize = 2_000;
    let (kafka, topic) = (connect(&[]).await, topic("batch", 3).await);
    let message = |number: usize| Envelope::unaddressed(number.to_string()).with_key(format!("key-{}", number % 7));
    let batch = Envelope::batch(topic.as_str(), (0..MESSAGES).map(message));

    let receipt = kafka.publisher().without_telemetry().publish_envelope(batch).await.expect("stored");

    assert_eq!(receipt.each().len(), MESSAGES);
    let records = read(&topic, 3, MESSAGES).await;
    let mut by_partition: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for record in &records {
        by_partition.entry(record.partition).or_default().push(record.text().parse().expect("a number"));
        let number: usize = record.text().parse().expect("a number");
        let place = place(&receipt.each()[number]);
        assert_eq!((place.partition(), place.offset()), (record.partition, record.offset), "of message {number}");
    }
    for (partition, numbers) in by_partition {
        assert!(numbers.is_sorted(), "the order of partition {partition}: {numbers:?}");
    }
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn of_a_batch_a_message_that_is_too_large_fails_alone() {
    let (kafka, topic) = (connect(&[]).await, topic("partly", 1).await);
    let bodies = vec![b"before".to_vec(), vec![7; OVERSIZE], b"after".to_vec()];

    let publisher = kafka.publisher().without_telemetry();
    let error = publisher.publish_batch(topic.as_str(), bodies).await.expect_err("one is too large");

    assert_eq!(error.kind(), PublishErrorKind::Partial);
    let [(place, failed)] = error.failed() else { panic!("one failed: {error:?}") };
    assert_eq!((*place, failed.kind(), failed.error_type()), (1, PublishErrorKind::TooLarge, "MESSAGE_TOO_LARGE"));
    let records = read(&topic, 1, 2).await;
    assert_eq!(records.iter().map(Record::text).collect::<Vec<_>>(), ["before", "after"]);
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_that_is_too_large_for_the_server_is_refused() {
    // The client would take it, the server does not.
    let (kafka, topic) = (connect(&[("message.max.bytes", "5000000")]).await, topic("oversize", 1).await);
    let publisher = kafka.publisher().without_telemetry();
    let error = publisher.publish(topic.as_str(), vec![7; OVERSIZE]).await.expect_err("too large");
    assert_eq!((error.kind(), error.error_type()), (PublishErrorKind::TooLarge, "MESSAGE_TOO_LARGE"), "{error}");
    publisher.publish(topic.as_str(), "x").await.expect("the next one is stored");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_topic_or_partition_that_does_not_exist_is_an_error_soon() {
    let kafka = connect(&[("topic.metadata.propagation.max.ms", "500")]).await;
    let publisher = kafka.publisher().without_telemetry();
    let expected = (PublishErrorKind::NotFound, "UNKNOWN_TOPIC_OR_PARTITION");

    let missing = timeout(PATIENCE, publisher.publish(unique("missing"), "x")).await.expect("in bounded time");
    let error = missing.expect_err("no such topic");
    assert_eq!((error.kind(), error.error_type()), expected, "{error}");

    let topic = topic("two-partitions", 2).await;
    for partition in [2, -1] {
        let placed = RecordProperties::new().partition(partition);
        let missing =
            timeout(PATIENCE, publisher.publish(topic.as_str(), "x").native(placed)).await.expect("in bounded time");
        let error = missing.expect_err("no such partition");
        assert_eq!((error.kind(), error.error_type()), expected, "{partition}: {error}");
    }

    for name in ["", "two words", "a/b", "..", "größe", "a\0b"] {
        let error = publisher.publish(name, "x").await.expect_err("no name of a topic");
        let error_type = if name.is_empty() { "invalid_destination" } else { "INVALID_TOPIC_EXCEPTION" };
        let invalid = (PublishErrorKind::InvalidDestination, error_type);
        assert_eq!((error.kind(), error.error_type()), invalid, "{name:?}");
    }
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_full_queue_makes_a_publish_wait_and_not_fail() {
    const MESSAGES: usize = 500;
    let kafka = connect(&[("queue.buffering.max.messages", "3")]).await;
    let topic = topic("full", 2).await;
    let publisher = kafka.publisher().without_telemetry();

    let one_by_one = join_all((0..MESSAGES).map(|number| publisher.publish(topic.as_str(), number.to_string())));
    let batch = publisher.publish_batch(topic.as_str(), (MESSAGES..2 * MESSAGES).map(|number| number.to_string()));
    let (receipts, batch) =
        timeout(PATIENCE, async { tokio::join!(one_by_one, batch) }).await.expect("room comes in time");

    assert!(receipts.iter().all(Result::is_ok), "{:?}", receipts.iter().find(|receipt| receipt.is_err()));
    assert_eq!(batch.expect("stored").each().len(), MESSAGES);
    let bodies: BTreeSet<String> =
        read(&topic, 2, 2 * MESSAGES).await.iter().map(|record| record.text().to_owned()).collect();
    assert_eq!(bodies.len(), 2 * MESSAGES, "each is stored once");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn what_waits_for_room_is_not_sent_when_it_is_dropped() {
    // The first message lingers in the queue, so that there is no room.
    let kafka = connect(&[("queue.buffering.max.messages", "1"), ("linger.ms", "1000")]).await;
    let topic = topic("dropped", 1).await;
    let transport = kafka.transport();
    let mut first = transport.publish(Envelope::new(topic.as_str(), "first"));
    assert!(first.as_mut().now_or_never().is_none(), "it waits for more");
    let mut second = transport.publish(Envelope::new(topic.as_str(), "second"));
    assert!(second.as_mut().now_or_never().is_none(), "it waits for room");
    drop(second);
    drop(first);

    kafka.shutdown().await.expect("all is confirmed");

    // What comes after both shows that the second is not there.
    let other = connect(&[]).await;
    other.publisher().without_telemetry().publish(topic.as_str(), "third").await.expect("stored");
    let records = read(&topic, 1, 2).await;
    assert_eq!(records.iter().map(Record::text).collect::<Vec<_>>(), ["first", "third"]);
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_shutdown_sends_what_is_in_the_queue() {
    let kafka = connect(&[("linger.ms", "1000")]).await;
    let topic = topic("flushed", 1).await;
    let transport = kafka.transport();
    for number in 0..100 {
        // Nobody waits for the report.
        drop(transport.publish(Envelope::new(topic.as_str(), number.to_string())));
    }

    kafka.shutdown().await.expect("all is confirmed");

    let records = read(&topic, 1, 100).await;
    assert_eq!(records.last().map(Record::text), Some("99"));
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn what_is_in_the_queue_is_sent_when_the_connection_is_dropped() {
    let kafka = connect(&[("linger.ms", "1000")]).await;
    let topic = topic("last", 1).await;
    drop(kafka.transport().publish(Envelope::new(topic.as_str(), "x")));
    drop(kafka);
    assert_eq!(read(&topic, 1, 1).await[0].text(), "x");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_connection_knows_its_cluster_without_an_idempotent_producer_too() {
    for idempotence in ["true", "false"] {
        let kafka = connect(&[("enable.idempotence", idempotence), ("client.id", "stock")]).await;
        let system = kafka.transport().system();
        let [cluster] = system.attributes() else { panic!("one attribute: {system:?}") };
        assert_eq!(cluster.key.as_str(), "messaging.kafka.cluster.id", "ATTR-K-07");
        assert!(!cluster.value.as_str().is_empty());
        assert_eq!((system.name(), system.client_id()), ("kafka", Some("stock")), "ATTR-K-08");
    }
    assert_eq!(connect(&[]).await.transport().system().client_id(), None, "ATTR-K-08");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_server_that_refuses_the_credentials_is_told_at_once() {
    // The shared server knows no credentials, and says so.
    let sasl = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "stock"),
        ("sasl.password", "s3cret"),
    ];
    let error = Kafka::connect_with(config(&sasl)).await.expect_err("no credentials here");
    let found = (error.kind(), error.error_type());
    assert_eq!(found, (BrokerErrorKind::Unauthorized, "authentication_failed"), "{error}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_server_that_is_not_there_is_an_error_within_seconds() {
    let error = timeout(PATIENCE, Kafka::connect("127.0.0.1:1")).await.expect("in time").expect_err("nobody listens");
    assert_eq!(error.kind(), BrokerErrorKind::Unreachable, "{error}");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_property_that_does_not_exist_is_named() {
    let error = Kafka::connect_with(config(&[("linger.millis", "1")])).await.expect_err("no such property");
    assert_eq!(error.kind(), BrokerErrorKind::Configuration);
    assert!(error.to_string().contains("linger.millis"), "{error}");
}
