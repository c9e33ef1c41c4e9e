//! What the parent of a process span is (LINK-06 to -10).

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::SpanData;
use throughline_core::message::{Operations, Source, System};
use throughline_core::telemetry::{Incoming, ParentMode};
use throughline_core::{App, Delivery, Handler, PublishError, Publisher};
use throughline_memory::Channel;
use throughline_testing::{AppTest, Capture, start, start_with};

use crate::support::{SPAN, TRACE, TRACEPARENT, ids, links, publish_remote, traceparent};

/// The process span of a message from the remote producer, handled under an ambient span or under none.
fn processed(mode: ParentMode, has_ambient: bool) -> (Capture, Context) {
    let capture = Capture::new();
    let source = Source::new(Arc::new(System::new("nats", Operations::DEFAULT))).with_destination("orders");
    let consumer = capture.instrumentation().build().consumer(Arc::new(source)).with_parent_mode(mode);
    let headers = HashMap::from([("traceparent".to_owned(), TRACEPARENT.to_owned())]);
    let ambient = if has_ambient {
        let tracer = capture.tracer_provider().tracer("http");
        Context::new().with_span(tracer.start_with_context("GET /", &Context::new()))
    } else {
        Context::new()
    };
    let guard = ambient.clone().attach();
    consumer.process(&Incoming::new("orders", &headers)).succeed();
    drop(guard);
    ambient.span().end();
    (capture, ambient)
}

fn remote_ids() -> (String, String) {
    (TRACE.to_owned(), SPAN.to_owned())
}

#[track_caller]
fn assert_parent(capture: &Capture, parent: Option<(String, String)>, expected_links: &[(String, String)]) {
    let span = capture.tree().find("process orders").clone();
    let found = (span.parent_span_id != SpanId::INVALID)
        .then(|| (span.span_context.trace_id().to_string(), span.parent_span_id.to_string()));
    assert_eq!(found, parent, "parent");
    assert_eq!(links(&span), expected_links, "links");
}

/// LINK-06, LINK-02.
#[test]
fn auto_takes_the_producer_as_parent_where_nothing_is_current() {
    let (capture, _) = processed(ParentMode::Auto, false);
    assert_parent(&capture, Some(remote_ids()), &[remote_ids()]);
}

/// LINK-07.
#[test]
fn auto_takes_the_ambient_span_as_parent_and_links_the_producer() {
    let (capture, _) = processed(ParentMode::Auto, true);
    assert_parent(&capture, Some(ids(capture.tree().find("GET /"))), &[remote_ids()]);
}

/// LINK-08.
#[test]
fn link_only_leads_to_the_producer_by_its_link_alone() {
    let (capture, _) = processed(ParentMode::LinkOnly, false);
    assert_parent(&capture, None, &[remote_ids()]);
    let (capture, _) = processed(ParentMode::LinkOnly, true);
    assert_parent(&capture, Some(ids(capture.tree().find("GET /"))), &[remote_ids()]);
}

/// LINK-09.
#[test]
fn parent_always_takes_the_producer_and_links_the_ambient_span_too() {
    let (capture, _) = processed(ParentMode::Parent, false);
    assert_parent(&capture, Some(remote_ids()), &[remote_ids()]);
    let (capture, _) = processed(ParentMode::Parent, true);
    let ambient = ids(capture.tree().find("GET /"));
    assert_parent(&capture, Some(remote_ids()), &[remote_ids(), ambient]);
}

async fn forward_link_only(publisher: Publisher) -> Result<(), PublishError> {
    publisher.publish("from.link_only", "42").await.map(drop)
}

async fn forward_default(publisher: Publisher) -> Result<(), PublishError> {
    publisher.publish("from.default", "42").await.map(drop)
}

/// The process span in which a message was published, and the message.
async fn origin(test: &AppTest, destination: &str) -> (SpanData, Delivery) {
    let tree = test.trace().await;
    let process = tree.parent(tree.find(&format!("publish {destination}"))).expect("a handler published it").clone();
    (process, test.next_delivery(destination).await)
}

/// LINK-10: one app, one channel, two subscriptions with modes of their own.
#[tokio::test]
async fn a_subscription_has_its_own_parent_mode() {
    let app = App::new()
        .subscribe(Channel::new("orders"), forward_default)
        .subscribe(Channel::new("orders"), forward_link_only.parent_mode(ParentMode::LinkOnly));
    let test = start(app).await;
    publish_remote(&test, "orders", "tenant=acme").await;

    let (process, message) = origin(&test, "from.default").await;
    assert_eq!((process.span_context.trace_id().to_string(), process.parent_span_id.to_string()), remote_ids());
    assert_eq!(traceparent(&message).0, TRACE);

    let (process, message) = origin(&test, "from.link_only").await;
    assert_ne!(process.span_context.trace_id().to_string(), TRACE);
    assert_eq!((process.parent_span_id, links(&process)), (SpanId::INVALID, vec![remote_ids()]));
    assert_eq!(traceparent(&message).0, ids(&process).0);
    assert_eq!(message.headers().get("baggage"), Some("tenant=acme"), "the mode is about spans, not about baggage");
}

/// LINK-10: the mode of the telemetry is that of every subscription without its own.
#[tokio::test]
async fn the_telemetrys_parent_mode_is_the_default_of_subscriptions() {
    let app = App::new()
        .subscribe(Channel::new("orders"), forward_link_only)
        .subscribe(Channel::new("orders"), forward_default.parent_mode(ParentMode::Auto));
    let test = start_with(app, |telemetry| telemetry.parent_mode(ParentMode::LinkOnly)).await;
    publish_remote(&test, "orders", "").await;
    let (process, _) = origin(&test, "from.link_only").await;
    assert_eq!(process.parent_span_id, SpanId::INVALID);
    let (process, _) = origin(&test, "from.default").await;
    assert_eq!(process.parent_span_id.to_string(), SPAN);
}
