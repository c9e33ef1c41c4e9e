//! What a service holds is kept from being delivered again, wherever it waits, and is delivered again when it should be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use throughline_core::extract::Batch;
use throughline_core::{App, Delivery, Handler, Settlement, serve};
use throughline_testing::Capture;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::server::PATIENCE;
use crate::streams::{connect, consumer, durable, stored, stream};
use crate::witness::{counted, wait_until, wait_until_async};

const ACK_WAIT: Duration = Duration::from_secs(1);

const SETTLED: &str = "throughline.settled.messages";

/// SPAN-34: the batch is collected for three times as long as the server waits.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_batch_that_is_collected_for_long_is_not_delivered_again() {
    let (nats, id) = stream().await;
    let (seen, mut batches) = mpsc::unbounded_channel();
    let handle = move |orders: Batch<String>| {
        seen.send(orders.len()).expect("the test waits");
        async {}
    };
    let orders = durable(&id).ack_wait(ACK_WAIT).max_deliver(1).batch(100, 3 * ACK_WAIT);
    let capture = Capture::new();
    let app = App::new().telemetry(capture.instrumentation().build()).subscribe(orders, handle);
    let running = serve(connect().await, app).start().await.expect("the app starts");
    nats.publisher().publish_batch(format!("{id}.orders"), ["1", "2", "3"]).await.expect("they are stored");

    let batch = timeout(PATIENCE, batches.recv()).await.expect("in time").expect("a batch");
    assert_eq!(batch, 3);
    wait_until("they are settled", || counted(&capture, SETTLED, &[("throughline.settlement", "ack")]) == 3).await;
    running.shutdown().await.expect("the app stops");
    let info = consumer(&nats, &id).await;
    assert_eq!((info.num_ack_pending, info.num_redelivered, info.num_pending), (0, 0, 0));
}

/// Waits of a consumer that nobody here made, shorter than a clock can count.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_consumer_that_hardly_waits_is_used_all_the_same() {
    let (nats, id) = stream().await;
    let config = pull::Config {
        durable_name: Some("stock".to_owned()),
        filter_subject: format!("{id}.orders"),
        ack_policy: AckPolicy::Explicit,
        max_deliver: 5,
        backoff: vec![Duration::from_nanos(1), Duration::from_secs(1)],
        ..pull::Config::default()
    };
    let native = nats.jetstream().get_stream(&id).await.expect("the stream");
    native.create_consumer(config).await.expect("a consumer");
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let handle = move |_: Delivery| {
        counter.fetch_add(1, Ordering::SeqCst);
        async {}
    };
    let running = serve(connect().await, App::new().without_telemetry().subscribe(durable(&id), handle));
    let running = running.start().await.expect("the app starts");
    nats.publisher().publish(format!("{id}.orders"), "x").await.expect("it is stored");
    wait_until_async("it is settled", async || {
        runs.load(Ordering::SeqCst) > 0 && consumer(&nats, &id).await.num_ack_pending == 0
    })
    .await;
    running.shutdown().await.expect("the app stops");
}

/// A delay beyond what the server can count would be none, and the message come again and again.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_retry_in_the_farthest_future_does_not_come_at_once() {
    let (nats, id) = stream().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let handle = move |body: String| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            match (body.as_str(), number) {
                ("never", _) => Settlement::retry_after(Duration::MAX),
                _ => Settlement::Ack,
            }
        }
    };
    let app = App::new().without_telemetry().subscribe(durable(&id).ack_wait(ACK_WAIT), handle);
    let running = serve(connect().await, app).start().await.expect("the app starts");
    let publisher = nats.publisher();
    publisher.publish(format!("{id}.orders"), "never").await.expect("it is stored");
    wait_until("it is handled", || runs.load(Ordering::SeqCst) == 1).await;
    // Each of these is delivered after what the server has to deliver again.
    for number in 2..=20 {
        publisher.publish(format!("{id}.orders"), "next").await.expect("it is stored");
        wait_until("the next one is handled", || runs.load(Ordering::SeqCst) >= number).await;
        sleep(ACK_WAIT / 10).await;
    }
    assert_eq!(runs.load(Ordering::SeqCst), 20);
    wait_until_async("all others are settled", async || consumer(&nats, &id).await.num_ack_pending == 1).await;
    running.shutdown().await.expect("the app stops");
}

