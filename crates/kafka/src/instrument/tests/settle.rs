use std::time::{Duration, Instant};

use rdkafka::consumer::CommitMode;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::FutureRecord;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

fn offsets(entries: &[(&str, i32, Offset)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in entries {
        list.add_partition_offset(topic, *partition, *offset).unwrap();
    }
    list
}

#[tokio::test]
async fn golden_k_06_a_commit_is_a_child_of_the_process_span() {
    let (capture, cluster) = (Capture::new(), cluster());
    let record = FutureRecord::to("orders").partition(3).key("k1").headers(headers(&[("message-id", "m1")]));
    producer(&cluster).send(record.payload("{}"), PATIENCE).await.unwrap();
    let consumer = stream_consumer(&cluster);
    let message = consumer.recv().await.unwrap();
    let otel = otel(&capture).group("g");
    let handled = otel.process(&message, async { otel.commit_message(&consumer, &message, CommitMode::Sync) });
    handled.await.unwrap();
    let tree = capture.tree();
    let commit = tree.find("commit orders");
    assert_eq!(tree.parent(commit).map(|span| span.name.as_ref()), Some("process orders"), "GOLD-K-06, LINK-12");
    let expected =
        "consumer.group.name=g destination.name=orders destination.partition.id=3 kafka.offset=0 message.id=m1";
    assert_eq!(shown(commit), ("commit orders".to_owned(), SpanKind::Client, 0, expected.to_owned()), "GOLD-K-06");
    let committed = consumer.committed(PATIENCE).unwrap();
    assert_eq!(committed.find_partition("orders", 3).unwrap().offset(), Offset::Offset(1));
}

#[tokio::test]
async fn golden_k_07_a_commit_over_two_topics_names_none() {
    let (capture, cluster) = (Capture::new(), cluster());
    let consumer = base_consumer(&cluster);
    let list = offsets(&[("orders", 0, Offset::Offset(1)), ("bills", 0, Offset::Offset(1))]);
    otel(&capture).group("g").topics(["orders", "bills"]).commit(&consumer, &list, CommitMode::Sync).unwrap();
    let expected = ("commit".to_owned(), SpanKind::Client, 0, "consumer.group.name=g".to_owned());
    assert_eq!(only(&capture), expected, "GOLD-K-07, ATTR-K-11");
}

#[tokio::test]
async fn a_commit_shows_what_is_the_same_for_all_of_it() {
    let (capture, cluster) = (Capture::new(), cluster());
    let consumer = base_consumer(&cluster);
    let cases = [
        (offsets(&[("orders", 2, Offset::Offset(43))]), " destination.partition.id=2 kafka.offset=42"),
        (offsets(&[("orders", 2, Offset::Offset(0))]), " destination.partition.id=2"),
        (offsets(&[("orders", 1, Offset::Offset(1)), ("orders", 2, Offset::Offset(1))]), ""),
        (
            offsets(&[("orders", 2, Offset::Offset(43)), ("bills", 0, Offset::Invalid)]),
            " destination.partition.id=2 kafka.offset=42",
        ),
    ];
    for (list, expected) in cases {
        capture.reset();
        otel(&capture).commit(&consumer, &list, CommitMode::Sync).unwrap();
        let expected = format!("destination.name=orders{expected}");
        assert_eq!(only(&capture), ("commit orders".to_owned(), SpanKind::Client, 0, expected), "ATTR-K-02, -05");
    }
}

#[tokio::test]
async fn what_is_stored_is_committed() {
    let (capture, cluster) = (Capture::new(), cluster());
    let consumer = base_consumer(&cluster);
    let otel = otel(&capture).topics(["orders"]);
    let nothing = otel.commit_consumer_state(&consumer, CommitMode::Sync);
    assert_eq!(nothing, Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)), "as the client says");
    assert!(is_unset(&capture), "nothing to commit is no failure");
    capture.reset();
    let deadline = Instant::now() + PATIENCE;
    // The client takes an assignment over a moment after the call.
    while let Err(failed) = consumer.store_offset("orders", 1, 41) {
        assert!(Instant::now() < deadline, "{failed}");
        assert!(consumer.poll(Duration::from_millis(10)).is_none(), "nobody published");
    }
    assert!(capture.spans().is_empty(), "storing settles nothing");
    otel.commit_consumer_state(&consumer, CommitMode::Sync).unwrap();
    let expected = ("commit orders".to_owned(), SpanKind::Client, 0, "destination.name=orders".to_owned());
    assert_eq!(only(&capture), expected, "ATTR-K-11");
}

#[tokio::test]
async fn a_plain_commit_has_no_span_by_default_and_a_failed_one_has() {
    let (capture, cluster) = (Capture::new(), cluster());
    let otel = Instrumentation::from(capture.instrumentation().build());
    let consumer = base_consumer(&cluster);
    let list = offsets(&[("orders", 0, Offset::Offset(1))]);
    otel.commit(&consumer, &list, CommitMode::Sync).unwrap();
    assert!(capture.spans().is_empty(), "SPAN-32");
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 8];
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &refused);
    let failed = otel.commit(&consumer, &list, CommitMode::Sync);
    assert_eq!(failed, Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::GroupAuthorizationFailed)));
    assert_eq!(error_type(&capture), "GROUP_AUTHORIZATION_FAILED", "ATTR-K-12, SPAN-32");
    assert_eq!(only(&capture).0, "commit orders");
}

#[tokio::test]
async fn a_commit_that_is_not_waited_for_ends_with_the_call() {
    let (capture, cluster) = (Capture::new(), cluster());
    let consumer = base_consumer(&cluster);
    otel(&capture).commit(&consumer, &offsets(&[("orders", 0, Offset::Offset(1))]), CommitMode::Async).unwrap();
    assert_eq!(only(&capture).0, "commit orders");
}

#[tokio::test]
async fn offsets_in_a_transaction_are_a_settlement() {
    use rdkafka::producer::Producer;
    let (capture, cluster) = (Capture::new(), cluster());
    let producer: FutureProducer = config(&cluster).set("transactional.id", "t").create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    let consumer = base_consumer(&cluster);
    let group = consumer.group_metadata().unwrap();
    let list = offsets(&[("orders", 0, Offset::Offset(1))]);
    otel(&capture).group("g").send_offsets_to_transaction(&producer, &list, &group, PATIENCE).unwrap();
    producer.commit_transaction(PATIENCE).unwrap();
    let expected = "consumer.group.name=g destination.name=orders destination.partition.id=0 kafka.offset=0";
    assert_eq!(only(&capture), ("commit orders".to_owned(), SpanKind::Client, 0, expected.to_owned()), "SPAN-33");
}
