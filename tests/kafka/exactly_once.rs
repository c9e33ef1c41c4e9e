//! Exactly once: results and offsets in one transaction, on a real server.
//!
//! Asserted on exported spans and on what a reader of committed messages sees.

#[path = "exactly_once/batches.rs"]
mod batches;
#[path = "exactly_once/kills.rs"]
mod kills;
#[path = "exactly_once/members.rs"]
mod members;
#[path = "exactly_once/restarts.rs"]
mod restarts;
#[path = "exactly_once/retries.rs"]
mod retries;
#[path = "exactly_once/world.rs"]
mod world;

use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status};
use throughline_core::broker::{BrokerErrorKind, PublishErrorKind};
use throughline_core::extract::State;
use throughline_core::middleware::Retry;
use throughline_core::telemetry::SettleSpans;
use throughline_core::{
    App, Delivery, Handler, PublishError, Publisher, RetryPolicy, ServeErrorKind, Settlement, serve,
};
use throughline_kafka::{Isolation, Kafka, StartPosition, Topic};
use throughline_testing::{Capture, attribute};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use self::world::{World, ids, sorted};
use crate::server::PATIENCE;

type Failed = Result<String, std::fmt::Error>;

/// The topic that handlers publish to, in their state.
#[derive(Clone)]
struct Results(String);

fn soon() -> RetryPolicy {
    RetryPolicy::new().first_delay(Duration::from_millis(1))
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn what_is_published_and_the_offset_are_committed_together() {
    async fn handle(
        order: String,
        publisher: Publisher,
        State(Results(results)): State<Results>,
    ) -> Result<String, PublishError> {
        publisher.publish(results, format!("{order}-sent")).await?;
        Ok(format!("{order}-replied"))
    }
    let world = World::new("exact", 1).await;
    let capture = Capture::new();
    let app = App::new()
        .subscribe(world.topic(), handle.reply_to(world.results.as_str()))
        .with_state(Results(world.results.clone()));
    world.publish(0, ids(0..3)).await;
    let running = world.serve(app, &capture).await;
    world.wait_for(&world.results, 6).await;
    running.shutdown().await.expect("a regular end");
    let expected: Vec<String> =
        ids(0..3).iter().flat_map(|id| [format!("{id}-sent"), format!("{id}-replied")]).collect();
    assert_eq!(world.committed(&world.results).await, expected);
    assert_eq!(world.offsets().await, [Some(3)]);
    let tree = capture.tree();
    let sends = tree.find_all(&format!("send {}", world.results));
    assert_eq!(sends.len(), 6);
    let process = format!("process {}", world.orders);
    assert!(sends.iter().all(|span| tree.parent(span).is_some_and(|parent| parent.name == process)));
    assert!(tree.find_all(&format!("abort {}", world.orders)).is_empty());
    assert!(tree.find_all(&format!("commit {}", world.orders)).is_empty(), "SPAN-32: a plain success has no span");
}

/// SPAN-32, SPAN-07: each attempt is a process span, and what takes the failed one back is below it.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_failed_attempt_is_aborted_and_the_trace_shows_it() {
    async fn handle(
        delivery: Delivery,
        publisher: Publisher,
        State(Results(results)): State<Results>,
    ) -> Result<(), PublishError> {
        publisher.publish(results, delivery.attempt().to_string()).await?;
        if delivery.attempt() == 1 {
            return Err(PublishError::new(PublishErrorKind::Other, "_OTHER", "no bread"));
        }
        Ok(())
    }
    let world = World::new("exact-abort", 1).await;
    let capture = Capture::new();
    let app = App::new().subscribe(world.topic(), handle).with_state(Results(world.results.clone()));
    let running = world.serve(app, &capture).await;
    world.publish(0, ["order".to_owned()]).await;
    world.wait_for(&world.results, 1).await;
    running.shutdown().await.expect("a regular end");
    assert_eq!(world.committed(&world.results).await, ["2"]);
    assert_eq!(world.written(&world.results).await, ["1", "2"], "the first attempt had published");
    assert_eq!(world.offsets().await, [Some(1)]);
    let tree = capture.tree();
    let attempts = tree.find_all(&format!("process {}", world.orders));
    assert_eq!(attempts.len(), 2, "{tree}");
    let abort = tree.find(&format!("abort {}", world.orders));
    let failed = tree.parent(abort).expect("the attempt");
    assert!(matches!(failed.status, Status::Error { .. }), "{tree}");
    assert_eq!(abort.span_kind, SpanKind::Client);
    assert_eq!(attribute(abort, "messaging.operation.type"), Some(&"settle".into()));
    assert_eq!(attribute(abort, "messaging.operation.name"), Some(&"abort".into()));
    assert_eq!(attribute(abort, "messaging.destination.partition.id"), Some(&"0".into()), "ATTR-K-02");
    assert_eq!(attribute(abort, "messaging.kafka.offset"), Some(&0.into()), "ATTR-K-05");
    assert_eq!(attribute(abort, "messaging.consumer.group.name"), Some(&world.orders.clone().into()), "ATTR-K-03");
    assert_eq!((attribute(abort, "error.type"), &abort.status), (None, &Status::Unset));
    for (attempt, sent) in attempts.iter().zip(tree.find_all(&format!("send {}", world.results))) {
        assert_eq!(tree.parent(sent).map(|parent| parent.span_context.span_id()), Some(attempt.span_context.span_id()));
    }
}

