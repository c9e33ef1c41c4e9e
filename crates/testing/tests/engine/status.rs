//! Status, `error.type` and exception events (STAT).

use std::fmt;
use std::time::Duration;

use opentelemetry::logs::AnyValue;
use opentelemetry::trace::Status;
use throughline_core::extract::{Batch, FromDelivery, Rejection};
use throughline_core::middleware::{Retry, Timeout};
use throughline_core::{App, CurrentSpan, Delivery, Failure, Handler, Outcome, RetryPolicy, Settlement, serve};
use throughline_memory::{Channel, Memory};
use throughline_testing::{AppTest, Capture, attribute, start};

use crate::support::{ids, point, points};

#[derive(Debug)]
struct OutOfStock;

impl fmt::Display for OutOfStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no bread for bob")
    }
}

impl std::error::Error for OutOfStock {}

/// Runs one message through a handler that fails its first attempt in a way, and shows the first process span.
async fn failed<Args>(handler: impl throughline_core::IntoRoute<Args, ()>) -> AppTest {
    let test = start(App::new().subscribe(Channel::new("orders"), handler)).await;
    test.publish("orders", "42").await;
    test.broker().settled_within(1, Duration::from_secs(60)).await.expect("it is settled");
    test
}

/// STAT-02, STAT-05, STAT-13 to -17: the span, the metric and the event of a failed process operation agree.
#[track_caller]
fn assert_failed(test: &AppTest, error_type: &str, description: &str, message: Option<&str>) {
    let tree = test.capture().tree();
    let span = tree.find_all("process orders")[0];
    assert_eq!(attribute(span, "error.type"), Some(&error_type.to_owned().into()));
    assert_eq!(span.status, Status::error(description.to_owned()));
    assert!(span.events.is_empty(), "STAT-13");
    assert_eq!(point(test.capture(), "messaging.process.duration", &[("error.type", error_type)]).count, 1);
    let logs = test.capture().logs();
    let events: Vec<_> = logs.iter().filter(|log| log.span_id == Some(span.span_context.span_id())).collect();
    let [event] = events.as_slice() else { panic!("{} events, STAT-18", events.len()) };
    assert_eq!((event.event_name.as_deref(), event.severity_number()), (Some("messaging.process.exception"), Some(17)));
    assert_eq!(
        (event.trace_id, event.trace_flags),
        (Some(span.span_context.trace_id()), Some(span.span_context.trace_flags()))
    );
    assert_eq!(event.attribute("exception.message"), message.map(|text| AnyValue::from(text.to_owned())).as_ref());
}

/// STAT-01.
#[tokio::test]
async fn success_leaves_the_status_unset() {
    async fn handle(_order: String) {}
    let test = start(App::new().subscribe(Channel::new("orders"), handle)).await;
    test.publish("orders", "42").await;
    test.settle().await;
    for span in test.capture().spans() {
        assert_eq!((&span.status, attribute(&span, "error.type")), (&Status::Unset, None), "{}", span.name);
    }
    assert!(test.capture().logs().is_empty());
    assert!(test.capture().metrics().iter().all(|point| !point.attributes.contains_key("error.type")));
}

/// STAT-02, -03, -05, -06, -13 to -17.
#[tokio::test]
async fn a_handlers_error_is_known_by_its_type_and_its_text_is_kept_out_of_the_status() {
    async fn handle(_order: String) -> Result<(), OutOfStock> {
        Err(OutOfStock)
    }
    let test = failed(handle).await;
    assert_failed(&test, std::any::type_name::<OutOfStock>(), "", Some("no bread for bob"));
}

/// STAT-06: a failure may name its own type.
#[tokio::test]
async fn a_failure_may_name_its_own_error_type() {
    async fn handle(_order: String) -> Outcome {
        Outcome::failed(Failure::new("out_of_stock", "no bread"))
    }
    assert_failed(&failed(handle).await, "out_of_stock", "", Some("no bread"));
}

/// STAT-08, TRAP-05.
#[tokio::test]
async fn a_panic_is_an_error_of_type_panic() {
    async fn handle(order: String) {
        panic!("cannot handle {order}");
    }
    assert_failed(&failed(handle).await, "panic", "", Some("cannot handle 42"));
}

/// STAT-09.
#[tokio::test(start_paused = true)]
async fn a_timeout_is_an_error_of_type_timeout() {
    async fn handle(_order: String) {
        std::future::pending::<()>().await;
    }
    let test = failed(handle.middleware(Timeout::secs(3))).await;
    let text = "not handled within 3s: raise the limit or make the handler faster";
    assert_failed(&test, "timeout", text, Some(text));
}

