//! A server that goes away while transactions are open: each result is there once all the same.

use std::time::Duration;

use throughline_core::extract::{Batch, State};
use throughline_core::{App, Handler, PublishError, Publisher};
use throughline_testing::Capture;
use tokio::sync::watch;
use tokio::time::timeout;

use super::world::{World, ids, sorted};
use crate::server::{PATIENCE, Server};

const PARTITIONS: usize = 4;
const EACH: usize = 50;

/// Where results go, and what holds transactions open.
#[derive(Clone)]
struct Work {
    results: String,
    is_closed: watch::Sender<bool>,
    /// How many handlers have published and wait with their transaction open.
    held: watch::Sender<usize>,
}

impl Work {
    /// Waits while the gate is closed: the transaction is open, and has a result in it.
    async fn pass(&self) {
        let mut is_closed = self.is_closed.subscribe();
        if *is_closed.borrow() {
            self.held.send_modify(|held| *held += 1);
            is_closed.wait_for(|is_closed| !*is_closed).await.expect("the test goes on");
            self.held.send_modify(|held| *held -= 1);
        }
    }

    fn close(&self) {
        self.is_closed.send_replace(true);
    }

    /// Returns when both members wait in an open transaction.
    async fn hold_both(&self) {
        let mut held = self.held.subscribe();
        timeout(PATIENCE, held.wait_for(|held| *held == 2)).await.expect("both wait in time").expect("they live");
    }

    fn let_go(&self) {
        self.is_closed.send_replace(false);
    }
}

async fn one(order: String, publisher: Publisher, State(work): State<Work>) -> Result<(), PublishError> {
    publisher.publish(work.results.as_str(), order).await?;
    work.pass().await;
    Ok(())
}

async fn many(batch: Batch<String>, publisher: Publisher, State(work): State<Work>) -> Result<(), PublishError> {
    for message in &batch {
        publisher.publish(work.results.as_str(), message.body().clone()).await?;
    }
    work.pass().await;
    Ok(())
}

/// Two members, one of single messages and one of batches. The server is stopped under their open transactions, which are to be
/// committed while it is away; and it is killed under them, and they are to be committed when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn each_result_is_there_once_although_the_server_is_restarted() {
    let mut server = Server::start("exactly-once").await;
    let world = World::on(server.url(), "exact-restart", PARTITIONS as i32).await;
    let work =
        Work { results: world.results.clone(), is_closed: watch::Sender::new(false), held: watch::Sender::new(0) };
    let topic = |id: &str| {
        let topic = world.topic().exactly_once(format!("{}-{id}", world.orders));
        // Longer than the server may take to start, with transactions that wait for it.
        topic.property("transaction.timeout.ms", "300000").property("session.timeout.ms", "45000")
    };
    let capture = Capture::new();
    let app = App::new().subscribe(topic("one"), one.concurrency(1)).with_state(work.clone());
    let first = world.serve(app, &capture).await;
    let batches = topic("many").batch(5, Duration::from_millis(20));
    let second = world.serve(App::new().subscribe(batches, many).with_state(work.clone()), &capture).await;
    let mut published = 0;
    for is_killed in [false, true] {
        // Closed before there is any work, which is for both, whoever has which partition.
        work.close();
        published = publish(&world, published).await;
        work.hold_both().await;
        if is_killed {
            server.kill().await;
            server.restart().await;
            work.let_go();
        } else {
            server.stop().await;
            work.let_go();
            server.restart().await;
        }
        world.wait_for(&world.results, PARTITIONS * published).await;
    }
    first.shutdown().await.expect("a regular end");
    second.shutdown().await.expect("a regular end");
    assert_eq!(sorted(world.committed(&world.results).await), ids(0..PARTITIONS * published));
    assert_eq!(world.offsets().await, [Some(published as i64); PARTITIONS]);
}

/// Publishes more to each partition, and returns how many each has.
async fn publish(world: &World, each: usize) -> usize {
    for partition in 0..PARTITIONS {
        let from = each * PARTITIONS + partition * EACH;
        world.publish(partition as i32, ids(from..from + EACH)).await;
    }
    each + EACH
}
