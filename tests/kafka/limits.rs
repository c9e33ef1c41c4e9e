//! Messages as large as a topic takes them: what can be read can be forwarded, answered and received.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use throughline_core::broker::PublishErrorKind;
use throughline_core::{App, Delivery, Handler, Settlement};
use throughline_kafka::Topic;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::load::{committed, connect, publish_bodies, read, start};
use crate::server::{PATIENCE, url};
use crate::topics::{create, create_small, create_with, unique};

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

/// What a topic takes in one request: less than the client sends at once.
const SMALL: u32 = 20_000;

/// A message of 1 kB for each number, and one that is larger than the topic takes.
fn small_ones_and_a_large_one() -> Vec<String> {
    let small = (0..200).map(|number| format!("{number:01000}"));
    small.clone().take(100).chain([format!("{:050000}", 777)]).chain(small.skip(100)).collect()
}

fn numbers(bodies: &[String]) -> BTreeSet<u64> {
    bodies.iter().map(|body| body.parse().expect("a number")).collect()
}

/// The broker answers for a request: what it says of it is said of no message that came with others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_that_is_too_large_takes_no_other_one_with_it() {
    let kafka = connect(&url()).await;
    let publisher = kafka.publisher().without_telemetry();
    for as_batch in [false, true] {
        let topic = unique("small");
        create_small(&url(), &topic, SMALL).await;
        let bodies = small_ones_and_a_large_one();
        let failed: Vec<(usize, PublishErrorKind)> = if as_batch {
            let failed = publisher.publish_batch(topic.clone(), bodies).await.expect_err("the large one fails");
            failed.failed().iter().map(|(index, failed)| (*index, failed.kind())).collect()
        } else {
            let all = bodies.into_iter().map(|body| async { publisher.publish(topic.as_str(), body).await });
            let all = join_all(all).await;
            let failed = all.iter().enumerate().filter_map(|(index, one)| Some((index, one.as_ref().err()?.kind())));
            failed.collect()
        };
        assert_eq!(failed, [(100, PublishErrorKind::TooLarge)], "as a batch: {as_batch}");
        let stored = read(&url(), &topic, 200).await;
        assert_eq!(numbers(&stored), (0..200).collect(), "as a batch: {as_batch}");
    }
    kafka.shutdown().await.expect("all is confirmed");
}

/// Neither does one that a topic takes for another reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_that_a_topic_refuses_takes_no_other_one_with_it() {
    let topic = unique("compacted");
    create_with(&url(), &topic, "cleanup.policy", "compact").await;
    let kafka = connect(&url()).await;
    let publisher = kafka.publisher().without_telemetry();
    let all = (0..100).map(|number| {
        let publishing = publisher.publish(topic.as_str(), number.to_string());
        // Such a topic takes none without a key.
        let publishing = if number % 10 == 5 { publishing } else { publishing.key(number.to_string()) };
        async { publishing.await.map_err(|failed| (failed.kind(), failed.error_type().to_owned())) }
    });
    for (number, published) in join_all(all).await.into_iter().enumerate() {
        let refused = Err((PublishErrorKind::Refused, "INVALID_RECORD".to_owned()));
        assert_eq!(published.map(drop), if number % 10 == 5 { refused } else { Ok(()) }, "{number}");
    }
    assert_eq!(read(&url(), &topic, 90).await.len(), 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_dead_letter_that_is_too_large_takes_no_other_one_with_it() {
    for exactly_once in [false, true] {
        let (topic, group) = (unique("rejected"), unique("group"));
        let dead = format!("{topic}.dead");
        create(&url(), &topic, 1).await;
        create_small(&url(), &dead, SMALL).await;
        publish_bodies(&url(), &topic, &small_ones_and_a_large_one()).await;
        let handle = |_: Delivery| async { Settlement::reject("too much") };
        let subscription = Topic::new(topic.as_str()).group(group.as_str());
        let subscription = if exactly_once {
            subscription.exactly_once(unique("id")).batch(50, Duration::from_millis(50))
        } else {
            subscription.unordered(100)
        };
        let route = Handler::<(Delivery,), ()>::dead_letter(handle, dead.clone());
        let running = start(&url(), App::new().subscribe(subscription, route)).await;
        let letters = read(&url(), &dead, 200).await;
        assert_eq!(numbers(&letters), (0..200).collect(), "exactly once: {exactly_once}");
        running.shutdown().await.expect("a clean end");
        let committed = committed(&url(), &group, &topic, 1).await[0];
        assert!(committed >= 201, "all are settled: {committed}");
    }
}