/// Every commit can have a span; it says which message it was (SPAN-32, ATTR-K-05).
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_commit_can_have_a_span() {
    async fn handle(order: String) -> String {
        order
    }
    let world = World::new("exact-commit", 1).await;
    let capture = Capture::new();
    let telemetry = capture.instrumentation().settle_spans(SettleSpans::Always).build();
    let app = App::new().subscribe(world.topic(), handle.reply_to(world.results.as_str())).telemetry(telemetry);
    let kafka = Kafka::connect(world.url.as_str()).await.expect("a connection");
    let running = serve(kafka, app).start().await.expect("the app starts");
    world.publish(0, ids(0..2)).await;
    world.wait_for(&world.results, 2).await;
    running.shutdown().await.expect("a regular end");
    let tree = capture.tree();
    let commits = tree.find_all(&format!("commit {}", world.orders));
    let offsets: Vec<_> = commits.iter().map(|span| attribute(span, "messaging.kafka.offset").cloned()).collect();
    assert_eq!(offsets, [Some(0.into()), Some(1.into())]);
    let process = format!("process {}", world.orders);
    assert!(commits.iter().all(|span| tree.parent(span).is_some_and(|parent| parent.name == process)));
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn attempts_in_place_publish_once() {
    async fn handle(delivery: Delivery, publisher: Publisher, State(Results(results)): State<Results>) -> Failed {
        publisher.publish(results, delivery.attempt().to_string()).await.map_err(|_| std::fmt::Error)?;
        if delivery.attempt() < 3 { Err(std::fmt::Error) } else { Ok("done".to_owned()) }
    }
    let world = World::new("exact-place", 1).await;
    let capture = Capture::new();
    let route = handle.reply_to(world.results.as_str()).middleware(Retry::new(soon()));
    let app = App::new().subscribe(world.topic(), route).with_state(Results(world.results.clone()));
    let running = world.serve(app, &capture).await;
    world.publish(0, ["order".to_owned()]).await;
    world.wait_for(&world.results, 2).await;
    running.shutdown().await.expect("a regular end");
    assert_eq!(world.committed(&world.results).await, ["3", "done"]);
    assert_eq!(world.written(&world.results).await, ["1", "2", "3", "done"], "each attempt had published");
    let tree = capture.tree();
    assert_eq!((tree.find_all("retry").len(), tree.find_all(&format!("process {}", world.orders)).len()), (2, 1));
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_dead_letter_takes_back_what_the_attempts_published() {
    async fn handle(order: String, publisher: Publisher, State(Results(results)): State<Results>) -> Failed {
        publisher.publish(results, order.clone()).await.map_err(|_| std::fmt::Error)?;
        if order == "bad" { Err(std::fmt::Error) } else { Ok("done".to_owned()) }
    }
    let world = World::new("exact-dead", 1).await;
    let capture = Capture::new();
    let route = handle
        .reply_to(world.results.as_str())
        .middleware(Retry::new(soon().attempts(3)))
        .dead_letter(world.dead.as_str());
    let app = App::new().subscribe(world.topic(), route).with_state(Results(world.results.clone()));
    let running = world.serve(app, &capture).await;
    world.publish(0, ["bad", "good"].map(str::to_owned)).await;
    world.wait_for(&world.results, 2).await;
    running.shutdown().await.expect("a regular end");
    assert_eq!(world.committed(&world.results).await, ["good", "done"]);
    assert_eq!(world.committed(&world.dead).await, ["bad"]);
    assert_eq!(world.written(&world.results).await, ["bad", "bad", "bad", "good", "done"]);
    assert_eq!(world.offsets().await, [Some(2)]);
    let tree = capture.tree();
    let dead = tree.find(&format!("send {}", world.dead));
    assert_eq!(tree.parent(dead).map(|span| span.name.as_ref()), Some(format!("process {}", world.orders).as_str()));
}

/// Without a dead letter the message is skipped, and nothing of it stays.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_rejected_message_leaves_nothing_but_its_offset() {
    async fn handle(order: String, publisher: Publisher, State(Results(results)): State<Results>) -> Settlement {
        publisher.publish(results, order.clone()).await.expect("it is published");
        if order == "bad" { Settlement::reject("closed") } else { Settlement::Ack }
    }
    let world = World::new("exact-reject", 1).await;
    let capture = Capture::new();
    let app = App::new().subscribe(world.topic(), handle).with_state(Results(world.results.clone()));
    let running = world.serve(app, &capture).await;
    world.publish(0, ["bad", "good"].map(str::to_owned)).await;
    world.wait_for(&world.results, 1).await;
    running.shutdown().await.expect("a regular end");
    assert_eq!(world.committed(&world.results).await, ["good"]);
    assert_eq!(world.written(&world.results).await, ["bad", "good"]);
    assert_eq!(world.offsets().await, [Some(2)]);
    let commit = capture.tree().find(&format!("commit {}", world.orders)).clone();
    assert_eq!(attribute(&commit, "messaging.kafka.offset"), Some(&0.into()));
}

/// A handler that is dropped at the end takes what it published with it, and the next start handles the message again.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_handler_that_is_dropped_at_shutdown_has_published_nothing() {
    #[derive(Clone)]
    struct Told(Results, mpsc::UnboundedSender<()>, bool);
    async fn handle(order: String, publisher: Publisher, State(told): State<Told>) {
        publisher.publish(told.0.0, order).await.expect("it is published");
        told.1.send(()).expect("the test waits");
        if told.2 {
            std::future::pending::<()>().await;
        }
    }
    let world = World::new("exact-drop", 1).await;
    world.publish(0, ["order".to_owned()]).await;
    for hangs in [true, false] {
        let (told, mut published) = mpsc::unbounded_channel();
        let app = App::new()
            .subscribe(world.topic(), handle)
            .with_state(Told(Results(world.results.clone()), told, hangs))
            .without_telemetry();
        let kafka = Kafka::connect(world.url.as_str()).await.expect("a connection");
        let running = serve(kafka, app).shutdown_timeout(Duration::from_secs(5)).start().await.expect("the app starts");
        timeout(PATIENCE, published.recv()).await.expect("it is handled in time").expect("it is handled");
        if !hangs {
            world.wait_for(&world.results, 1).await;
        }
        running.shutdown().await.expect("a regular end");
        assert_eq!(world.offsets().await, [(!hangs).then_some(1)]);
        // The end of the topic is there at once: nothing is left open.
        assert_eq!(world.committed(&world.results).await.len(), usize::from(!hangs));
    }
    assert_eq!(world.written(&world.results).await.len(), 2);
}

