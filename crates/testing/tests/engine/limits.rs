//! A broker that delivers a message only so often: its last delivery is the last attempt (design, section 5).

use std::future::pending;
use std::time::Duration;

use throughline_core::broker::Subscription;
use throughline_core::extract::{Batch, State};
use throughline_core::middleware::Retry;
use throughline_core::{App, Handler, IntoRoute, RetryPolicy, Settlement, serve};
use throughline_memory::{Channel, Memory, SettledMessage};
use throughline_testing::{AppTest, Capture, attribute, start};
use tokio::sync::mpsc;

use crate::support::{point, points};

const LIMIT: u32 = 3;
const LONG: Duration = Duration::from_secs(3600);

fn limited(channel: Channel) -> Subscription {
    Subscription::from(channel).with_delivery_limit(LIMIT)
}

async fn run<Args>(handler: impl IntoRoute<Args, ()>) -> (AppTest, Vec<Settlement>) {
    let test = start(App::new().subscribe(limited(Channel::new("orders")), handler)).await;
    test.publish("orders", "42").await;
    test.broker().settled_within(LIMIT as usize, LONG).await.unwrap();
    test.settle().await;
    // The others are those of the test itself, which sees all messages.
    let failed = |settlement: &Settlement| *settlement != Settlement::Ack;
    let settled = test.broker().settled().into_iter().map(|settled| settled.settlement).filter(failed).collect();
    (test, settled)
}

async fn fail(_order: String) -> Result<(), std::fmt::Error> {
    Err(std::fmt::Error)
}

async fn again(_order: String) -> Settlement {
    Settlement::retry_after(Duration::from_secs(1))
}

fn settled_as(test: &AppTest, how: &str) -> f64 {
    points(test.capture(), "throughline.settled.messages", &[("throughline.settlement", how)])
        .iter()
        .map(|point| point.sum)
        .sum()
}

#[tokio::test(start_paused = true)]
async fn the_brokers_last_delivery_ends_in_the_dead_letter() {
    let (test, settled) = run(fail.dead_letter("dead")).await;
    assert_eq!(test.next::<String>("dead").await, "42");
    assert!(matches!(settled.as_slice(), [Settlement::Retry { .. }, Settlement::Retry { .. }]), "{settled:?}");
    assert_eq!((settled_as(&test, "dead_letter"), settled_as(&test, "retry")), (1.0, 2.0));
}

#[tokio::test(start_paused = true)]
async fn without_a_dead_letter_it_is_rejected_with_its_error() {
    let (test, settled) = run(fail).await;
    assert!(matches!(settled.as_slice(), [_, _, Settlement::Reject { .. }]), "{settled:?}");
    assert_eq!(point(test.capture(), "throughline.settled.messages", &[("throughline.settlement", "reject")]).sum, 1.0);
    let tree = test.capture().tree();
    assert!(tree.find_all("process orders").iter().all(|span| attribute(span, "error.type").is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_the_handler_asks_for_is_not_lost_either() {
    let (test, settled) = run(again.dead_letter("dead")).await;
    assert_eq!(test.next::<String>("dead").await, "42");
    assert_eq!(settled.len(), 2, "{settled:?}");
    let (_, settled) = run(again).await;
    assert!(matches!(settled.as_slice(), [_, _, Settlement::Reject { .. }]), "{settled:?}");
}

#[tokio::test(start_paused = true)]
async fn retries_in_place_go_on_beyond_it() {
    let retry = Retry::new(RetryPolicy::new().first_delay(Duration::from_millis(1)).attempts(8));
    let test =
        start(App::new().subscribe(limited(Channel::new("orders")), fail.middleware(retry).dead_letter("dead"))).await;
    test.publish("orders", "42").await;
    assert_eq!(test.next::<String>("dead").await, "42");
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_each_message_has_its_own_limit() {
    async fn handle(batch: Batch<String>) {
        for message in batch {
            let is_bad = message.body() == "bad";
            message.run(async |_| if is_bad { Err(std::fmt::Error) } else { Ok(()) }).await;
        }
    }
    let orders = limited(Channel::new("orders").batch(2, Duration::from_secs(1)));
    let test = start(App::new().subscribe(orders, handle.dead_letter("dead"))).await;
    test.publisher().publish_batch("orders", ["bad", "good"]).await.unwrap();
    assert_eq!(test.next::<String>("dead").await, "bad");
    test.settle().await;
    assert_eq!(
        (settled_as(&test, "ack"), settled_as(&test, "retry"), settled_as(&test, "dead_letter")),
        (1.0, 2.0, 1.0)
    );
}

/// Handlers that never end, with an app that has a short time for its end. Returns what the broker was told.
async fn aborted(dead_letter: bool, capture: Option<&Capture>) -> (Memory, Vec<SettledMessage>) {
    async fn hang(_order: String, State(begun): State<mpsc::UnboundedSender<()>>) {
        begun.send(()).unwrap();
        pending().await
    }
    let (begun, mut begins) = mpsc::unbounded_channel();
    let memory = Memory::recording();
    let route = if dead_letter { hang.dead_letter("dead") } else { hang.into_route() };
    let once = Subscription::from(Channel::new("orders").group("stock")).with_delivery_limit(1);
    let app = App::new().subscribe(once, route).with_state(begun);
    let app = match capture {
        Some(capture) => app.telemetry(capture.instrumentation().build()),
        None => app.without_telemetry(),
    };
    let running = serve(memory.clone(), app).shutdown_timeout(Duration::from_secs(5)).start().await.unwrap();
    memory.publisher().without_telemetry().publish("orders", "42").await.unwrap();
    begins.recv().await.unwrap();
    running.shutdown().await.unwrap();
    let settled = memory.settled();
    (memory, settled)
}

/// A shutdown that drops the handler of a last delivery does not lose the message.
#[tokio::test(start_paused = true)]
async fn a_dropped_handler_of_a_last_delivery_leaves_a_dead_letter() {
    let capture = Capture::new();
    let (_, settled) = aborted(true, Some(&capture)).await;
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].settlement, Settlement::Ack);
    assert_eq!(capture.tree().find_all("publish dead").len(), 1);
    assert_eq!(point(&capture, "throughline.settled.messages", &[("throughline.settlement", "dead_letter")]).sum, 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handler_of_a_last_delivery_is_a_rejection_with_its_error() {
    let capture = Capture::new();
    let (_, settled) = aborted(false, Some(&capture)).await;
    assert!(matches!(settled[0].settlement, Settlement::Reject { .. }), "{settled:?}");
    let tree = capture.tree();
    let kind = attribute(tree.find("process orders"), "error.type").map(|kind| kind.as_str().into_owned());
    assert_eq!(kind.as_deref(), Some("cancelled"));
}

/// Where nothing stands around the handler, too.
#[tokio::test(start_paused = true)]
async fn without_telemetry_a_dropped_handler_of_a_last_delivery_is_a_rejection() {
    let (_, settled) = aborted(false, None).await;
    assert!(
        matches!(settled.as_slice(), [settled] if matches!(settled.settlement, Settlement::Reject { .. })),
        "{settled:?}"
    );
}