/// One at a time: each is the only one the server delivers, also behind one that fails and comes again.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_consumer_with_one_message_under_way_goes_on_behind_one_that_fails() {
    let (nats, id) = stream().await;
    let capture = Capture::new();
    async fn fails_once(body: String, delivery: Delivery) -> Result<(), std::fmt::Error> {
        if body == "1" && delivery.attempt() < 3 { Err(std::fmt::Error) } else { Ok(()) }
    }
    let orders = durable(&id).max_ack_pending(1).ack_wait(ACK_WAIT);
    let app = App::new().telemetry(capture.instrumentation().build()).subscribe(orders, fails_once);
    let running = serve(connect().await, app).start().await.expect("the app starts");
    let bodies: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    nats.publisher().without_telemetry().publish_batch(format!("{id}.orders"), bodies).await.expect("they are stored");
    wait_until("all are settled", || counted(&capture, SETTLED, &[("throughline.settlement", "ack")]) == 10).await;
    assert_eq!(counted(&capture, SETTLED, &[("throughline.settlement", "retry")]), 2);
    running.shutdown().await.expect("the app stops");
}

/// A handler that hangs at the delivery that is the server's last, when the app ends.
async fn aborted(dead_letter: bool) -> (usize, Capture) {
    let (nats, id) = stream().await;
    let (capture, entered) = (Capture::new(), Arc::new(Semaphore::new(0)));
    let begun = Arc::clone(&entered);
    let handle = move |_: Delivery| {
        begun.add_permits(1);
        std::future::pending::<()>()
    };
    let route = Handler::<(Delivery,), ()>::concurrency(handle, 1);
    let route = if dead_letter { route.dead_letter(format!("{id}.dead")) } else { route };
    let app = App::new().telemetry(capture.instrumentation().build()).subscribe(durable(&id).max_deliver(1), route);
    let service = serve(connect().await, app).shutdown_timeout(Duration::from_secs(2));
    let running = service.start().await.expect("the app starts");
    nats.publisher().without_telemetry().publish(format!("{id}.orders"), "x").id("m1").await.expect("it is stored");
    let begun = timeout(PATIENCE, entered.acquire()).await.expect("in time").expect("the handler runs");
    begun.forget();
    // That handlers were dropped is what the end says.
    let _ = timeout(PATIENCE, running.shutdown()).await.expect("the app stops in time");
    let info = consumer(&nats, &id).await;
    assert_eq!((info.num_ack_pending, info.num_pending), (0, 0), "the server has heard of it");
    (stored(&nats, &id, "dead").await, capture)
}

/// The server would deliver it no more: an end that drops the handler leaves it where it is found.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_last_delivery_whose_handler_is_dropped_at_the_end_is_dead_lettered() {
    let (dead, capture) = aborted(true).await;
    assert_eq!(dead, 1, "the dead letter is stored once");
    assert_eq!(counted(&capture, SETTLED, &[("throughline.settlement", "dead_letter")]), 1, "METR-10");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_last_delivery_whose_handler_is_dropped_at_the_end_is_rejected_without_a_dead_letter() {
    let (dead, capture) = aborted(false).await;
    assert_eq!(dead, 0);
    assert_eq!(counted(&capture, SETTLED, &[("throughline.settlement", "reject")]), 1);
    let spans = capture.spans();
    let process = spans.iter().find(|span| span.name.starts_with("process")).expect("a process span");
    assert!(matches!(process.status, opentelemetry::trace::Status::Error { .. }), "STAT-02: {:?}", process.status);
    assert!(spans.iter().any(|span| span.name.starts_with("term")), "SPAN-32");
}
