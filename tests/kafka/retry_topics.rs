//! Messages that wait in topics of their own for their next attempt.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use opentelemetry::trace::{SpanKind, Status};
use throughline_core::{App, Delivery, Handler, Publisher, serve};
use throughline_kafka::{Kafka, Topic};
use throughline_testing::{Capture, TraceTree, attribute};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::load::committed;
use crate::server::{PATIENCE, url};
use crate::topics::{create, unique};

const DELAYS: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(600)];

/// What a handler saw.
#[derive(Debug)]
struct Seen {
    topic: String,
    body: String,
    attempt: u32,
    headers: Vec<(String, String)>,
    at: Instant,
}

fn look(delivery: &Delivery) -> Seen {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Seen {
        topic: delivery.destination().to_owned(),
        body: text(delivery.payload()),
        attempt: delivery.attempt(),
        headers: delivery.headers().iter().map(|(name, value)| (name.to_owned(), text(value))).collect(),
        at: Instant::now(),
    }
}

impl Seen {
    fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

async fn next(seen: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
    timeout(PATIENCE, seen.recv()).await.expect("a message in time").expect("the app lives")
}

/// Each attempt links to the publish and is shown under its topic, and the forward belongs to the attempt that failed.
fn shows_one_trace(tree: &TraceTree, topic: &str, waits: &[String]) {
    let forward = tree.find(&format!("send {}", waits[0]));
    assert_eq!(forward.span_kind, SpanKind::Client, "SPAN-37");
    let failed = tree.parent(forward).expect("a parent");
    assert_eq!(failed.name, format!("process {topic}"));
    let origin = tree.parent(failed).expect("the publish").span_context.span_id();
    for (number, wait) in waits.iter().enumerate() {
        let attempt = opentelemetry::Value::from(number as i64 + 2);
        let spans = tree.find_all(&format!("process {topic}"));
        let again = spans.into_iter().find(|span| attribute(span, "throughline.attempt") == Some(&attempt));
        let again = again.expect("ATTR-C-27");
        assert_eq!(attribute(again, "messaging.destination.name"), Some(&topic.to_owned().into()), "ATTR-K-13");
        assert_eq!(attribute(again, "throughline.retry.destination"), Some(&wait.clone().into()), "ATTR-C-30");
        assert_eq!(attribute(again, "throughline.retry.cause"), Some(&"core::fmt::Error".into()), "ATTR-C-28");
        assert_eq!(again.links.iter().map(|link| link.span_context.span_id()).collect::<Vec<_>>(), [origin], "{wait}");
    }
}

/// METR-06, ATTR-K-13: the metrics count all attempts under the name that the spans have.
fn counts_under_one_name(capture: &Capture, topic: &str, dead: &str) {
    let points = capture.metrics();
    let handled = points.iter().filter(|point| point.name == "messaging.process.duration");
    let names: BTreeSet<String> = handled
        .filter_map(|point| point.attributes.get("messaging.destination.name"))
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, BTreeSet::from([topic.to_owned(), dead.to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_waits_in_each_topic_and_ends_as_a_dead_letter_while_those_behind_it_go_on() {
    let (bootstrap, topic, group) = (url(), unique("retried"), unique("g"));
    let dead = format!("{topic}.dead");
    let waits: Vec<String> = (1..=2).map(|number| format!("{topic}.{group}.retry.{number}")).collect();
    for name in [&topic, &dead, &waits[0], &waits[1]] {
        create(&bootstrap, name, 1).await;
    }
    let capture = Capture::new();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handle = {
        let sender = sender.clone();
        move |delivery: Delivery| {
            sender.send(look(&delivery)).expect("the test listens");
            async move { if delivery.payload().as_ref() == b"bad" { Err(std::fmt::Error) } else { Ok(()) } }
        }
    };
    let (dead_sender, mut dead_seen) = mpsc::unbounded_channel();
    let bury = move |delivery: Delivery| {
        dead_sender.send(look(&delivery)).expect("the test listens");
        async {}
    };
    let app = App::new()
        .telemetry(capture.instrumentation().build())
        .subscribe(
            Topic::new(topic.clone()).group(group.clone()).retry_topics(DELAYS),
            Handler::<(Delivery,), ()>::dead_letter(handle, dead.clone()),
        )
        .subscribe(Topic::new(dead.clone()).group(group.clone()), bury);
    let kafka = Kafka::connect(bootstrap.as_str()).await.expect("a connection");
    let running = serve(kafka.clone(), app).start().await.expect("the app starts");
    let publisher = Publisher::new(&kafka).telemetry(capture.instrumentation().build());
    publisher.publish(topic.clone(), "bad").await.expect("published");
    publisher.publish(topic.clone(), "good").await.expect("published");

    let first = next(&mut seen).await;
    let good = next(&mut seen).await;
    assert_eq!((first.body.as_str(), first.attempt), ("bad", 1));
    assert_eq!((good.body.as_str(), good.attempt), ("good", 1), "it does not wait for the one before it");
    let mut before = first;
    for (number, (wait, delay)) in waits.iter().zip(DELAYS).enumerate() {
        let again = next(&mut seen).await;
        assert_eq!((&again.topic, again.attempt), (wait, number as u32 + 2));
        assert!(again.at.duration_since(before.at) >= delay, "{:?} is too soon", again.at.duration_since(before.at));
        assert_eq!(again.header("retry-attempt"), [(number + 2).to_string()], "set, not added (SPAN-37)");
        assert_eq!(again.header("retry-error"), ["core::fmt::Error"]);
        assert_eq!(again.header("retry-origin"), [topic.as_str()]);
        before = again;
    }
    let buried = next(&mut dead_seen).await;
    assert_eq!(buried.body, "bad");
    assert_eq!(buried.header("retry-origin"), [topic.as_str()]);
    assert_eq!(buried.header("dead-letter-reason"), ["failed 3 times"]);
    running.shutdown().await.expect("a clean end");

    shows_one_trace(&capture.tree(), &topic, &waits);
    counts_under_one_name(&capture, &topic, &dead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_that_cannot_wait_elsewhere_is_forwarded_again_and_handled_when_its_topic_is_back() {
    let (bootstrap, topic, group) = (url(), unique("retried"), unique("g"));
    let wait = format!("{topic}.{group}.retry.1");
    create(&bootstrap, &topic, 1).await;
    create(&bootstrap, &wait, 1).await;
    let capture = Capture::new();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let names = [&bootstrap, &wait].map(String::clone);
    let handle = move |delivery: Delivery| {
        let (sender, names) = (sender.clone(), names.clone());
        async move {
            let is_first = delivery.attempt() == 1;
            if is_first {
                // The place where it is to wait is gone by the time it is needed.
                crate::topics::delete(&names[0], &names[1]).await;
            }
            sender.send(look(&delivery)).expect("the test listens");
            if is_first { Err(std::fmt::Error) } else { Ok(()) }
        }
    };
    let subscription = Topic::new(topic.clone())
        .group(group.clone())
        .retry_topics([Duration::from_millis(100)])
        .commit_interval(Duration::from_millis(10))
        .property("topic.metadata.refresh.interval.ms", "500");
    let app = App::new().telemetry(capture.instrumentation().build()).subscribe(subscription, handle);
    let kafka = Kafka::connect(bootstrap.as_str()).await.expect("a connection");
    let running = serve(kafka.clone(), app).start().await.expect("the app starts");
    Publisher::new(&kafka).without_telemetry().publish(topic.clone(), "x").await.expect("published");
    assert_eq!(next(&mut seen).await.attempt, 1);
    let forwards = || {
        let spans = capture.spans();
        spans.into_iter().filter(|span| span.name == format!("send {wait}")).collect::<Vec<_>>()
    };
    crate::load::wait_until("it is forwarded again", || forwards().len() >= 2).await;
    assert!(forwards().iter().all(|span| matches!(span.status, Status::Error { .. })), "each is in the trace");
    assert!(committed(&bootstrap, &group, &topic, 1).await[0] <= 0, "it is not settled before");
    create(&bootstrap, &wait, 1).await;
    let again = timeout(crate::load::PATIENCE, seen.recv()).await.expect("a message in time").expect("the app lives");
    assert_eq!((again.topic.as_str(), again.attempt), (wait.as_str(), 2), "the handler did not run in between");
    running.shutdown().await.expect("a clean end");
    assert_eq!(committed(&bootstrap, &group, &topic, 1).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_missing_retry_topic_is_named_at_start() {
    let (bootstrap, topic) = (url(), unique("retried"));
    create(&bootstrap, &topic, 1).await;
    let app = App::new().without_telemetry().subscribe(
        Topic::new(topic.clone()).group("g").retry_topics(DELAYS),
        Handler::<(Delivery,), ()>::concurrency(async |_: Delivery| {}, 1),
    );
    let kafka = Kafka::connect(bootstrap.as_str()).await.expect("a connection");
    let failed = serve(kafka, app).start().await.expect_err("a topic is missing");
    let text = failed.to_string();
    assert!(text.contains(&format!("{topic}.g.retry.1")), "{text}");
}
