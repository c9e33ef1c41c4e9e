//! One service on all brokers: one trace goes through them.
//!
//! `cargo xtask test` finds or starts the servers and runs it; their addresses are in `THROUGHLINE_NATS_URL`, `THROUGHLINE_KAFKA_URL` and
//! `THROUGHLINE_RABBIT_URL`.

#![allow(clippy::expect_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

use std::time::{Duration, SystemTime};

use throughline_core::extract::{Baggage, ProcessSpan, State};
use throughline_core::{App, CurrentBaggage, CurrentSpan, PublishError, Publisher, serve};
use throughline_kafka::{Kafka, NewTopic, Topic};
use throughline_nats::{Nats, Subject};
use throughline_rabbit::{Queue, Rabbit};
use throughline_testing::Capture;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// How long the message may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the server keeps the queue.
const KEPT: Duration = Duration::from_secs(300);

/// Where a handler of one broker publishes on another one.
#[derive(Clone)]
struct Next {
    publisher: Publisher,
    destination: String,
}

/// Returns the address of a server; a missing one is a failure, never a skip.
fn url(variable: &str) -> String {
    match std::env::var(variable) {
        Ok(url) if !url.is_empty() => url,
        _ => panic!("{variable} names no server: run `cargo xtask test`, which starts one"),
    }
}

async fn pass_on(body: String, State(next): State<Next>, baggage: Baggage) -> Result<(), PublishError> {
    baggage.set("hops", format!("{}{}", baggage.get("hops").unwrap_or_default(), body.len()));
    next.publisher.publish(next.destination, format!("{body}.")).await?;
    Ok(())
}

async fn arrive(body: String, State(end): State<UnboundedSender<String>>, span: ProcessSpan, baggage: Baggage) {
    span.set_attribute("body", body.clone());
    end.send(format!("{body} {}", baggage.get("hops").unwrap_or_default())).expect("the test waits");
}

#[tokio::test]
#[ignore = "needs all brokers: cargo xtask test"]
async fn a_message_goes_through_all_brokers_in_one_trace() {
    let nats = Nats::connect(url("THROUGHLINE_NATS_URL").as_str()).await.expect("NATS");
    let kafka = Kafka::connect(url("THROUGHLINE_KAFKA_URL").as_str()).await.expect("Kafka");
    let rabbit = Rabbit::connect(url("THROUGHLINE_RABBIT_URL").as_str()).await.expect("RabbitMQ");

    let unique = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_micros();
    let [subject, topic, queue] = ["subject", "topic", "queue"].map(|kind| format!("together.{kind}.{unique}"));
    let capture = Capture::new();
    let engine = || capture.instrumentation().build();
    let next = |publisher: Publisher, destination: &String| Next {
        publisher: publisher.telemetry(engine()),
        destination: destination.clone(),
    };
    let (end, mut ended) = unbounded_channel();
    let on_nats = App::new()
        .subscribe(Subject::new(subject.as_str()), pass_on)
        .with_state(next(kafka.publisher(), &topic))
        .telemetry(engine());
    let one_copy = NewTopic::partitions(1).replication(1);
    let on_kafka = App::new()
        .subscribe(Topic::new(topic.as_str()).group(topic.as_str()).declare(one_copy), pass_on)
        .with_state(next(rabbit.publisher(), &queue))
        .telemetry(engine());
    let read = Queue::new(queue.as_str()).expires(KEPT);
    let on_rabbit = App::new().subscribe(read, arrive).with_state(end).telemetry(engine());

    let publisher = nats.publisher().telemetry(engine());
    let running = serve(nats, on_nats).and(kafka, on_kafka).and(rabbit, on_rabbit).start().await.expect("a start");
    publisher.publish(subject.clone(), "x").await.expect("a publish");
    let arrived = timeout(PATIENCE, ended.recv()).await.expect("the message arrives in time");
    running.shutdown().await.expect("a shutdown");

    assert_eq!(arrived.as_deref(), Some("x.. 12"), "body and baggage of each hop");
    capture.tree().assert_tree(&format!(
        "
        publish {subject}
        └─ process {subject}
           └─ send {topic}
              └─ process {topic}
                 └─ publish {queue}
                    └─ process {queue}
        "
    ));
}
