//! Several processes of one group: those that take each other's id, and those that share the partitions.

use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::BrokerErrorKind;
use throughline_core::extract::State;
use throughline_core::{App, Handler, ServeErrorKind};
use throughline_testing::Capture;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::world::{World, ids, sorted};
use crate::server::PATIENCE;

async fn handle(order: String) -> String {
    order
}

/// Who takes the id of another one ends it: with an error that says so, and without a result twice.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_second_process_with_the_same_id_ends_the_first() {
    let world = World::new("exact-fence", 2).await;
    let capture = Capture::new();
    let app = || App::new().subscribe(world.topic(), handle.reply_to(world.results.as_str()));
    let first = world.serve(app(), &capture).await;
    for partition in 0..2 {
        world.publish(partition, [format!("before {partition}")]).await;
    }
    world.wait_for(&world.results, 2).await;
    let second = world.serve(app(), &capture).await;
    let ended = tokio::spawn(first.run_until(std::future::pending()));
    // For both, whoever has which partition.
    for partition in 0..2 {
        world.publish(partition, [format!("after {partition}")]).await;
    }
    let error = timeout(PATIENCE, ended).await.expect("it ends in time").expect("it does not panic").unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::Ended);
    let cause = error.broker_error().expect("the reason");
    assert_eq!((cause.kind(), cause.error_type()), (BrokerErrorKind::Ended, "PRODUCER_FENCED"), "{cause}");
    world.wait_for(&world.results, 4).await;
    second.shutdown().await.expect("a regular end");
    let expected = ["after 0", "after 1", "before 0", "before 1"].map(str::to_owned);
    assert_eq!(sorted(world.committed(&world.results).await), expected);
}

/// Partitions that go to another member take no message along that is in a transaction, and leave none behind.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_rebalance_in_the_middle_loses_and_doubles_nothing() {
    const EACH: usize = 150;
    let world = World::new("exact-move", 4).await;
    for partition in 0..4 {
        let from = partition * EACH;
        world.publish(partition as i32, ids(from..from + EACH)).await;
    }
    let capture = Capture::new();
    let app = |id: &str| {
        let topic = world.topic().exactly_once(format!("{}-{id}", world.orders));
        App::new().subscribe(topic, handle.reply_to(world.results.as_str()))
    };
    let first = world.serve(app("a"), &capture).await;
    world.wait_for(&world.results, 20).await;
    let second = world.serve(app("b"), &capture).await;
    world.wait_for(&world.results, EACH).await;
    first.shutdown().await.expect("a regular end");
    world.wait_for(&world.results, 4 * EACH).await;
    second.shutdown().await.expect("a regular end");
    assert_eq!(sorted(world.committed(&world.results).await), ids(0..4 * EACH));
    assert_eq!(world.offsets().await, [Some(EACH as i64); 4]);
}

/// A partition that goes while its message is being handled waits for it.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_that_is_being_handled_is_committed_before_its_partition_goes() {
    #[derive(Clone)]
    struct Gate(mpsc::UnboundedSender<String>, Arc<Semaphore>);
    async fn slow(order: String, State(Gate(begun, may)): State<Gate>) -> String {
        begun.send(order.clone()).expect("the test waits");
        may.acquire().await.expect("never closed").forget();
        order
    }
    let world = World::new("exact-drain", 2).await;
    let (begun, mut handling) = mpsc::unbounded_channel();
    let may = Arc::new(Semaphore::new(0));
    let app = |id: &str| {
        let topic =
            world.topic().exactly_once(format!("{}-{id}", world.orders)).rebalance_timeout(Duration::from_secs(60));
        App::new()
            .subscribe(topic, slow.reply_to(world.results.as_str()))
            .with_state(Gate(begun.clone(), Arc::clone(&may)))
    };
    let capture = Capture::new();
    let first = world.serve(app("a"), &capture).await;
    for partition in 0..2 {
        world.publish(partition, [format!("{partition}")]).await;
    }
    timeout(PATIENCE, handling.recv()).await.expect("one is handled in time").expect("one is handled");
    // Its start waits for the group, which waits for the handler where its partition is to go.
    let other = {
        let (world, app) = (world.clone(), app("b"));
        tokio::spawn(async move { world.serve(app, &Capture::new()).await })
    };
    may.add_permits(2);
    let second = timeout(PATIENCE, other).await.expect("it starts in time").expect("it starts");
    world.wait_for(&world.results, 2).await;
    first.shutdown().await.expect("a regular end");
    second.shutdown().await.expect("a regular end");
    assert_eq!(sorted(world.committed(&world.results).await), ["0", "1"]);
    assert_eq!(world.offsets().await, [Some(1); 2]);
}