/// STAT-09, TRAP-04: a handler dropped at shutdown.
#[tokio::test(start_paused = true)]
async fn a_handler_dropped_at_shutdown_is_cancelled() {
    async fn handle(_order: String) {
        std::future::pending::<()>().await;
    }
    let (capture, memory) = (Capture::new(), Memory::new());
    let app = App::new().subscribe(Channel::new("orders"), handle);
    let app = app.telemetry(capture.instrumentation().build());
    let running = serve(memory.clone(), app).shutdown_timeout(Duration::from_secs(1)).start().await.unwrap();
    memory.publisher().without_telemetry().publish("orders", "42").await.unwrap();
    tokio::task::yield_now().await;
    running.shutdown().await.unwrap();
    let tree = capture.tree();
    let span = tree.find("process orders");
    assert_eq!((attribute(span, "error.type"), &span.status), (Some(&"cancelled".into()), &Status::error("")));
    assert_eq!(point(&capture, "messaging.process.duration", &[("error.type", "cancelled")]).count, 1);
    assert_eq!(point(&capture, "throughline.process.in_flight", &[]).sum, 0.0);
}

/// STAT-09, TRAP-04: an attempt that a timeout cuts off does not end as if nothing had happened.
#[tokio::test(start_paused = true)]
async fn a_retry_that_is_cut_off_is_cancelled() {
    async fn handle(delivery: Delivery) -> Result<(), OutOfStock> {
        if delivery.attempt() > 1 {
            std::future::pending::<()>().await;
        }
        Err(OutOfStock)
    }
    let retry = Retry::new(RetryPolicy::new().first_delay(Duration::from_millis(1)));
    let test = failed(handle.middleware(Timeout::secs(3)).middleware(retry)).await;
    let tree = test.capture().tree();
    let attempt = tree.find_all("retry")[0];
    assert_eq!((attribute(attempt, "error.type"), &attempt.status), (Some(&"cancelled".into()), &Status::error("")));
}

/// STAT-11.
#[tokio::test]
async fn a_body_that_cannot_be_decoded_is_a_decode_error_and_is_not_tried_again() {
    async fn handle(_order: throughline_core::extract::Json<u64>) {}
    let test = start(App::new().subscribe(Channel::new("orders"), handle)).await;
    test.publish("orders", "no number").await;
    test.settle().await;
    let text = "the body could not be decoded as JSON";
    assert_failed(&test, "decode_error", text, Some(text));
    assert_eq!(test.capture().tree().find_all("process orders").len(), 1);
}

/// STAT-11: an argument that is missing what it needs is a malformed message too.
#[tokio::test]
async fn a_rejected_argument_is_a_decode_error() {
    struct Tenant;
    impl<S: Sync> FromDelivery<S> for Tenant {
        async fn from_delivery(_: &Delivery, _: &S) -> Result<Self, Rejection> {
            Err(Rejection::malformed("no tenant header"))
        }
    }
    async fn handle(_tenant: Tenant) {}
    assert_failed(&failed(handle).await, "decode_error", "no tenant header", Some("no tenant header"));
}

/// STAT-04, GOLD-X-07: an error that a retry mended leaves no trace on the process span and its metric.
#[tokio::test(start_paused = true)]
async fn a_mended_error_leaves_no_trace() {
    async fn handle(delivery: Delivery) -> Result<(), OutOfStock> {
        if delivery.attempt() < 3 { Err(OutOfStock) } else { Ok(()) }
    }
    let retry = Retry::new(RetryPolicy::new().first_delay(Duration::from_millis(1)));
    let test = start(App::new().subscribe(Channel::new("orders"), handle.middleware(retry))).await;
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    let process = tree.find("process orders");
    assert_eq!((&process.status, attribute(process, "error.type")), (&Status::Unset, None));
    assert!(test.capture().logs().is_empty());
    assert!(points(test.capture(), "messaging.process.duration", &[("error.type", "x")]).is_empty());
    assert_eq!(tree.find_all("retry").len(), 2, "each further attempt is visible");
}

/// STAT-10: what a handler decides is no failure; why it rejects is on the span.
#[tokio::test]
async fn a_decision_is_no_error_and_says_why() {
    async fn handle(_order: String) -> Result<(), Settlement> {
        Err(Settlement::reject("unknown tenant"))
    }
    let test = start(App::new().subscribe(Channel::new("orders"), handle)).await;
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    for name in ["process orders", "nack orders"] {
        assert_eq!(
            (&tree.find(name).status, attribute(tree.find(name), "error.type")),
            (&Status::Unset, None),
            "{name}"
        );
    }
    let reason = attribute(tree.find("process orders"), "throughline.rejection.reason");
    assert_eq!(reason, Some(&"unknown tenant".into()));
}