/// What a task publishes after its message was settled would be part of nobody's transaction.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_task_that_outlives_its_handler_cannot_publish() {
    #[derive(Clone)]
    struct Later(Results, watch::Receiver<bool>, mpsc::UnboundedSender<Result<(), PublishError>>);
    async fn handle(order: String, publisher: Publisher, State(later): State<Later>) -> String {
        let Later(Results(results), mut may, answers) = later;
        tokio::spawn(async move {
            may.wait_for(|may| *may).await.expect("the test goes on");
            let published = publisher.publish(results, "late").await.map(drop);
            answers.send(published).expect("the test waits");
        });
        order
    }
    let world = World::new("exact-late", 1).await;
    let (go, may) = watch::channel(false);
    let (answers, mut answered) = mpsc::unbounded_channel();
    let route = handle.reply_to(world.results.as_str());
    let app =
        App::new().subscribe(world.topic(), route).with_state(Later(Results(world.results.clone()), may, answers));
    let running = world.serve(app, &Capture::new()).await;
    world.publish(0, ["order".to_owned()]).await;
    world.wait_for(&world.results, 1).await;
    go.send_replace(true);
    let error = timeout(PATIENCE, answered.recv()).await.expect("an answer in time").expect("an answer").unwrap_err();
    assert_eq!((error.kind(), error.error_type()), (PublishErrorKind::Unavailable, "no_transaction"));
    running.shutdown().await.expect("a regular end");
    assert_eq!(world.committed(&world.results).await, ["order"]);
}

