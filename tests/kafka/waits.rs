//! Waits in retry topics: a long one, or one that a clock or a stranger makes long, holds up nobody.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use throughline_core::broker::{RETRY_ATTEMPT, RETRY_DUE};
use throughline_core::serve::Running;
use throughline_core::{App, Delivery, Settlement};
use throughline_kafka::Topic;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::load::{committed, publish_bodies, start};
use crate::server::{PATIENCE, url};
use crate::topics::{create, unique};

const DELAY: Duration = Duration::from_millis(500);

type Seen = mpsc::UnboundedReceiver<(String, u32, Instant)>;

struct Waits {
    topic: String,
    group: String,
    seen: Seen,
    running: Running,
}

impl Waits {
    /// Handles messages: at their first attempt `long` asks for a delay of six times the topic's, and `short` for one.
    async fn start() -> Self {
        let (topic, group) = (unique("waits"), unique("g"));
        create(&url(), &topic, 1).await;
        create(&url(), &format!("{topic}.{group}.retry.1"), 1).await;
        let (sender, seen) = mpsc::unbounded_channel();
        let handle = move |delivery: Delivery| {
            let body = String::from_utf8_lossy(delivery.payload()).into_owned();
            let settlement = match (delivery.attempt(), &*body) {
                (1, "long") => Settlement::retry_after(DELAY * 6),
                (1, "ever") => Settlement::retry_after(Duration::MAX),
                (1, _) => Settlement::retry_after(Duration::from_millis(1)),
                _ => Settlement::Ack,
            };
            sender.send((body, delivery.attempt(), Instant::now())).expect("the test listens");
            async move { settlement }
        };
        let subscription = Topic::new(topic.as_str()).group(group.as_str()).retry_topics([DELAY]);
        let running = start(&url(), App::new().subscribe(subscription, handle)).await;
        Self { topic, group, seen, running }
    }

    async fn next(&mut self) -> (String, u32, Instant) {
        timeout(PATIENCE, self.seen.recv()).await.expect("in time").expect("the app runs")
    }

    async fn publish(&self, bodies: &[&str]) {
        let bodies: Vec<String> = bodies.iter().map(|body| (*body).to_owned()).collect();
        publish_bodies(&url(), &self.topic, &bodies).await;
    }

    fn retry_topic(&self) -> String {
        format!("{}.{}.retry.1", self.topic, self.group)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_that_waits_for_long_holds_up_no_other_and_is_not_early() {
    let mut waits = Waits::start().await;
    waits.publish(&["long", "one", "two"]).await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(waits.next().await);
    }
    let order: Vec<(&str, u32)> = seen.iter().map(|(body, attempt, _)| (body.as_str(), *attempt)).collect();
    assert_eq!(order, [("long", 1), ("one", 1), ("two", 1), ("one", 2), ("two", 2), ("long", 2)]);
    assert!(seen[5].2.duration_since(seen[0].2) >= DELAY * 6, "{:?}", seen[5].2.duration_since(seen[0].2));
    waits.running.shutdown().await.expect("a clean end");
    let retry = format!("{}.{}.retry.1", waits.topic, waits.group);
    let committed = committed(&url(), &waits.group, &retry, 1).await[0];
    assert!((8..=10).contains(&committed), "it was written some six times: {committed}");
}

/// One that asks for as long as there is does not overflow, and holds up no other either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_that_is_to_wait_for_ever_holds_up_no_other() {
    let mut waits = Waits::start().await;
    waits.publish(&["ever", "one"]).await;
    let order = [waits.next().await, waits.next().await, waits.next().await].map(|(body, attempt, _)| (body, attempt));
    assert_eq!(order, [("ever", 1), ("one", 1), ("one", 2)].map(|(body, attempt)| (body.to_owned(), attempt)));
    waits.running.shutdown().await.expect("a clean end");
}

/// A member whose clock is an hour ahead, or a stranger, writes times that are far away; those behind wait no longer either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_clock_that_is_ahead_holds_up_nobody() {
    let mut waits = Waits::start().await;
    let hour = Duration::from_secs(3_600);
    let ahead = UNIX_EPOCH.elapsed().expect("a clock") + hour;
    let millis = i64::try_from(ahead.as_millis()).expect("a time");
    let due = millis.to_string();
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", url()).create().expect("a producer");
    let topic = waits.retry_topic();
    for body in ["one", "two", "three"] {
        let headers = OwnedHeaders::new()
            .insert(Header { key: RETRY_ATTEMPT, value: Some("2") })
            .insert(Header { key: RETRY_DUE, value: Some(&due) });
        let record = FutureRecord::<(), _>::to(&topic).payload(body).timestamp(millis).headers(headers);
        producer.send(record, PATIENCE).await.expect("stored");
    }
    let written = SystemTime::now();
    for body in ["one", "two", "three"] {
        let (seen, attempt, _) = waits.next().await;
        assert_eq!((seen.as_str(), attempt), (body, 2));
    }
    assert!(written.elapsed().expect("a clock") < PATIENCE, "and not after an hour");
    waits.running.shutdown().await.expect("a clean end");
}
