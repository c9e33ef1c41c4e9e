//! Messages that wait in a retry topic: they go there, and come from there, in a transaction.

use std::time::Duration;

use opentelemetry::trace::Status;
use throughline_core::extract::{Batch, State};
use throughline_core::{App, Delivery, Publisher};
use throughline_testing::Capture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Results;
use super::world::{World, ids};
use crate::load;
use crate::topics::create;

const DELAY: Duration = Duration::from_millis(500);

/// Creates the one retry topic and returns its name.
async fn retry_topic(world: &World) -> String {
    let name = format!("{0}.{0}.retry.1", world.orders);
    create(&world.url, &name, 1).await;
    name
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_goes_to_its_retry_topic_in_the_transaction() {
    async fn handle(
        delivery: Delivery,
        publisher: Publisher,
        State(Results(results)): State<Results>,
    ) -> Result<(), std::fmt::Error> {
        let body = String::from_utf8_lossy(delivery.payload()).into_owned();
        let result = format!("{body} {}", delivery.attempt());
        publisher.publish(results, result).await.map_err(|_| std::fmt::Error)?;
        if body == "bad" && delivery.attempt() == 1 { Err(std::fmt::Error) } else { Ok(()) }
    }
    let world = World::new("exact-retry", 1).await;
    let waits = retry_topic(&world).await;
    let capture = Capture::new();
    let topic = world.topic().retry_topics([DELAY]);
    let app = App::new().subscribe(topic, handle).with_state(Results(world.results.clone()));
    world.publish(0, ["bad", "good"].map(str::to_owned)).await;
    let running = world.serve(app, &capture).await;
    world.wait_for(&world.results, 2).await;
    running.shutdown().await.expect("a regular end");
    assert_eq!(world.committed(&world.results).await, ["good 1", "bad 2"]);
    assert_eq!(world.written(&world.results).await, ["bad 1", "good 1", "bad 2"], "the failed attempt had published");
    assert_eq!(world.committed(&waits).await, ["bad"]);
    assert_eq!(world.offsets().await, [Some(2)]);
    assert_eq!(load::committed(&world.url, &world.orders, &waits, 1).await, [1]);
    let tree = capture.tree();
    let forward = tree.find(&format!("send {waits}"));
    let failed = tree.parent(forward).expect("the attempt");
    assert_eq!(failed.name, format!("process {}", world.orders));
    assert!(matches!(failed.status, Status::Error { .. }), "{tree}");
    // Under the name of the topic it was published to.
    let again = tree.find_all(&failed.name).into_iter();
    let again = again.filter(|span| tree.parent(span).is_some_and(|parent| parent.name == forward.name));
    assert_eq!(again.count(), 1, "{tree}");
}

/// A batch that is taken back is no attempt of the messages in it: the one that failed still waits once before it is given up.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_of_a_batch_waits_as_often_as_one_that_came_alone() {
    #[derive(Clone)]
    struct Seen(mpsc::UnboundedSender<(bool, Instant)>);
    async fn handle(batch: Batch<String>, State(Seen(seen)): State<Seen>) {
        for message in batch {
            let waited = message.delivery().destination().ends_with(".retry.1");
            let seen = seen.clone();
            let try_it = async move |order: String| {
                if order != "00001" {
                    return Ok(order);
                }
                seen.send((waited, Instant::now())).expect("the test waits");
                if waited { Ok(order) } else { Err(std::fmt::Error) }
            };
            message.run(try_it).await;
        }
    }
    let world = World::new("exact-retry-batch", 1).await;
    let waits = retry_topic(&world).await;
    world.publish(0, ids(0..3)).await;
    let (seen, mut handled) = mpsc::unbounded_channel();
    let capture = Capture::new();
    let topic = world.topic().batch(3, Duration::from_millis(200)).retry_topics([DELAY]);
    let route =
        throughline_core::Handler::<(Batch<String>, State<Seen>), Seen>::reply_to(handle, world.results.as_str());
    let app = App::new().subscribe(topic, route).with_state(Seen(seen));
    let running = world.serve(app, &capture).await;
    world.wait_for(&world.results, 3).await;
    running.shutdown().await.expect("a regular end");
    assert_eq!(world.committed(&world.results).await, ["00000", "00002", "00001"]);
    assert_eq!(world.committed(&waits).await, ["00001"]);
    let mut attempts = Vec::new();
    while let Ok(attempt) = handled.try_recv() {
        attempts.push(attempt);
    }
    let [.., (false, failed), (true, waited)] = attempts[..] else { panic!("it did not wait once: {attempts:?}") };
    assert!(waited.duration_since(failed) >= DELAY);
    assert_eq!(world.offsets().await, [Some(3)]);
}
