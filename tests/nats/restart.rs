//! A server that goes away and comes back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline_core::middleware::TelemetryMiddleware;
use throughline_core::serve::Running;
use throughline_core::{App, Delivery, Handler, Publisher, serve};
use throughline_nats::{Nats, Stream, Subject};
use throughline_testing::Capture;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::server::{self, OwnServer};
use crate::witness::wait_until_async;

const MESSAGES: usize = 3000;

/// How long everything may take, with two restarts.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which messages were handled, and how often.
#[derive(Clone)]
struct Handled {
    counts: Arc<Mutex<BTreeMap<usize, usize>>>,
    distinct: Arc<watch::Sender<usize>>,
}

impl Handled {
    fn new() -> Self {
        Self { counts: Arc::default(), distinct: Arc::new(watch::channel(0).0) }
    }

    fn add(&self, delivery: &Delivery) {
        let text = std::str::from_utf8(delivery.payload()).expect("a number");
        let mut counts = self.counts.lock().expect("no handler panicked");
        *counts.entry(text.parse().expect("a number")).or_default() += 1;
        self.distinct.send_replace(counts.len());
    }

    async fn reach(&self, count: usize) {
        let mut distinct = self.distinct.subscribe();
        let reached = timeout(PATIENCE, distinct.wait_for(|distinct| *distinct >= count)).await.is_ok();
        let now = *self.distinct.borrow();
        assert!(reached, "{now} of {count} messages were handled within {PATIENCE:?}");
    }

    fn missing(&self, of: usize) -> Vec<usize> {
        let counts = self.counts.lock().expect("no handler panicked");
        (0..of).filter(|number| !counts.contains_key(number)).collect()
    }
}

async fn connect(server: &OwnServer) -> Nats {
    Nats::connect_with(server.url(), server::options()).await.expect("a connection to the server of the test")
}

async fn start(server: &OwnServer, capture: &Capture, app: App) -> Running {
    let telemetry = TelemetryMiddleware::from(capture.instrumentation().build());
    serve(connect(server).await, app.telemetry(telemetry)).start().await.expect("the app starts")
}

/// Publishes until the broker has confirmed it, as a service that must not lose anything does.
async fn publish_until_confirmed(publisher: &Publisher, subject: &'static str, number: usize) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = publisher.publish(subject, number.to_string()).id(format!("m{number}")).await {
        assert!(Instant::now() < deadline, "message {number} is not confirmed: {error}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn nothing_is_lost_when_the_server_restarts_during_jetstream_consumption() {
    let mut server = OwnServer::start("restart").await;
    let (capture, handled) = (Capture::new(), Handled::new());
    let seen = handled.clone();
    let handle = move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            seen.add(&delivery);
            // A little work, so that the server goes away in the middle of it.
            sleep(Duration::from_micros(200)).await;
        }
    };
    let stream = Stream::new("ORDERS").subjects(["orders.>"]).durable("stock").filter("orders.placed");
    let route = Handler::<(Delivery,), ()>::concurrency(handle, 8);
    let running = start(&server, &capture, App::new().subscribe(stream.ack_wait(Duration::from_secs(2)), route)).await;
    let publisher = Publisher::new(&connect(&server).await.publish_to_streams()).without_telemetry();
    let publishing = tokio::spawn(async move {
        for number in 0..MESSAGES {
            publish_until_confirmed(&publisher, "orders.placed", number).await;
        }
    });

    for reached in [MESSAGES / 6, MESSAGES / 2] {
        handled.reach(reached).await;
        server.kill().await;
        server.run().await;
    }

    timeout(PATIENCE, publishing).await.expect("everything is published in time").expect("everything is published");
    handled.reach(MESSAGES).await;
    assert_eq!(handled.missing(MESSAGES), Vec::<usize>::new(), "these were lost");
    running.shutdown().await.expect("the app stops");
    let failed = capture.spans().iter().filter(|span| span.name.starts_with("process")).count();
    assert!(failed >= MESSAGES, "each delivery has its span");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_core_subscription_goes_on_after_the_server_has_restarted() {
    let mut server = OwnServer::start("reconnect").await;
    let (capture, handled) = (Capture::new(), Handled::new());
    let seen = handled.clone();
    let handle = move |delivery: Delivery| {
        let seen = seen.clone();
        async move { seen.add(&delivery) }
    };
    let running = start(&server, &capture, App::new().subscribe(Subject::new("orders"), handle)).await;
    let publisher = Publisher::new(&connect(&server).await).without_telemetry();
    publish_until_confirmed(&publisher, "orders", 0).await;
    handled.reach(1).await;

    server.kill().await;
    server.run().await;

    // At most once: what is sent before both are connected again is gone, so it is sent until one arrives.
    let arrived = async {
        for number in 1.. {
            publish_until_confirmed(&publisher, "orders", number).await;
            if *handled.distinct.borrow() > 1 {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, arrived).await.expect("a message arrives after the restart");
    running.shutdown().await.expect("the app stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn an_idle_consumer_asks_for_many_messages_after_two_restarts() {
    let mut server = OwnServer::start("restart-idle").await;
    let (capture, gate) = (Capture::new(), Arc::new(Semaphore::new(0)));
    let handled = Arc::new(AtomicUsize::new(0));
    let (wait, count) = (Arc::clone(&gate), Arc::clone(&handled));
    let handle = move |_: Delivery| {
        let (wait, count) = (Arc::clone(&wait), Arc::clone(&count));
        async move {
            wait.acquire().await.expect("the gate stays").forget();
            count.fetch_add(1, Ordering::SeqCst);
        }
    };
    let stream = Stream::new("ORDERS").subjects(["orders.>"]).durable("stock").filter("orders.placed");
    let running = start(&server, &capture, App::new().subscribe(stream, handle)).await;
    let client = connect(&server).await;
    let publisher = Publisher::new(&client.clone().publish_to_streams()).without_telemetry();
    publish_until_confirmed(&publisher, "orders.placed", 0).await;
    gate.add_permits(1);
    let is_settled = async || pending(&client).await == Some(0) && handled.load(Ordering::SeqCst) == 1;
    wait_until_async("the consumer is idle", is_settled).await;

    for _ in 0..2 {
        let connects = client.client().statistics().connects.load(Ordering::Relaxed);
        server.kill().await;
        server.run().await;
        let is_back = async || {
            client.client().statistics().connects.load(Ordering::Relaxed) > connects && pending(&client).await.is_some()
        };
        wait_until_async("the server is back", is_back).await;
    }

    for number in 1..200 {
        publish_until_confirmed(&publisher, "orders.placed", number).await;
    }
    // The handlers take none: as many are under way as the consumer asked for.
    let many = async || pending(&client).await.is_some_and(|pending| pending >= 32);
    wait_until_async("many messages are under way", many).await;
    gate.add_permits(1000);
    running.shutdown().await.expect("the app stops");
}

/// How many messages the consumer has delivered and not seen settled.
async fn pending(nats: &Nats) -> Option<usize> {
    let stream = nats.jetstream().get_stream("ORDERS").await.ok()?;
    Some(stream.consumer_info("stock").await.ok()?.num_ack_pending)
}
