//! Batches: one transaction for all of their messages, and one for each when one of them fails.

use std::time::Duration;

use throughline_core::extract::{Batch, State};
use throughline_core::{App, Delivery, Handler, Publisher};
use throughline_testing::{Capture, attribute};
use tokio::sync::mpsc;

use super::Results;
use super::world::{World, ids, sorted};

const WAIT: Duration = Duration::from_millis(200);

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_batch_is_one_transaction_over_all_its_partitions() {
    async fn handle(batch: Batch<String>, publisher: Publisher, State(Results(results)): State<Results>) {
        let bodies: Vec<String> = batch.iter().map(|message| message.body().clone()).collect();
        publisher.publish_batch(results, bodies).await.expect("they are published");
    }
    let world = World::new("exact-batch", 3).await;
    for (partition, from) in [(0, 0), (1, 30), (2, 60)] {
        world.publish(partition, ids(from..from + 30)).await;
    }
    let capture = Capture::new();
    let app = App::new().subscribe(world.topic().batch(50, WAIT), handle).with_state(Results(world.results.clone()));
    let running = world.serve(app, &capture).await;
    world.wait_for(&world.results, 90).await;
    running.shutdown().await.expect("a regular end");
    assert_eq!(sorted(world.committed(&world.results).await), ids(0..90));
    assert_eq!(world.offsets().await, [Some(30); 3]);
    let tree = capture.tree();
    let mut counts: Vec<i64> = Vec::new();
    for span in tree.find_all(&format!("process {}", world.orders)) {
        match attribute(span, "messaging.batch.message_count") {
            Some(opentelemetry::Value::I64(count)) => counts.push(*count),
            other => panic!("no count: {other:?}"),
        }
    }
    assert_eq!(counts.iter().sum::<i64>(), 90);
    assert!(counts.iter().all(|count| *count <= 50), "{counts:?}");
}

/// A message that always fails keeps nobody of its batch from being handled, once.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_poison_message_is_isolated() {
    #[derive(Clone)]
    struct Seen(mpsc::UnboundedSender<(usize, String, u32)>);
    async fn handle(batch: Batch<String>, State(Seen(seen)): State<Seen>) {
        let size = batch.len();
        for message in batch {
            let attempt = message.delivery().attempt();
            seen.send((size, message.body().clone(), attempt)).expect("the test waits");
            let bury = |order: String| {
                if order == "00004" { Err(throughline_core::Settlement::reject("bad")) } else { Ok(order) }
            };
            message.run(async |order| bury(order)).await;
        }
    }
    let world = World::new("exact-poison", 1).await;
    world.publish(0, ids(0..10)).await;
    let (seen, mut handled) = mpsc::unbounded_channel();
    let capture = Capture::new();
    let route = handle.reply_to(world.results.as_str()).dead_letter(world.dead.as_str());
    let app = App::new().subscribe(world.topic().batch(10, WAIT), route).with_state(Seen(seen));
    let running = world.serve(app, &capture).await;
    world.wait_for(&world.results, 9).await;
    running.shutdown().await.expect("a regular end");
    let expected: Vec<String> = ids(0..10).into_iter().filter(|id| id != "00004").collect();
    assert_eq!(world.committed(&world.results).await, expected, "in their order");
    assert_eq!(world.committed(&world.dead).await, ["00004"]);
    assert_eq!(world.offsets().await, [Some(10)]);
    let mut all = Vec::new();
    while let Ok(one) = handled.try_recv() {
        all.push(one);
    }
    let (first, alone): (Vec<_>, Vec<_>) = all.into_iter().partition(|(size, ..)| *size > 1);
    let together: Vec<&str> = first.iter().map(|(_, order, _)| order.as_str()).collect();
    assert!(together.contains(&"00004"), "{together:?}");
    let attempt_of = |order: &str| alone.iter().find(|(_, one, _)| one == order).map(|(.., attempt)| *attempt);
    assert_eq!(attempt_of("00004"), Some(2), "its own attempt failed");
    assert!(alone.iter().all(|(_, order, attempt)| order == "00004" || *attempt == 1), "{alone:?}");
    let tree = capture.tree();
    let abort = tree.find(&format!("abort {}", world.orders));
    assert_eq!(attribute(abort, "messaging.kafka.offset"), Some(&4.into()));
    let batch = tree.parent(abort).expect("the batch");
    assert_eq!(attribute(batch, "messaging.batch.message_count"), Some(&(together.len() as i64).into()));
}

/// A batch that fails as a whole comes again, one by one.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_batch_that_fails_comes_again() {
    async fn handle(
        batch: Batch<String>,
        publisher: Publisher,
        State(Results(results)): State<Results>,
    ) -> Result<(), std::fmt::Error> {
        let first = batch.iter().all(|message| Delivery::attempt(message.delivery()) == 1);
        let bodies: Vec<String> = batch.iter().map(|message| message.body().clone()).collect();
        publisher.publish_batch(results, bodies).await.expect("they are published");
        if first { Err(std::fmt::Error) } else { Ok(()) }
    }
    let world = World::new("exact-again", 1).await;
    world.publish(0, ids(0..5)).await;
    let capture = Capture::new();
    let app = App::new().subscribe(world.topic().batch(5, WAIT), handle).with_state(Results(world.results.clone()));
    let running = world.serve(app, &capture).await;
    world.wait_for(&world.results, 5).await;
    running.shutdown().await.expect("a regular end");
    assert_eq!(world.committed(&world.results).await, ids(0..5));
    assert_eq!(world.offsets().await, [Some(5)]);
}