/// The place of a new group is kept before its first message, so that a restart misses nothing.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_group_that_begins_at_the_end_keeps_its_place_from_the_start() {
    async fn handle(order: String) -> String {
        order
    }
    let world = World::new("exact-latest", 2).await;
    world.publish(1, ["before".to_owned()]).await;
    let app = || {
        let topic = world.topic().start(StartPosition::Latest);
        App::new().subscribe(topic, handle.reply_to(world.results.as_str()))
    };
    let capture = Capture::new();
    world.serve(app(), &capture).await.shutdown().await.expect("a regular end");
    assert_eq!(world.offsets().await, [Some(0), Some(1)]);
    world.publish(1, ["between".to_owned()]).await;
    let running = world.serve(app(), &capture).await;
    world.wait_for(&world.results, 1).await;
    running.shutdown().await.expect("a regular end");
    assert_eq!(world.committed(&world.results).await, ["between"]);
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn what_cannot_be_exactly_once_is_refused_at_the_start() {
    async fn handle(_order: String) {}
    let world = World::new("exact-refused", 1).await;
    let kafka = Kafka::connect(world.url.as_str()).await.expect("a connection");
    for topic in [
        Topic::new(world.orders.as_str()).exactly_once("alone"),
        world.topic().exactly_once(""),
        world.topic().isolation(Isolation::ReadUncommitted),
        world.topic().property("transactional.id", "another"),
        world.topic().property("enable.idempotence", "false"),
    ] {
        let error = serve(kafka.clone(), App::new().subscribe(topic, handle)).start().await.unwrap_err();
        assert_eq!(error.kind(), ServeErrorKind::Configuration);
        assert_eq!(error.broker_error().map(|error| error.kind()), Some(BrokerErrorKind::Configuration));
    }
    assert_eq!(sorted(world.written(&world.results).await), [""; 0]);
}

/// Two subscriptions with one id would end each other while they work: the second is refused instead.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn an_id_that_another_subscription_has_is_refused_at_the_start() {
    async fn handle(order: String) -> String {
        order
    }
    let world = World::new("exact-twice", 1).await;
    let kafka = Kafka::connect(world.url.as_str()).await.expect("a connection");
    let one = || App::new().subscribe(world.topic(), handle.reply_to(world.results.as_str()));
    let two =
        one().subscribe(Topic::new(world.dead.as_str()).group("other").exactly_once(world.orders.as_str()), handle);
    let error = serve(kafka.clone(), two.without_telemetry()).start().await.unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::Configuration);
    let cause = error.broker_error().expect("the reason");
    assert_eq!(cause.kind(), BrokerErrorKind::Configuration);
    assert!(cause.to_string().contains(&format!("`{}`", world.orders)), "{cause}");
    // The subscription that had the id is gone, and gives it back.
    let running = serve(kafka, one().without_telemetry()).start().await.expect("the id is free");
    world.publish(0, ["order".to_owned()]).await;
    world.wait_for(&world.results, 1).await;
    running.shutdown().await.expect("a regular end");
}
