//! What is measured beside the golden table (METR-11 to -17, and the project's own metrics).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use opentelemetry::trace::Status;
use throughline_core::broker::{BoxFuture, Publish, PublishErrorKind};
use throughline_core::message::{Operations, System};
use throughline_core::middleware::Retry;
use throughline_core::{App, Delivery, Envelope, Handler, PublishError, Publisher, Receipt, RetryPolicy, Settlement};
use throughline_memory::Channel;
use throughline_testing::{AppTest, Capture, attribute, start};
use tokio::sync::Semaphore;

use crate::support::{point, points};

/// Refuses messages whose body says so.
struct Picky;

impl Publish for Picky {
    fn system(&self) -> Arc<System> {
        Arc::new(System::new("picky", Operations::DEFAULT))
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move {
            match envelope.payload().as_ref() {
                b"large" => Err(PublishError::new(PublishErrorKind::TooLarge, "too_large", "over the limit")),
                b"late" => Err(PublishError::new(PublishErrorKind::Timeout, "timeout", "no answer")),
                _ => Ok(Receipt::new()),
            }
        })
    }
}

fn picky() -> (Capture, Publisher) {
    let capture = Capture::new();
    let publisher = Publisher::from_transport(Arc::new(Picky)).telemetry(capture.instrumentation().build());
    (capture, publisher)
}

fn sent(capture: &Capture, error_type: Option<&str>) -> f64 {
    let points = points(capture, "messaging.client.sent.messages", &[]);
    let of = |found: Option<&opentelemetry::Value>| found.map(|value| value.as_str().into_owned());
    points.iter().filter(|point| of(point.attributes.get("error.type")).as_deref() == error_type).map(|p| p.sum).sum()
}

/// METR-13, METR-17, METR-03: each failed message counts with its own error, the others without.
#[tokio::test]
async fn a_batch_that_fails_in_part_counts_each_message_as_it_went() {
    let (capture, publisher) = picky();
    let error = publisher.publish_batch("orders", ["a", "large", "b", "late", "large"]).await.unwrap_err();
    let failed: Vec<_> = error.failed().iter().map(|(index, error)| (*index, error.error_type())).collect();
    assert_eq!(
        (error.kind(), failed),
        (PublishErrorKind::Partial, vec![(1, "too_large"), (3, "timeout"), (4, "too_large")])
    );
    assert_eq!(
        (sent(&capture, None), sent(&capture, Some("too_large")), sent(&capture, Some("timeout"))),
        (2.0, 2.0, 1.0)
    );

    let tree = capture.tree();
    let send = tree.find("publish orders");
    assert_eq!(attribute(send, "error.type"), Some(&"too_large".into()), "STAT-05: that of the metric");
    assert_eq!(send.status, Status::error("over the limit"));
    let duration = point(&capture, "messaging.client.operation.duration", &[("messaging.operation.type", "send")]);
    assert_eq!((duration.count, duration.attributes["error.type"].as_str().as_ref()), (1, "too_large"));
    let created = point(&capture, "messaging.client.operation.duration", &[("messaging.operation.type", "create")]);
    assert_eq!((created.count, created.attributes.get("error.type")), (5, None));
}

/// METR-13: a batch that fails as a whole, in middleware between the telemetry and the broker, counts every message as failed.
#[tokio::test]
async fn a_batch_that_fails_as_a_whole_counts_every_message_as_failed() {
    use throughline_core::Middleware;
    use throughline_core::middleware::{NextPublish, TelemetryMiddleware};

    struct Refuse;
    #[async_trait]
    impl Middleware for Refuse {
        async fn publish(&self, _: Envelope, _: NextPublish<'_>) -> Result<Receipt, PublishError> {
            Err(PublishError::new(PublishErrorKind::Unauthorized, "unauthorized", "not allowed"))
        }
    }
    let capture = Capture::new();
    let publisher = Publisher::from_transport(Arc::new(Picky))
        .without_telemetry()
        .middleware(TelemetryMiddleware::from(capture.instrumentation().build()))
        .middleware(Refuse);
    publisher.publish_batch("orders", ["a", "b", "c"]).await.unwrap_err();
    assert_eq!((sent(&capture, None), sent(&capture, Some("unauthorized"))), (0.0, 3.0));
}

/// METR-17, STAT-05: a failed publish is in the usual instruments, with its error.
#[tokio::test]
async fn a_failed_publish_is_in_the_usual_instruments() {
    let (capture, publisher) = picky();
    publisher.publish("orders", "large").await.unwrap_err();
    assert_eq!((sent(&capture, None), sent(&capture, Some("too_large"))), (0.0, 1.0));
    assert_eq!(point(&capture, "messaging.client.operation.duration", &[("error.type", "too_large")]).count, 1);
    let names: std::collections::BTreeSet<_> = capture.metrics().into_iter().map(|point| point.name).collect();
    assert_eq!(Vec::from_iter(names), ["messaging.client.operation.duration", "messaging.client.sent.messages"]);
}

/// METR-11: the measured duration is the span's, to the nanosecond.
#[tokio::test]
async fn the_measured_duration_is_that_of_the_span() {
    async fn handle(_order: String) -> Settlement {
        tokio::task::yield_now().await;
        Settlement::reject("no")
    }
    let test = start(App::new().subscribe(Channel::new("orders"), handle)).await;
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    for (name, metric, kind) in [
        ("publish orders", "messaging.client.operation.duration", "send"),
        ("process orders", "messaging.process.duration", ""),
        ("nack orders", "messaging.client.operation.duration", "settle"),
    ] {
        let span = tree.find(name);
        let lasted = span.end_time.duration_since(span.start_time).unwrap().as_secs_f64();
        let with = [("messaging.operation.type", kind)];
        let measured = point(test.capture(), metric, if kind.is_empty() { &[] } else { &with });
        assert_eq!((measured.count, measured.sum), (1, lasted), "{name}");
    }
}

