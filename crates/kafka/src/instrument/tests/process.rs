use std::convert::Infallible;

use throughline_core::CurrentBaggage;

use super::*;
use crate::raw_headers;

#[tokio::test]
async fn golden_k_04_process() {
    let capture = Capture::new();
    let otel = otel(&capture).group("g").topics(["orders"]);
    let supplied = message(Some("k1"), Some("{}"), &[("traceparent", SUPPLIED)]);
    let answer = otel.process(&supplied, async { Ok::<_, Infallible>(42) }).await;
    assert_eq!(answer, Ok(42));
    let expected = "consumer.group.name=g destination.name=orders destination.partition.id=3 \
                    kafka.message.key=k1 kafka.offset=12";
    assert_eq!(only(&capture), ("process orders".to_owned(), SpanKind::Consumer, 1, expected.to_owned()), "GOLD-K-04");
    assert_eq!(capture.spans()[0].parent_span_id.to_string(), "00f067aa0ba902b7", "LINK-06");
}

#[tokio::test]
async fn golden_k_08_process_of_a_tombstone() {
    let capture = Capture::new();
    otel(&capture).process(&message(Some("k1"), None, &[]), async {}).await;
    let expected = "destination.name=orders destination.partition.id=3 kafka.message.key=k1 \
                    kafka.message.tombstone=true kafka.offset=12";
    assert_eq!(only(&capture).3, expected, "GOLD-K-08");
    capture.reset();
    otel(&capture).process(&message(None, Some(""), &[]), async {}).await;
    let expected = "destination.name=orders destination.partition.id=3 kafka.offset=12";
    assert_eq!(only(&capture).3, expected, "ATTR-K-04, ATTR-K-06");
}

#[tokio::test]
async fn a_message_of_a_pattern_is_called_by_its_topic() {
    let capture = Capture::new();
    otel(&capture).topics(["^orders.*"]).process(&message(None, Some("{}"), &[]), async {}).await;
    let expected = "destination.name=orders destination.partition.id=3 kafka.offset=12";
    assert_eq!(
        only(&capture),
        ("process orders".to_owned(), SpanKind::Consumer, 0, expected.to_owned()),
        "ATTR-K-01, SPAN-15"
    );
    let is_named =
        |point: &throughline_testing::MetricPoint| point.attributes.contains_key("messaging.destination.name");
    assert!(!capture.metrics().iter().any(is_named), "METR-06");
}

#[tokio::test]
async fn partitions_of_two_topics_are_two() {
    let capture = Capture::new();
    let sent = || message(None, Some("{}"), &[("traceparent", SUPPLIED)]);
    otel(&capture).process_batch(&[sent(), sent().set_topic("bills".to_owned())], async {}).await;
    assert_eq!(only(&capture), ("process".to_owned(), SpanKind::Consumer, 2, "batch.message_count=2".to_owned()));
    let spans = capture.spans();
    let partitions: Vec<String> = spans[0]
        .links
        .iter()
        .map(|link| attributes(&link.attributes)["messaging.destination.partition.id"].to_string())
        .collect();
    assert_eq!(partitions, ["3", "3"], "ATTR-K-10");
}

#[tokio::test]
async fn golden_k_05_what_differs_in_a_batch_is_on_the_links() {
    let capture = Capture::new();
    let messages = [(0, "k1"), (1, "k2")].map(|(partition, key)| {
        message(Some(key), Some("{}"), &[("traceparent", SUPPLIED)]).set_partition(partition).set_offset(7)
    });
    otel(&capture).group("g").process_batch(&messages, async {}).await;
    let expected = "batch.message_count=2 consumer.group.name=g destination.name=orders";
    assert_eq!(only(&capture), ("process orders".to_owned(), SpanKind::Consumer, 2, expected.to_owned()), "GOLD-K-05");
    let spans = capture.spans();
    let links: Vec<String> = spans[0].links.iter().map(|link| format!("{:?}", attributes(&link.attributes))).collect();
    for (link, (partition, key)) in links.iter().zip([(0, "k1"), (1, "k2")]) {
        let expected = ["messaging.destination.partition.id", "messaging.kafka.message.key", "messaging.kafka.offset"];
        assert!(expected.iter().all(|key| link.contains(key)), "ATTR-K-10: {link}");
        assert!(link.contains(key) && link.contains(&partition.to_string()), "ATTR-K-10: {link}");
    }
}

