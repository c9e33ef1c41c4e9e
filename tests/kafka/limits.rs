//! Messages as large as a topic takes them: what can be read can be forwarded, answered and received.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use throughline_core::broker::PublishErrorKind;
use throughline_core::{App, Delivery, Handler, Settlement};
use throughline_kafka::Topic;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::load::{connect, read, start};
use crate::server::{PATIENCE, url};
use crate::topics::{create, create_small, unique};

/// What a producer in Java sends by default, and a topic takes by default, and more than the client's own 1,000,000.
const LARGE: usize = 1_040_000;

async fn publish_as_others_do(topic: &str, body: &[u8]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url()).set("message.max.bytes", "20000000");
    let producer: FutureProducer = config.create().expect("a producer");
    producer.send(FutureRecord::<(), _>::to(topic).payload(body), PATIENCE).await.expect("the topic takes it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_of_the_largest_size_becomes_a_dead_letter_and_is_handled_once() {
    for exactly_once in [false, true] {
        let (topic, group) = (unique("large"), unique("group"));
        let dead = format!("{topic}.dead");
        create(&url(), &topic, 1).await;
        create(&url(), &dead, 1).await;
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let handle = move |_: Delivery| {
            count.fetch_add(1, Ordering::Relaxed);
            async { Settlement::reject("too much") }
        };
        let mut subscription = Topic::new(topic.as_str()).group(group.as_str());
        if exactly_once {
            subscription = subscription.exactly_once(unique("id"));
        }
        let route = Handler::<(Delivery,), ()>::dead_letter(handle, dead.clone());
        let running = start(&url(), App::new().subscribe(subscription, route)).await;
        publish_as_others_do(&topic, &vec![7; LARGE]).await;
        let letters = read(&url(), &dead, 1).await;
        running.shutdown().await.expect("a clean end");
        assert_eq!(letters[0].len(), LARGE, "exactly once: {exactly_once}");
        assert_eq!(calls.load(Ordering::Relaxed), 1, "exactly once: {exactly_once}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn what_a_topic_takes_is_published_and_received() {
    const HUGE: usize = 15_000_000;
    let topic = unique("huge");
    create_small(&url(), &topic, 16_000_000).await;
    let kafka = connect(&url()).await;
    let publisher = kafka.publisher().without_telemetry();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handle = move |delivery: Delivery| {
        sender.send(delivery.payload().len()).expect("the test listens");
        async {}
    };
    let running = start(&url(), App::new().subscribe(Topic::new(topic.as_str()).group(unique("group")), handle)).await;
    for body in [vec![1; HUGE], vec![2; 10]] {
        let length = body.len();
        publisher.publish(topic.as_str(), body).await.expect("the topic takes it");
        assert_eq!(timeout(PATIENCE, seen.recv()).await.expect("it is received"), Some(length));
    }
    let failed = publisher.publish(topic.as_str(), vec![3; HUGE + 2_000_000]).await.expect_err("the topic does not");
    assert_eq!((failed.kind(), failed.error_type()), (PublishErrorKind::TooLarge, "MESSAGE_TOO_LARGE"), "{failed}");
    running.shutdown().await.expect("a clean end");
}
