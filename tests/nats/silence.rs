//! A connection on which nothing passes any more, and no end of it is seen: it is given up, and made again.

use std::collections::BTreeSet;
use std::time::Duration;

use throughline_core::broker::Broker;
use throughline_core::serve::HealthState;
use throughline_core::{App, serve};
use throughline_nats::{Nats, Stream, Subject};
use tokio::time::{Instant, timeout};

use crate::server::{self, OwnServer};
use crate::witness::{Handled, MutableDoor, PATIENCE, wait_until};

async fn connect(url: String) -> Nats {
    let options = server::options().ping_interval(Duration::from_millis(300));
    Nats::connect_with(url, options).await.expect("a connection to the server of the test")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_silent_connection_is_made_again_and_nothing_that_was_confirmed_is_lost() {
    let server = OwnServer::start("silence").await;
    let door = MutableDoor::open(&server).await;
    let (core, stored, nats) = (Handled::new(), Handled::new(), connect(door.url()).await.publish_to_streams());
    let stream = Stream::new("ORDERS").subjects(["orders"]).durable("stock").ack_wait(Duration::from_secs(2));
    let app = stored.on(core.app(Subject::new("prices")), stream);
    let running = serve(nats.clone(), app).start().await.expect("the app starts");
    let outside = connect(server.url()).await;
    let publisher = nats.publisher().without_telemetry();
    publisher.publish("orders", "before").id("before").await.expect("it is stored");

    door.mute();
    let mut confirmed = BTreeSet::from(["before".to_owned()]);
    let deadline = Instant::now() + PATIENCE;
    for number in 0..20 {
        let body = format!("during {number}");
        while publisher.publish("orders", body.clone()).id(body.clone()).await.is_err() {
            assert!(Instant::now() < deadline, "publishing works again");
        }
        confirmed.insert(body);
    }
    stored.all(&confirmed.into_iter().collect::<Vec<_>>()).await;
    wait_until("core NATS goes on", || {
        let sent = outside.publisher().without_telemetry();
        tokio::spawn(async move { sent.publish("prices", "after").await.map(drop) });
        core.has("after")
    })
    .await;
    running.shutdown().await.expect("the app stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn the_end_is_over_at_its_deadline_when_the_server_says_nothing_more() {
    let server = OwnServer::start("silent-end").await;
    let door = MutableDoor::open(&server).await;
    // It is not given up meanwhile.
    let options = server::options().ping_interval(Duration::from_secs(600));
    let nats = Nats::connect_with(door.url(), options).await.expect("a connection").publish_to_streams();
    let stream = Stream::new("ORDERS").subjects(["orders"]).durable("stock");
    let mut stored = nats.subscribe(&stream.into()).await.expect("a subscription");
    let mut core = nats.subscribe(&Subject::new("prices").into()).await.expect("a subscription");
    door.mute();

    let deadline = Instant::now() + Duration::from_millis(200);
    let end = async {
        stored.close(deadline).await;
        core.close(deadline).await;
        while core.drain().await.is_some() {}
        let _ = Broker::shutdown(&nats, deadline).await;
    };
    timeout(Duration::from_millis(1500), end).await.expect("no wait of its own is longer than the deadline");
}

/// The connection is there and the server says nothing: only the supervision of the consumer sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_consumer_of_which_nothing_is_heard_is_degraded() {
    let server = OwnServer::start("silent-consumer").await;
    let door = MutableDoor::open(&server).await;
    // It is not given up meanwhile.
    let options = server::options().ping_interval(Duration::from_secs(600));
    let nats = Nats::connect_with(door.url(), options).await.expect("a connection");
    let stream = Stream::new("ORDERS").subjects(["orders"]).durable("stock");
    let service = serve(nats, App::new().subscribe(stream, async |_order: String| ()));
    let health = service.health();
    let running = service.shutdown_timeout(Duration::from_secs(1)).start().await.expect("the app starts");
    let state = || health.subscriptions().first().map(|one| one.state.clone());
    assert_eq!(state(), Some(HealthState::Ready));

    door.mute();
    wait_until("it is degraded", || matches!(state(), Some(HealthState::Degraded(_)))).await;
    assert!(health.is_ready(), "it takes messages");
    drop(running);
}