/// STAT-10: the reason is on the span also when the message became a dead letter.
#[tokio::test]
async fn the_reason_of_a_dead_letter_is_on_the_process_span() {
    async fn handle(_order: String) -> Settlement {
        Settlement::reject("unknown tenant")
    }
    let test = start(App::new().subscribe(Channel::new("orders"), handle.dead_letter("orders.dead"))).await;
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    let reason = attribute(tree.find("process orders"), "throughline.rejection.reason");
    assert_eq!(reason, Some(&"unknown tenant".into()));
}

/// STAT-19: without a logger provider there are no events, and the span still fails.
#[tokio::test]
async fn without_a_logger_provider_there_are_no_events() {
    async fn handle(_order: String) -> Result<(), OutOfStock> {
        Err(OutOfStock)
    }
    let (capture, memory) = (Capture::new(), Memory::recording());
    let engine =
        throughline_core::telemetry::Instrumentation::builder().tracer_provider(capture.tracer_provider()).build();
    let app = App::new().subscribe(Channel::new("orders"), handle).telemetry(engine);
    let _running = serve(memory.clone(), app).start().await.unwrap();
    memory.publisher().without_telemetry().publish("orders", "42").await.unwrap();
    memory.settled_within(1, Duration::from_secs(10)).await.unwrap();
    let tree = capture.tree();
    let span = tree.find_all("process orders")[0];
    assert_eq!((&span.status, span.events.len()), (&Status::error(""), 0));
    assert!(capture.logs().is_empty());
}

/// STAT-18: one failing message of a batch is one event, and the batch's span says so.
#[tokio::test]
async fn a_failed_message_of_a_batch_fails_the_span_once() {
    async fn handle(batch: Batch<String>) {
        for message in batch {
            let delivery = message.delivery().clone();
            message
                .run(async |body| if body == "bad" && delivery.attempt() == 1 { Err(OutOfStock) } else { Ok(()) })
                .await;
        }
    }
    let orders = Channel::new("orders").batch(2, Duration::from_secs(5));
    let test = start(App::new().subscribe(orders, handle)).await;
    test.publisher().publish_batch("orders", ["good", "bad"]).await.unwrap();
    test.broker().settled_within(2, Duration::from_secs(10)).await.unwrap();
    assert_failed(&test, std::any::type_name::<OutOfStock>(), "", Some("no bread for bob"));
}

/// STAT-14, -15, -17, STAT-03: a failed publish is a warning of its send span, with the broker's words in the status.
#[tokio::test]
async fn a_failed_publish_is_a_warning_of_its_send_span() {
    let capture = Capture::new();
    let publisher = Memory::new().publisher().telemetry(capture.instrumentation().build());
    let error = publisher.request::<String>("prices.get", "bread").await.unwrap_err();
    let tree = capture.tree();
    let span = tree.find("request prices.get");
    assert_eq!(attribute(span, "error.type"), Some(&"no_responders".into()));
    assert_eq!(span.status, Status::error(error.to_string()));
    let logs = capture.logs();
    assert_eq!(logs.len(), 1);
    assert_eq!(
        (logs[0].event_name.as_deref(), logs[0].severity_number()),
        (Some("messaging.send.exception"), Some(13))
    );
    assert_eq!(logs[0].attribute("exception.type"), Some(&"no_responders".into()));
    assert_eq!(
        (logs[0].trace_id, logs[0].span_id),
        (Some(span.span_context.trace_id()), Some(span.span_context.span_id()))
    );
}

/// STAT-19, TRAP-03: an error that the handler deals with itself is recorded at its will and fails nothing.
#[tokio::test]
async fn a_recorded_error_is_an_event_and_no_failure() {
    async fn handle(delivery: Delivery) {
        delivery.record_error(&OutOfStock);
    }
    let test = start(App::new().subscribe(Channel::new("orders"), handle)).await;
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    let process = tree.find("process orders");
    assert_eq!((&process.status, attribute(process, "error.type"), process.events.len()), (&Status::Unset, None, 0));
    let logs = test.capture().logs();
    assert_eq!(logs.len(), 1);
    assert_eq!((logs[0].trace_id.unwrap().to_string(), logs[0].span_id.unwrap().to_string()), ids(process));
    assert_eq!(logs[0].attribute("exception.message"), Some(&"no bread for bob".into()));
}
