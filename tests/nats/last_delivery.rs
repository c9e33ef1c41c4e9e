//! The limit of a consumer (`max_deliver`) counts: what is delivered for the last time is settled for good, and never lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull, push};
use throughline_core::broker::{Broker, Subscription};
use throughline_core::middleware::TelemetryMiddleware;
use throughline_core::{App, Delivery, Handler, Settlement, serve};
use throughline_nats::Nats;
use throughline_testing::Capture;
use tokio::time::{Instant, sleep, timeout};

use crate::server::{self, PATIENCE};
use crate::streams::{connect, durable, stored, stream};
use crate::witness::{counted, wait_until};

/// Short, so that what is held must be kept meanwhile.
const ACK_WAIT: Duration = Duration::from_secs(1);

const SETTLED: &str = "throughline.settled.messages";
const HOW: &str = "throughline.settlement";

/// Handles until the consumer has nothing left, and returns how often that was and the metrics.
async fn handled(
    nats: &Nats,
    id: &str,
    subscription: impl Into<Subscription>,
    dead: bool,
    settle: impl Fn() -> Result<(), Settlement> + Clone + Send + Sync + 'static,
    fails: bool,
) -> (usize, Capture) {
    let (capture, runs) = (Capture::new(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&runs);
    let handle = move |_: Delivery| {
        counter.fetch_add(1, Ordering::SeqCst);
        let settled = settle();
        async move {
            match settled {
                Err(settlement) => settlement,
                Ok(()) if fails => panic!("this handler always fails"),
                Ok(()) => Settlement::Ack,
            }
        }
    };
    let route = Handler::<(Delivery,), ()>::concurrency(handle, 1);
    let route = if dead { route.dead_letter(format!("{id}.dead")) } else { route };
    let app = App::new().subscribe(subscription, route);
    let telemetry = TelemetryMiddleware::from(capture.instrumentation().build());
    let running = serve(connect().await, app.telemetry(telemetry)).start().await.expect("the app starts");
    nats.publisher().without_telemetry().publish(format!("{id}.orders"), "x").id("m1").await.expect("it is stored");
    let ended = |capture: &Capture| {
        counted(capture, SETTLED, &[(HOW, "dead_letter")]) + counted(capture, SETTLED, &[(HOW, "reject")])
    };
    wait_until("the message is given up", || ended(&capture) > 0).await;
    running.shutdown().await.expect("the app stops");
    (runs.load(Ordering::SeqCst), capture)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn the_last_delivery_of_a_failing_message_is_dead_lettered() {
    let (nats, id) = stream().await;
    let (runs, capture) = handled(&nats, &id, durable(&id).max_deliver(3), true, || Ok(()), true).await;
    assert_eq!(runs, 3);
    assert_eq!(stored(&nats, &id, "dead").await, 1, "the dead letter is stored");
    assert_eq!(counted(&capture, SETTLED, &[(HOW, "dead_letter")]), 1, "METR-10");
    assert_eq!(counted(&capture, SETTLED, &[(HOW, "retry")]), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn the_last_delivery_is_rejected_where_there_is_no_dead_letter() {
    let (nats, id) = stream().await;
    let (runs, capture) = handled(&nats, &id, durable(&id).max_deliver(2), false, || Ok(()), true).await;
    assert_eq!(runs, 2);
    assert_eq!(counted(&capture, SETTLED, &[(HOW, "reject")]), 1);
    let stream = nats.jetstream().get_stream(&id).await.expect("the stream");
    let info = stream.consumer_info("stock").await.expect("the consumer");
    assert_eq!((info.num_ack_pending, info.num_pending), (0, 0), "the server has heard of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_retry_that_the_handler_asks_for_at_the_last_delivery_is_dead_lettered() {
    let (nats, id) = stream().await;
    let retry = || Err(Settlement::retry_after(Duration::from_millis(10)));
    let (runs, _) = handled(&nats, &id, durable(&id).max_deliver(2), true, retry, false).await;
    assert_eq!(runs, 2);
    assert_eq!(stored(&nats, &id, "dead").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn the_limit_of_a_consumer_that_is_reused_counts() {
    let (nats, id) = stream().await;
    let stream = nats.jetstream().get_stream(&id).await.expect("the stream");
    let config = pull::Config {
        durable_name: Some("stock".to_owned()),
        filter_subject: format!("{id}.orders"),
        ack_policy: AckPolicy::Explicit,
        max_deliver: 2,
        ..pull::Config::default()
    };
    stream.create_consumer(config).await.expect("a consumer");
    let (runs, _) = handled(&nats, &id, durable(&id), true, || Ok(()), true).await;
    assert_eq!((runs, stored(&nats, &id, "dead").await), (2, 1), "pull");

    let (nats, id) = self::stream().await;
    let stream = nats.jetstream().get_stream(&id).await.expect("the stream");
    let config = push::Config {
        durable_name: Some("stock".to_owned()),
        deliver_subject: format!("deliver.{id}"),
        filter_subject: format!("{id}.orders"),
        ack_policy: AckPolicy::Explicit,
        max_deliver: 2,
        ..push::Config::default()
    };
    stream.create_consumer(config).await.expect("a consumer");
    let (runs, _) = handled(&nats, &id, durable(&id).push(), true, || Ok(()), true).await;
    assert_eq!((runs, stored(&nats, &id, "dead").await), (2, 1), "push");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn what_is_held_at_its_last_delivery_is_handed_out_at_the_end_and_not_given_back() {
    for push in [false, true] {
        let (nats, id) = stream().await;
        let publisher = nats.publisher().without_telemetry();
        let bodies: BTreeSet<String> = (0..20).map(|number| number.to_string()).collect();
        publisher.publish_batch(format!("{id}.orders"), bodies.iter().cloned()).await.expect("they are stored");
        let wanted = durable(&id).max_deliver(1).ack_wait(ACK_WAIT);
        let wanted = if push { wanted.push() } else { wanted };
        let mut subscriber = nats.subscribe(&wanted.into()).await.expect("a subscription");
        let mut seen = BTreeSet::new();
        let mut first = timeout(PATIENCE, subscriber.receive()).await.expect("in time").expect("a message");
        assert!(first.delivery.is_last_attempt());
        seen.insert(String::from_utf8_lossy(first.delivery.payload()).into_owned());

        first.settle(&Settlement::Ack).await.expect("it is settled");

        subscriber.close(Instant::now() + PATIENCE).await;
        let stream = nats.jetstream().get_stream(&id).await.expect("the stream");
        let delivered = stream.consumer_info("stock").await.expect("the consumer").num_ack_pending;
        assert!(delivered > 1, "more is held than is handled");
        // For longer than the server waits for a settlement, it takes none of them for lost.
        let until = Instant::now() + 2 * ACK_WAIT;
        while Instant::now() < until {
            let pending = stream.consumer_info("stock").await.expect("the consumer").num_ack_pending;
            assert_eq!(pending, delivered, "push: {push}");
            sleep(Duration::from_millis(50)).await;
        }
        while let Some(mut received) = timeout(PATIENCE, subscriber.drain()).await.expect("in time") {
            assert!(received.delivery.is_last_attempt() && received.delivery.attempt() == 1);
            assert!(
                received
                    .delivery
                    .position()
                    .is_some_and(|position| position.starts_with(&format!("stream {id}, sequence ")))
            );
            seen.insert(String::from_utf8_lossy(received.delivery.payload()).into_owned());
            received.settle(&Settlement::Ack).await.expect("it is settled");
        }
        server::round_trip(&nats.client()).await;
        let info = stream.consumer_info("stock").await.expect("the consumer");
        assert_eq!(
            (seen.len(), info.num_ack_pending),
            (delivered + 1, 0),
            "push: {push}; each delivery was handed out"
        );
        assert_eq!(seen.len() + usize::try_from(info.num_pending).expect("a few"), bodies.len());
    }
}
