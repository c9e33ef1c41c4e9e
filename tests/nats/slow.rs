//! Handlers that are slower than what arrives on core NATS: what is dropped is counted, and said.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use throughline_core::broker::Subscription;
use throughline_core::extract::Batch;
use throughline_core::middleware::TelemetryMiddleware;
use throughline_core::{App, Delivery, serve};
use throughline_nats::{Nats, Subject};
use throughline_testing::Capture;
use tokio::sync::Semaphore;
use tracing::Level;

use crate::server::{self, round_trip};
use crate::witness::{Log, counted, unique, wait_until};

const DROPPED: &str = "throughline.consumer.dropped";
const SENT: u64 = 5000;
const BUFFER: usize = 100;

/// A service whose handler waits until it is let go on.
struct Slow {
    handled: Arc<AtomicU64>,
    gate: Arc<Semaphore>,
    app: App,
}

impl Slow {
    fn new(subscription: Subscription, batch: bool) -> Self {
        let (handled, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let (count, wait) = (Arc::clone(&handled), Arc::clone(&gate));
        let handle = move || {
            let (count, wait) = (Arc::clone(&count), Arc::clone(&wait));
            async move {
                let _ = wait.acquire().await.expect("the gate stays");
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let app = if batch {
            App::new().subscribe(subscription, move |_: Batch<String>| handle())
        } else {
            App::new().subscribe(subscription, move |_: Delivery| handle())
        };
        Self { handled, gate, app }
    }
}

async fn connect() -> Nats {
    Nats::connect_with(server::url(), server::options()).await.expect("a connection to THROUGHLINE_NATS_URL")
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn what_a_slow_service_drops_is_counted_and_said_and_the_rest_is_handled_in_order() {
    let (log, _guard) = Log::capture();
    let (id, capture) = (unique(), Capture::new());
    let slow = Slow::new(Subject::new(format!("{id}.*")).queue_group("stock").buffer(BUFFER).into(), false);
    let telemetry = TelemetryMiddleware::from(capture.instrumentation().build());
    let running = serve(connect().await, slow.app.telemetry(telemetry)).start().await.expect("the app starts");
    let client = connect().await.client();
    for number in 0..SENT {
        client.publish(format!("{id}.{number}"), number.to_string().into()).await.expect("it is sent");
    }
    round_trip(&client).await;

    let template = format!("{id}.*");
    let with = [
        ("messaging.system", "nats"),
        ("messaging.destination.template", template.as_str()),
        ("messaging.consumer.group.name", "stock"),
    ];
    let dropped = || counted(&capture, DROPPED, &with);
    let most = SENT - u64::try_from(BUFFER).expect("a few");
    wait_until("most of them are dropped", || dropped() >= most - 10).await;
    assert!(log.has(Level::WARN, "messages were dropped: they come faster than they are handled"));
    slow.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    wait_until("the rest is handled", || slow.handled.load(Ordering::SeqCst) + dropped() == SENT).await;
    assert!(slow.handled.load(Ordering::SeqCst) >= u64::try_from(BUFFER).expect("a few"));
    running.shutdown().await.expect("the app stops");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn nothing_is_dropped_in_a_burst_that_the_buffer_holds() {
    let (log, _guard) = Log::capture();
    let (id, capture) = (unique(), Capture::new());
    let slow = Slow::new(Subject::new(id.clone()).into(), false);
    let telemetry = TelemetryMiddleware::from(capture.instrumentation().build());
    let running = serve(connect().await, slow.app.telemetry(telemetry)).start().await.expect("the app starts");
    let client = connect().await.client();
    for number in 0..SENT {
        client.publish(id.clone(), number.to_string().into()).await.expect("it is sent");
    }
    round_trip(&client).await;
    slow.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    wait_until("all are handled", || slow.handled.load(Ordering::SeqCst) == SENT).await;
    assert_eq!(counted(&capture, DROPPED, &[]), 0);
    running.shutdown().await.expect("the app stops");
    assert!(!log.has(Level::WARN, "messages were dropped"));
}

/// Nothing else is told of these messages: each is in a line of the log, once.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn what_had_arrived_when_a_service_is_stopped_is_said_to_be_lost() {
    for is_batch in [false, true] {
        let (log, _guard) = Log::capture();
        let (id, capture) = (unique(), Capture::new());
        let subject = Subject::new(id.clone());
        let wanted = if is_batch { subject.batch(64, Duration::from_millis(1)).into() } else { subject.into() };
        let slow = Slow::new(wanted, is_batch);
        let telemetry = TelemetryMiddleware::from(capture.instrumentation().build());
        let nats = connect().await;
        let (receiving, before) = (nats.client(), nats.client().statistics().in_messages.load(Ordering::SeqCst));
        let stopping = serve(nats, slow.app.telemetry(telemetry)).shutdown_timeout(Duration::from_millis(500));
        let running = stopping.start().await.expect("the app starts");
        let client = connect().await.client();
        for number in 0..SENT {
            client.publish(id.clone(), number.to_string().into()).await.expect("it is sent");
        }
        let arrived = || receiving.statistics().in_messages.load(Ordering::SeqCst) >= before + SENT;
        wait_until("all have arrived", arrived).await;
        let _ = running.shutdown().await;
        let handed_out = || log.sum("the app ended before messages were handled; they are lost", "messages");
        let held = || log.sum("the subscription ended before messages that had arrived were handled", "dropped");
        wait_until(&format!("each loss is said, batch: {is_batch}"), || handed_out() + held() >= SENT).await;
        assert_eq!(handed_out() + held(), SENT, "batch: {is_batch}");
        assert_eq!(counted(&capture, DROPPED, &[]), held());
    }
}
