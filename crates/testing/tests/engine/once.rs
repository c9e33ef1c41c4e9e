//! Each attribute is exported once, whoever sets it: the engine's own wins where the conventions define it, else the last one (GEN-06).

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{Link, SpanContext, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SpanData;
use throughline_core::broker::{BoxFuture, Publish};
use throughline_core::extract::ProcessSpan;
use throughline_core::message::{Native, OperationType, Operations, Source, System, Target};
use throughline_core::middleware::Retry;
use throughline_core::telemetry::{Builder, Incoming, Instrumentation, SettleSpans};
use throughline_core::{
    App, CurrentSpan, Delivery, Destination, Envelope, Failure, Handler, Headers, Outcome, PublishError, Publisher,
    Receipt, RetryPolicy, Settlement,
};
use throughline_memory::Channel;
use throughline_testing::{AppTest, Capture, attribute, attributes, start_with};

use crate::support::publish_remote;

/// What every test tries to set, with what the framework says of them where it does.
const CONTESTED: [&str; 14] = [
    "error.type",
    "messaging.system",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.destination.name",
    "messaging.destination.template",
    "messaging.message.id",
    "messaging.message.conversation_id",
    "messaging.message.body.size",
    "throughline.rejection.reason",
    "throughline.header.tenant",
    "throughline.baggage.tenant",
    "native.row",
    "team",
];

fn contested() -> impl Iterator<Item = KeyValue> {
    CONTESTED.into_iter().map(|key| KeyValue::new(key, "mine"))
}

#[track_caller]
fn assert_once(spans: &[SpanData]) {
    for span in spans {
        // `attributes` fails for a key that is there twice.
        attributes(&span.attributes);
        span.links.iter().for_each(|link: &Link| drop(attributes(&link.attributes)));
        span.events.iter().for_each(|event| drop(attributes(&event.attributes)));
    }
}

fn text(span: &SpanData, key: &str) -> Option<String> {
    attribute(span, key).map(|value| value.as_str().into_owned())
}

struct Row;

impl Native for Row {
    fn attributes(&self, _: OperationType, attributes: &mut Vec<KeyValue>) {
        attributes.push(KeyValue::new("native.row", "first"));
        attributes.extend(
            CONTESTED
                .into_iter()
                .filter(|key| !["team"].contains(key))
                .map(|key| KeyValue::new(key, if key == "native.row" { "7" } else { "native" })),
        );
    }
}

/// Sets everything in every way, and ends as the body says.
async fn handle(body: String, span: ProcessSpan, delivery: Delivery) -> Outcome {
    for attribute in contested() {
        span.set_attribute(attribute.key.clone(), "earlier");
        span.set_attribute(attribute.key.clone(), attribute.value.clone());
    }
    span.with_span(|span| span.set_attributes(contested()));
    Context::current().span().set_attribute(KeyValue::new("team", "mine"));
    span.add_event("doubled", [KeyValue::new("n", 1), KeyValue::new("n", 2)]);
    span.with_span(|span| {
        let linked = SpanContext::new(1.into(), 1.into(), Default::default(), true, Default::default());
        span.add_link(linked, vec![KeyValue::new("n", 1), KeyValue::new("n", 2)]);
    });
    match body.as_str() {
        "fails" if delivery.attempt() == 1 => Outcome::failed(Failure::new("bad_order", "bad")),
        "rejected" => Outcome::settle(Settlement::reject("unknown tenant")),
        _ => Outcome::settle(Settlement::Ack),
    }
}

async fn run(body: &'static str, more: fn(Builder<Instrumentation>) -> Builder<Instrumentation>) -> AppTest {
    let app = App::new().subscribe(
        Channel::new("orders.{id}"),
        handle.middleware(Retry::new(RetryPolicy::new().first_delay(Duration::ZERO))),
    );
    let test = start_with(app, |telemetry| {
        more(telemetry.settle_spans(SettleSpans::Always).receive_spans(true).body_sizes(true))
            .capture_headers(["tenant", "tenant"])
            .baggage_attributes(["tenant", "tenant"])
    });
    let test = test.await;
    let headers = Headers::from_iter([("tenant", "acme"), ("baggage", "tenant=globex")]);
    let delivery = Delivery::new("orders.42", body).with_headers(headers).with_id("m1").with_correlation_id("c1");
    test.broker().deliver(delivery.with_native(Arc::new(Row)));
    test.settle().await;
    test
}

/// What the framework itself says of the message.
#[track_caller]
fn assert_own(span: &SpanData) {
    let shown = |key| text(span, key);
    let own = |value: &str| Some(value.to_owned());
    assert_eq!(shown("messaging.system"), own("in_memory"));
    assert_eq!(shown("messaging.operation.name"), own("process"));
    assert_eq!(shown("messaging.operation.type"), own("process"));
    assert_eq!(shown("messaging.destination.name"), own("orders.42"));
    assert_eq!(shown("messaging.destination.template"), own("orders.{id}"));
    assert_eq!(shown("messaging.message.id"), own("m1"));
    assert_eq!(shown("messaging.message.conversation_id"), own("c1"));
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_sets_is_exported_once_and_the_frameworks_own_wins() {
    let test = run("fails", |telemetry| telemetry).await;
    let tree = test.capture().tree();
    assert_once(&test.capture().spans());
    // The retry in place mends it: without a failure `error.type` is the handler's own.
    let process = tree.find("process orders.{id}");
    assert_own(process);
    assert_eq!(
        text(process, "throughline.baggage.tenant").as_deref(),
        Some("native"),
        "the adapter said so at the start"
    );
    assert_eq!(text(process, "native.row").as_deref(), Some("7"), "of the adapter's own the last one");
    assert_eq!(text(process, "error.type").as_deref(), Some("mine"));
    assert_eq!(text(process, "throughline.rejection.reason").as_deref(), Some("mine"));
    assert_eq!(text(process, "team").as_deref(), Some("mine"));
    assert_eq!(attributes(&process.events[0].attributes)["n"], 2.into());
    let linked = process.links.iter().find(|link| link.span_context.span_id() == 1.into()).unwrap();
    assert_eq!(attributes(&linked.attributes)["n"], 2.into());
    assert_eq!(text(tree.find("retry"), "throughline.attempt").as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_rejection_is_the_frameworks() {
    let test = run("rejected", |telemetry| telemetry).await;
    assert_once(&test.capture().spans());
    let process = test.capture().tree().find("process orders.{id}").clone();
    assert_eq!(text(&process, "throughline.rejection.reason").as_deref(), Some("unknown tenant"));
}

/// STAT-05.
#[tokio::test(start_paused = true)]
async fn the_error_type_of_a_failure_is_the_frameworks() {
    async fn fail(_order: String, span: ProcessSpan) -> Result<(), Failure> {
        span.set_attribute("error.type", "mine");
        Err(Failure::new("bad_order", "bad").permanent())
    }
    let hook: fn(Builder<Instrumentation>) -> Builder<Instrumentation> =
        |telemetry| telemetry.attributes(|_, attributes| attributes.extend(contested()));
    for more in [hook, |telemetry| telemetry] {
        let test = start_with(App::new().subscribe(Channel::new("orders"), fail), |telemetry| {
            more(telemetry.settle_spans(SettleSpans::Always))
        });
        let test = test.await;
        publish_remote(&test, "orders", "").await;
        test.settle().await;
        assert_once(&test.capture().spans());
        let tree = test.capture().tree();
        assert_eq!(text(tree.find("process orders"), "error.type").as_deref(), Some("bad_order"));
    }
}

/// A hook may replace and take away what it is shown; what it adds is one of many, the last one.
#[tokio::test(start_paused = true)]
async fn what_the_hook_adds_is_exported_once_and_the_frameworks_own_wins() {
    let test = run("good", |telemetry| {
        telemetry.attributes(|_, attributes| {
            attributes.insert(0, KeyValue::new("messaging.system", "mine"));
            attributes.push(KeyValue::new("team", "first"));
            attributes.extend(contested());
            attributes.push(KeyValue::new("team", "stock"));
        })
    });
    let test = test.await;
    assert_once(&test.capture().spans());
    let tree = test.capture().tree();
    let process = tree.find("process orders.{id}");
    assert_own(process);
    assert_eq!(text(process, "team").as_deref(), Some("stock"));
    assert_eq!(text(process, "error.type").as_deref(), Some("mine"));
    let sampled = test.capture().sampled();
    let process = sampled.iter().find(|call| call.name == "process orders.{id}").unwrap();
    assert_eq!(process.attributes.iter().filter(|attribute| attribute.key.as_str() == "team").count(), 1, "VERF-03");
}

/// A transport whose answer says what a hook had guessed.
struct Keyed;

impl Publish for Keyed {
    fn system(&self) -> Arc<System> {
        let system = System::new("keyed", Operations::DEFAULT);
        Arc::new(system.with_attribute(KeyValue::new("messaging.system", "x")).with_attribute(KeyValue::new("k", 1)))
    }

    fn target<'a>(&self, destination: &'a Destination) -> Target<'a> {
        Target::of(destination).with_attribute(KeyValue::new("k", 2)).with_attribute(KeyValue::new("route", 1))
    }

    fn attributes(&self, _: &Envelope, attributes: &mut Vec<KeyValue>) {
        attributes.extend([KeyValue::new("route", 2), KeyValue::new("messaging.message.id", "x")]);
    }

    fn publish(&self, _: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move {
            let receipt = Receipt::new().with_attribute(KeyValue::new("messaging.keyed.offset", 12));
            Ok(receipt.with_attribute(KeyValue::new("messaging.keyed.offset", 13)))
        })
    }
}

/// ATTR-C-21.
#[tokio::test]
async fn what_an_adapter_says_of_a_publish_is_exported_once() {
    let capture = Capture::new();
    let hooked = capture.instrumentation().attributes(|_, attributes| {
        attributes.push(KeyValue::new("messaging.keyed.offset", "mine"));
        attributes.push(KeyValue::new("error.type", "mine"));
    });
    for engine in [capture.instrumentation().build(), hooked.build()] {
        let publisher = Publisher::from_transport(Arc::new(Keyed)).telemetry(&engine);
        publisher.publish_envelope(Envelope::new("orders", "1").with_id("m1")).await.unwrap();
        publisher.publish_batch("orders", ["1", "2"]).await.unwrap();
        let spans = capture.spans();
        assert_once(&spans);
        let send = spans.iter().find(|span| text(span, "messaging.message.id").is_some()).unwrap();
        assert_eq!(text(send, "messaging.message.id").as_deref(), Some("m1"));
        assert_eq!(text(send, "messaging.system").as_deref(), Some("keyed"));
        assert_eq!((attribute(send, "k"), attribute(send, "route")), (Some(&1.into()), Some(&2.into())));
        assert_eq!(attribute(send, "messaging.keyed.offset"), Some(&13.into()));
        capture.reset();
    }
}

/// The raw door: batches and their links, receive and settle.
#[tokio::test]
async fn the_raw_door_exports_each_attribute_once() {
    let operations = Operations::DEFAULT.with_ack("ack");
    let source = Source::new(Arc::new(System::new("raw", operations))).with_destination("orders");
    let capture = Capture::new();
    let builder = capture.instrumentation().settle_spans(SettleSpans::Always).capture_headers(["tenant", "tenant"]);
    let consumer =
        builder.attributes(|_, attributes| attributes.extend(contested())).build().consumer(Arc::new(source));
    let arrived = Headers::from_iter([("traceparent", crate::support::TRACEPARENT), ("tenant", "acme")]);
    let message = Incoming::new("orders", &arrived).with_id("m1").with_native(&Row);
    let mut other = message;
    other.destination = "bills";
    consumer.receive().finish(&message);
    consumer.receive().finish_batch(&[message, other]);
    let processing = consumer.process_batch(&[message, other]);
    contested().for_each(|attribute| processing.set_attribute(attribute.key, attribute.value));
    processing.fail(&Failure::new("bad_order", "bad"));
    consumer.settle(&Settlement::Ack, &Context::new()).finish(&[message, other], None);
    consumer.settle(&Settlement::Ack, &Context::new()).finish(&[message], None);
    let spans = capture.spans();
    assert_eq!(spans.len(), 5);
    assert_once(&spans);
    let process =
        spans.iter().find(|span| text(span, "messaging.operation.type").as_deref() == Some("process")).unwrap();
    assert_eq!(text(process, "error.type").as_deref(), Some("bad_order"));
    let linked: Vec<_> = process.links.iter().map(|link| attributes(&link.attributes)).collect();
    let names: Vec<_> = linked.iter().map(|link| link["messaging.destination.name"].as_str()).collect();
    assert_eq!(names, ["orders", "bills"], "LINK-15");
    assert!(linked.iter().all(|link| link["messaging.message.id"].as_str() == "m1"));
}