#[tokio::test]
async fn golden_k_10_a_message_without_a_context_has_no_link() {
    let capture = Capture::new();
    let messages = [message(None, Some("1"), &[("traceparent", SUPPLIED)]), message(None, Some("2"), &[])];
    otel(&capture).process_batch(&messages, async {}).await;
    let expected = "batch.message_count=2 destination.name=orders destination.partition.id=3";
    assert_eq!(only(&capture), ("process orders".to_owned(), SpanKind::Consumer, 1, expected.to_owned()), "GOLD-K-10");
}

#[tokio::test]
async fn a_batch_has_the_baggage_of_all() {
    let capture = Capture::new();
    let one = message(None, Some("1"), &[("baggage", "tenant=acme")]);
    let two = message(None, Some("2"), &[("baggage", "region=eu")]);
    let processing = otel(&capture).start_batch(&[one, two]);
    assert_eq!(processing.get("tenant").as_deref(), Some("acme"), "BAGG-12");
    assert_eq!(processing.scope().messages()[1].get("region").as_deref(), Some("eu"));
    processing.succeed();
}

#[tokio::test]
async fn golden_x_04_an_error_marks_the_span_and_is_returned() {
    let capture = Capture::new();
    let failed = otel(&capture).process(&message(None, Some("{}"), &[]), async { "x".parse::<u8>() }).await;
    assert!(failed.is_err());
    assert_eq!(error_type(&capture), "core::num::error::ParseIntError", "GOLD-X-04");
}

/// A record as a client in another language may write it, through the client and its protocol.
#[tokio::test]
async fn strange_headers_neither_panic_nor_lose_the_message() {
    let (capture, cluster) = (Capture::new(), cluster());
    let mut strange = headers(&[("traceparent", "garbage")]);
    raw_headers::append(&mut strange, b"\xff\xfe", Some(b"x"));
    raw_headers::append(&mut strange, b"baggage", None);
    raw_headers::append(&mut strange, b"traceparent", Some(SUPPLIED.as_bytes()));
    let record = rdkafka::producer::FutureRecord::<str, str>::to("orders").headers(strange);
    producer(&cluster).send(record, PATIENCE).await.unwrap();
    let consumer = stream_consumer(&cluster);
    let message = otel(&capture).recv(&consumer).await.unwrap();
    otel(&capture).process(&message, async {}).await;
    let spans = capture.spans();
    assert_eq!(spans.iter().map(|span| span.links.len()).collect::<Vec<_>>(), [1, 1], "PROP-K-03, PROP-K-05");
    assert_eq!(spans[1].parent_span_id.to_string(), "00f067aa0ba902b7", "PROP-K-03");
}

#[tokio::test]
async fn the_futures_can_be_spawned() {
    let (capture, cluster) = (Capture::new(), cluster());
    let (otel, producer, consumer) = (otel(&capture), producer(&cluster), stream_consumer(&cluster));
    let work = async move {
        let record = rdkafka::producer::FutureRecord::to("orders").key("k1").payload("{}");
        otel.send(&producer, record, PATIENCE).await.unwrap();
        let records = [rdkafka::producer::FutureRecord::to("orders").key("k1").payload("{}")];
        otel.send_batch(&producer, records, PATIENCE).await;
        let message = otel.recv(&consumer).await.unwrap();
        otel.process(&message, async { tokio::task::yield_now().await }).await;
        otel.process_batch(std::slice::from_ref(&message), async {}).await;
        otel.commit_message(&consumer, &message, rdkafka::consumer::CommitMode::Sync).unwrap();
    };
    tokio::spawn(work).await.unwrap();
    assert_eq!(capture.spans().len(), 7);
}
