//! `CurrentSpan`: the span of the message, and calls to other services that continue its trace (TRAP-19, issue 3).

use std::collections::HashMap;

use opentelemetry::context::FutureExt;
use opentelemetry::propagation::Injector;
use opentelemetry::trace::{SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use throughline_core::extract::{Baggage, ProcessSpan, State};
use throughline_core::telemetry::Instrumentation;
use throughline_core::{App, CurrentBaggage, CurrentSpan, Delivery};
use throughline_memory::{Channel, Memory};
use throughline_testing::{Capture, attribute, attributes, start, start_with};

use crate::support::{Seen, ids, publish_remote};

type Call = HashMap<String, String>;

/// Issue 3: the headers of another call carry the span and the baggage as the handler has changed it.
#[tokio::test]
async fn a_call_to_another_service_continues_the_trace_with_the_changed_baggage() {
    async fn call(span: ProcessSpan, baggage: Baggage, State(seen): State<Seen<Call>>) {
        baggage.set("warehouse", "north");
        baggage.remove("user");
        let mut request = HashMap::new();
        span.inject(&mut request);
        seen.push(request);
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(Channel::new("orders"), call).with_state(seen.clone())).await;
    publish_remote(&test, "orders", "tenant=acme,user=bob").await;
    let process = test.trace().await.find("process orders").clone();
    let request = seen.one();
    let (trace, span) = ids(&process);
    assert_eq!(request.get("traceparent"), Some(&format!("00-{trace}-{span}-01")));
    assert_eq!(request.get("baggage").map(String::as_str), Some("tenant=acme,warehouse=north"));
}

/// Issue 3: made inside an inner span, the call is a child of that span.
#[tokio::test]
async fn a_call_made_in_an_inner_span_is_a_child_of_that_span() {
    async fn call(delivery: Delivery, State((tracer, seen)): State<(opentelemetry_sdk::trace::SdkTracer, Seen<Call>)>) {
        delivery.baggage().set("warehouse", "north");
        let inner = Context::current().with_span(tracer.start_with_context("GET /stock", &Context::current()));
        let request = async {
            let mut request = HashMap::new();
            delivery.inject(&mut request);
            request
        };
        seen.push(request.with_context(inner.clone()).await);
        inner.span().end();
    }
    let (seen, own) = (Seen::new(), Capture::new());
    let state = (own.tracer_provider().tracer("http"), seen.clone());
    let test = start(App::new().subscribe(Channel::new("orders"), call).with_state(state)).await;
    test.publish("orders", "42").await;
    test.settle().await;
    let (trace, span) = ids(own.tree().find("GET /stock"));
    let request = seen.one();
    assert_eq!(request.get("traceparent"), Some(&format!("00-{trace}-{span}-01")));
    assert_eq!(request.get("baggage").map(String::as_str), Some("warehouse=north"));
}

/// Issue 3: the configured propagator writes, not a fixed one.
#[tokio::test]
async fn a_call_is_written_by_the_configured_propagator() {
    struct Upper(Call);
    impl Injector for Upper {
        fn set(&mut self, key: &str, value: String) {
            self.0.insert(key.to_uppercase(), value);
        }
    }
    async fn call(span: ProcessSpan, State(seen): State<Seen<Call>>) {
        let mut request = Upper(HashMap::new());
        span.inject(&mut request);
        seen.push(request.0);
    }
    let seen = Seen::new();
    let app = App::new().subscribe(Channel::new("orders"), call).with_state(seen.clone());
    let test = start_with(app, |telemetry| {
        telemetry.propagator(throughline_core::propagation::Propagators::from_names("b3").unwrap())
    })
    .await;
    test.publish("orders", "42").await;
    let process = test.trace().await.find("process orders").clone();
    let (trace, span) = ids(&process);
    assert_eq!(seen.one(), HashMap::from([("B3".to_owned(), format!("{trace}-{span}-1"))]));
}

/// Design, section 4: attributes and events of the handler are on the process span.
#[tokio::test]
async fn what_a_handler_adds_is_on_the_process_span() {
    async fn reserve(span: ProcessSpan, delivery: Delivery) {
        span.set_attribute("order.items", 3);
        delivery.add_event("reserved", [KeyValue::new("shelf", "a1")]);
        span.with_span(|span| span.update_name("process orders of bob"));
        assert_eq!(span.span_context(), Context::current().span().span_context().clone());
        assert_eq!(span.context().span().span_context(), &span.span_context());
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reserve)).await;
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    let process = tree.find("process orders of bob");
    assert_eq!((&process.span_kind, attribute(process, "order.items")), (&SpanKind::Consumer, Some(&3.into())));
    let events: Vec<_> =
        process.events.iter().map(|event| (event.name.as_ref(), attributes(&event.attributes))).collect();
    assert_eq!(events, [("reserved", [("shelf", "a1".into())].into())]);
}

/// STAT-19: where no logger provider was given, an error the handler records is an event of the span.
#[tokio::test]
async fn without_a_logger_provider_a_recorded_error_is_a_span_event() {
    async fn handle(span: ProcessSpan) {
        span.record_error(&std::fmt::Error);
    }
    let (capture, memory) = (Capture::new(), Memory::recording());
    let engine = Instrumentation::builder().tracer_provider(capture.tracer_provider()).build();
    let app = App::new().subscribe(Channel::new("orders"), handle).telemetry(engine);
    let _running = throughline_core::serve(memory.clone(), app).start().await.unwrap();
    memory.publisher().without_telemetry().publish("orders", "42").await.unwrap();
    memory.idle().await;
    let tree = capture.tree();
    let event = &tree.find("process orders").events[0];
    assert_eq!(event.name, "exception");
    assert_eq!(attributes(&event.attributes)["exception.type"], "core::fmt::Error".into());
}
