//! Records of a client that is not ours (PROP-K-05): Python's `confluent-kafka`, see `foreign.py`. The Python program that has it
//! is in `THROUGHLINE_KAFKA_PYTHON`.

use std::path::Path;
use std::time::Duration;

use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use throughline_core::broker::{Broker, BrokerErrorKind, Subscriber};
use throughline_core::{App, CurrentBaggage, Delivery, ServeErrorKind, Settlement, serve};
use throughline_kafka::{Instrumentation, Kafka, NativeRecord, StartPosition, Topic};
use throughline_testing::Capture;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::server::{self, PATIENCE};
use crate::{load, topics};

/// The span that the script says all its records come from.
const SPAN: &str = "00f067aa0ba902b7";

/// Which of the records carry that span.
const WITH_CONTEXT: [bool; 8] = [true, false, true, true, true, true, false, true];

async fn written(name: &str) -> String {
    let topic = topics::unique(name);
    topics::create(&server::url(), &topic, 1).await;
    write(&[&topic]).await;
    topic
}

/// Runs the script for a topic, and with a compression where one is said.
async fn write(arguments: &[&str]) {
    let python = std::env::var_os("THROUGHLINE_KAFKA_PYTHON").expect("THROUGHLINE_KAFKA_PYTHON names a Python program");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/foreign.py");
    let run = Command::new(python).arg(script).arg(server::url()).args(arguments).output().await;
    let output = run.expect("Python runs");
    assert!(output.status.success(), "foreign.py: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "needs Kafka and Python: cargo xtask test --broker kafka"]
async fn no_record_of_a_foreign_client_panics_or_is_lost_by_the_raw_door() {
    let topic = written("foreign-raw").await;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server::url()).set("group.id", topics::unique("foreign"));
    let consumer: StreamConsumer = config.create().expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&topic, 0, Offset::Beginning).expect("a position");
    consumer.assign(&partitions).expect("the partition");
    let capture = Capture::new();
    let otel = Instrumentation::from(capture.instrumentation().build());
    let mut messages: Vec<BorrowedMessage<'_>> = Vec::new();
    for has_context in WITH_CONTEXT {
        let message = timeout(PATIENCE, consumer.recv()).await.expect("a message in time").expect("a message");
        let processing = otel.start(&message);
        let tenant = processing.get("tenant");
        assert_eq!(tenant.as_deref(), (message.offset() == 0).then_some("acme"), "BAGG-11: {}", message.offset());
        processing.succeed();
        let span = capture.spans().pop().expect("a span");
        assert_eq!(span.parent_span_id.to_string() == SPAN, has_context, "PROP-K-02, -03: {}", message.offset());
        messages.push(message);
    }
    otel.process_batch(&messages, async {}).await;
    let span = capture.spans().pop().expect("a span");
    assert_eq!(span.links.len(), WITH_CONTEXT.iter().filter(|has| **has).count(), "LINK-01");
    drop(messages);
    topics::delete(&server::url(), &topic).await;
}

#[tokio::test]
#[ignore = "needs Kafka and Python: cargo xtask test --broker kafka"]
async fn no_record_of_a_foreign_client_panics_or_is_lost_by_the_framework() {
    let topic = written("foreign").await;
    let kafka = Kafka::connect(server::url()).await.expect("a connection to THROUGHLINE_KAFKA_URL");
    let subscription = Topic::new(topic.as_str()).group(topics::unique("foreign")).start(StartPosition::Earliest);
    let mut subscriber = kafka.subscribe(&subscription.into()).await.expect("a subscription");
    let mut deliveries = Vec::new();
    for _ in WITH_CONTEXT {
        deliveries.push(next(subscriber.as_mut()).await);
    }
    let names = |index: usize| deliveries[index].headers().iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(1), ["traceparent", "baggage", "source"], "a null value is an empty one");
    assert_eq!(deliveries[2].headers().get_all("a").collect::<Vec<_>>(), [b"1", b"2"], "PROP-K-03");
    assert_eq!(deliveries[3].headers().get_all("binary").next(), Some(&b"\xff\x00\xfe"[..]));
    assert_eq!(names(4), ["größe", "\u{1f4e6}", "traceparent"]);
    let tombstones =
        deliveries.iter().map(|delivery| delivery.native::<NativeRecord>().expect("a record").is_tombstone());
    assert_eq!(tombstones.collect::<Vec<_>>(), [false, false, false, false, false, true, true, false], "ATTR-K-06");
    assert_eq!(deliveries[7].key().map(AsRef::as_ref), Some(&b"k\xff"[..]), "ATTR-K-04");
    subscriber.close(crate::server::deadline()).await;
    topics::delete(&server::url(), &topic).await;
}

/// A client built without zstd cannot read such a record and would go on behind it: the subscription ends there instead.
#[tokio::test]
#[ignore = "needs Kafka and Python: cargo xtask test --broker kafka"]
async fn a_record_that_this_build_cannot_decompress_ends_the_subscription_before_it() {
    let built_with = ClientConfig::new().create_native_config().expect("a configuration").get("builtin.features");
    let has_zstd = built_with.expect("the client says so").split(',').any(|feature| feature.trim() == "zstd");
    assert!(!has_zstd, "the client of this test is to be built without the feature `zstd`");
    let (topic, group) = (topics::unique("foreign-zstd"), topics::unique("foreign"));
    topics::create(&server::url(), &topic, 1).await;
    let kafka = Kafka::connect(server::url()).await.expect("a connection to THROUGHLINE_KAFKA_URL");
    let publish = async |body: &'static str| kafka.publisher().publish(topic.clone(), body).await.expect("published");
    publish("before").await;
    let (seen, mut handled) = mpsc::unbounded_channel();
    let handle = move |body: String| {
        seen.send(body).expect("the test listens");
        async {}
    };
    let subscription = || Topic::new(topic.clone()).group(group.clone()).commit_interval(Duration::from_millis(20));
    let app = || App::new().without_telemetry().subscribe(subscription(), handle.clone());
    let committed = async || load::committed(&server::url(), &group, &topic, 1).await;
    for start in 1..=2 {
        let running = serve(kafka.clone(), app()).start().await.expect("the app starts");
        if start == 1 {
            let deadline = Instant::now() + PATIENCE;
            while committed().await != [1] {
                assert!(Instant::now() < deadline, "the message before the record is not committed");
            }
            write(&[&topic, "zstd"]).await;
            publish("behind").await;
        }
        let ended = timeout(PATIENCE, running.run_until(std::future::pending())).await.expect("it ends in time");
        let error = ended.expect_err("it ends with an error");
        assert_eq!(error.kind(), ServeErrorKind::Ended, "start {start}");
        let cause = error.broker_error().expect("the reason");
        assert_eq!((cause.kind(), cause.error_type()), (BrokerErrorKind::Unsupported, "unsupported"), "{cause}");
        assert!(cause.to_string().contains("`zstd`"), "{cause}");
        assert_eq!(committed().await, [1], "start {start}");
    }
    assert_eq!(handled.try_recv().expect("the message before the record"), "before");
    assert!(handled.try_recv().is_err(), "nothing behind it");
}

async fn next(subscriber: &mut dyn Subscriber) -> Delivery {
    let mut received = timeout(PATIENCE, subscriber.receive()).await.expect("a message in time").expect("a message");
    received.settle(&Settlement::Ack).await.expect("a settlement");
    received.delivery.clone()
}
