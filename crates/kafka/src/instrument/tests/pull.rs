use rdkafka::producer::FutureRecord;

use super::*;

#[tokio::test]
async fn golden_x_10_a_pull_gets_a_message() {
    let (capture, cluster) = (Capture::new(), cluster());
    let record =
        FutureRecord::to("orders").partition(3).key("k1").payload("{}").headers(headers(&[("traceparent", SUPPLIED)]));
    producer(&cluster).send(record, PATIENCE).await.unwrap();
    let consumer = stream_consumer(&cluster);
    let otel = otel(&capture).group("g");
    let message = otel.recv(&consumer).await.unwrap();
    let expected = "consumer.group.name=g destination.name=orders destination.partition.id=3 \
                    kafka.message.key=k1 kafka.offset=0";
    assert_eq!(only(&capture), ("poll orders".to_owned(), SpanKind::Client, 1, expected.to_owned()), "GOLD-X-10");
    otel.process(&message, async {}).await;
    assert_eq!(counted(&capture, "messaging.client.consumed.messages", false), 1.0, "METR-14");
}

#[tokio::test]
async fn a_poll_gets_a_message() {
    let (capture, cluster) = (Capture::new(), cluster());
    let record = FutureRecord::<str, _>::to("orders").partition(3).payload("{}");
    producer(&cluster).send(record, PATIENCE).await.unwrap();
    let consumer = base_consumer(&cluster);
    let message = otel(&capture).poll(&consumer, PATIENCE).unwrap().unwrap();
    assert_eq!(rdkafka::Message::payload(&message), Some(&b"{}"[..]));
    let expected = "destination.name=orders destination.partition.id=3 kafka.offset=0";
    assert_eq!(only(&capture), ("poll orders".to_owned(), SpanKind::Client, 0, expected.to_owned()), "GOLD-X-10");
}

#[test]
fn a_poll_that_gets_nothing_has_its_span() {
    let (capture, cluster) = (Capture::new(), cluster());
    let consumer = base_consumer(&cluster);
    let otel = otel(&capture).topics(["orders"]);
    assert!(otel.poll(&consumer, Duration::from_millis(1)).is_none());
    let expected = ("poll orders".to_owned(), SpanKind::Client, 0, "destination.name=orders".to_owned());
    assert_eq!(only(&capture), expected, "SPAN-31, ATTR-C-07");
    assert!(is_unset(&capture));
    assert_eq!(counted(&capture, "messaging.client.consumed.messages", false), 0.0, "METR-04");
}

#[test]
fn the_end_of_a_partition_is_no_failure() {
    let (capture, cluster) = (Capture::new(), cluster());
    let consumer: BaseConsumer = consumer_config(&cluster).set("enable.partition.eof", "true").create().unwrap();
    consumer.assign(&all_partitions()).unwrap();
    let ended = otel(&capture).poll(&consumer, PATIENCE).unwrap();
    assert!(matches!(ended, Err(rdkafka::error::KafkaError::PartitionEOF(_))));
    assert_eq!(only(&capture).0, "poll");
    assert!(is_unset(&capture));
}

#[test]
fn a_pull_that_fails_has_the_name_of_the_protocol() {
    let (capture, cluster) = (Capture::new(), cluster());
    let consumer: BaseConsumer = consumer_config(&cluster).set("auto.offset.reset", "error").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("orders", 0, Offset::Offset(42)).unwrap();
    consumer.assign(&list).unwrap();
    let failed = otel(&capture).poll(&consumer, PATIENCE).unwrap();
    assert!(failed.is_err());
    assert!(!error_type(&capture).is_empty(), "ATTR-K-12");
    assert_eq!(only(&capture).0, "poll");
}