/// METR-15, METR-02: a redelivery is delivered again, and processed again.
#[tokio::test(start_paused = true)]
async fn a_redelivery_counts_again() {
    async fn handle(delivery: Delivery) -> Settlement {
        if delivery.attempt() < 3 { Settlement::retry() } else { Settlement::Ack }
    }
    let test = start(App::new().subscribe(Channel::new("orders"), handle)).await;
    test.publish("orders", "42").await;
    test.settle().await;
    assert_eq!(point(test.capture(), "messaging.client.consumed.messages", &[]).sum, 3.0);
    assert_eq!(point(test.capture(), "messaging.process.duration", &[]).count, 3);
}

/// METR-04: what the retry middleware does in place is one delivery.
#[tokio::test(start_paused = true)]
async fn a_retry_in_place_is_one_delivery() {
    async fn handle(delivery: Delivery) -> Result<(), std::fmt::Error> {
        if delivery.attempt() < 3 { Err(std::fmt::Error) } else { Ok(()) }
    }
    let handler = handle.middleware(Retry::new(RetryPolicy::new().first_delay(Duration::from_millis(1))));
    let test = start(App::new().subscribe(Channel::new("orders"), handler)).await;
    test.publish("orders", "42").await;
    test.settle().await;
    assert_eq!(point(test.capture(), "messaging.client.consumed.messages", &[]).sum, 1.0);
    assert_eq!(point(test.capture(), "messaging.process.duration", &[]).count, 1);
}

async fn ignore(_order: String) {}

/// The project's own: how long a message waited at the broker.
#[tokio::test]
async fn the_time_in_the_queue_is_measured() {
    let test = start(App::new().subscribe(Channel::new("orders"), ignore)).await;
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    test.broker().deliver(Delivery::new("orders", "42").with_sent_at(an_hour_ago));
    test.broker().deliver(Delivery::new("orders", "43"));
    test.settle().await;
    let waited = point(test.capture(), "throughline.queue.duration", &[]);
    assert_eq!((waited.count, waited.unit.as_str()), (1, "s"), "a message without a time is not measured");
    assert!((3600.0..3700.0).contains(&waited.sum), "{}", waited.sum);
}

/// The project's own: deliveries that are being handled right now, and none when all is done.
#[tokio::test]
async fn deliveries_in_flight_are_counted_and_come_back_to_none() {
    let (entered, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (entered, gate) = (Arc::clone(&entered), Arc::clone(&gate));
        move |_order: String| {
            let (entered, gate) = (Arc::clone(&entered), Arc::clone(&gate));
            async move {
                entered.add_permits(1);
                gate.acquire().await.unwrap().forget();
            }
        }
    };
    let test = start(App::new().subscribe(Channel::new("orders"), handler.concurrency(2))).await;
    test.publisher().publish_batch("orders", ["1", "2", "3"]).await.unwrap();
    entered.acquire_many(2).await.unwrap().forget();
    assert_eq!(point(test.capture(), "throughline.process.in_flight", &[]).sum, 2.0);
    gate.add_permits(3);
    test.settle().await;
    assert_eq!(point(test.capture(), "throughline.process.in_flight", &[]).sum, 0.0);
}

fn settled(test: &AppTest, settlement: &str) -> f64 {
    let with = [("throughline.settlement", settlement)];
    points(test.capture(), "throughline.settled.messages", &with).iter().map(|point| point.sum).sum()
}

/// The project's own, design section 5: what became of each message.
#[tokio::test(start_paused = true)]
async fn settled_messages_are_counted_by_what_became_of_them() {
    async fn handle(order: String, delivery: Delivery) -> Settlement {
        match order.as_str() {
            "bad" => Settlement::reject("unknown tenant"),
            "again" if delivery.attempt() == 1 => Settlement::retry(),
            _ => Settlement::Ack,
        }
    }
    let app = App::new()
        .subscribe(Channel::new("orders"), handle)
        .subscribe(Channel::new("bills"), handle.dead_letter("bills.dead"));
    let test = start(app).await;
    for order in ["good", "bad", "again"] {
        test.publish("orders", order).await;
    }
    test.publish("bills", "bad").await;
    test.settle().await;
    let counted = ["ack", "reject", "retry", "dead_letter"].map(|settlement| settled(&test, settlement));
    assert_eq!(counted, [2.0, 1.0, 1.0, 1.0]);
}

/// The project's own: each message of a batch by itself.
#[tokio::test]
async fn the_messages_of_a_batch_are_counted_each() {
    async fn handle(batch: throughline_core::extract::Batch<String>) {
        for message in batch {
            let reject = message.body() == "bad";
            message.settle(if reject { Settlement::reject("no") } else { Settlement::Ack });
        }
    }
    let orders = Channel::new("orders").batch(3, Duration::from_secs(5));
    let test = start(App::new().subscribe(orders, handle.dead_letter("orders.dead"))).await;
    test.publisher().publish_batch("orders", ["1", "bad", "3"]).await.unwrap();
    test.settle().await;
    assert_eq!((settled(&test, "ack"), settled(&test, "dead_letter"), settled(&test, "reject")), (2.0, 1.0, 0.0));
}
