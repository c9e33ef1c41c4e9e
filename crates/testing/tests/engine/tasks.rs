//! Contexts and tasks: what a handler starts belongs to its message, and to no other (TRAP-01 to -05).

use std::collections::HashMap;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use throughline_core::extract::{Baggage, ProcessSpan, State};
use throughline_core::{App, CurrentBaggage, CurrentSpan, Handler, PublishError, Publisher};
use throughline_memory::Channel;
use throughline_testing::{attribute, start};
use tokio::task::{spawn, spawn_blocking, yield_now};

use crate::support::{Seen, ids, traceparent};

/// TRAP-02: the process span is current in a handler and nowhere else, unless it is passed on.
#[tokio::test]
async fn a_spawned_task_is_in_the_trace_only_when_the_context_is_passed_on() {
    async fn reserve(State(seen): State<Seen<bool>>) {
        let is_traced = || Context::current().has_active_span();
        seen.push(is_traced());
        seen.push(spawn(async move { is_traced() }).await.unwrap());
        seen.push(spawn(async move { is_traced() }.with_current_context()).await.unwrap());
        seen.push(spawn_blocking(is_traced).await.unwrap());
        let context = Context::current();
        let blocking = spawn_blocking(move || {
            let _guard = context.attach();
            is_traced()
        });
        seen.push(blocking.await.unwrap());
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(Channel::new("orders"), reserve).with_state(seen.clone())).await;
    test.publish("orders", "42").await;
    test.settle().await;
    assert_eq!(seen.take(), [true, false, true, false, true]);
}

/// TRAP-02, BAGG-11: the publisher of a handler knows its message, whatever task it is used in.
#[tokio::test]
async fn a_publisher_in_a_spawned_task_belongs_to_the_trace_and_carries_the_changed_baggage() {
    async fn reserve(publisher: Publisher, baggage: Baggage) -> Result<(), PublishError> {
        let task = spawn(async move {
            baggage.set("warehouse", "north");
            publisher.publish("stock.reserved", "42").await.map(drop)
        });
        task.await.expect("the task does not panic")
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reserve)).await;
    Baggage::new().with("tenant", "acme").scope(test.publish("orders", "42")).await;
    let tree = test.trace().await;
    tree.assert_tree("publish orders\n└─ process orders\n   └─ publish stock.reserved");
    let reserved = test.next_delivery("stock.reserved").await;
    assert_eq!(traceparent(&reserved), ids(tree.find("publish stock.reserved")));
    assert_eq!(reserved.headers().get("baggage"), Some("tenant=acme,warehouse=north"));
}

/// TRAP-02: baggage started in a spawned task changes what is carried, not where it belongs.
#[tokio::test]
async fn new_baggage_in_a_spawned_task_does_not_take_the_publish_out_of_the_trace() {
    async fn reserve(publisher: Publisher) -> Result<(), PublishError> {
        let task = spawn(async move {
            Baggage::new().with("tenant", "acme").scope(publisher.publish("stock.reserved", "42")).await.map(drop)
        });
        task.await.expect("the task does not panic")
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reserve)).await;
    test.publish("orders", "42").await;
    test.trace().await.assert_tree("publish orders\n└─ process orders\n   └─ publish stock.reserved");
    assert_eq!(test.next_delivery("stock.reserved").await.headers().get("baggage"), Some("tenant=acme"));
}

/// TRAP-02: middleware given to the publisher in the handler changes nothing about that.
#[tokio::test]
async fn a_publisher_keeps_its_message_when_it_gets_middleware() {
    struct Nothing;
    impl throughline_core::Middleware for Nothing {}

    async fn reserve(publisher: Publisher) -> Result<(), PublishError> {
        let audited = publisher.middleware(Nothing);
        spawn(async move { audited.publish("stock.reserved", "42").await.map(drop) }).await.expect("no panic")
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reserve)).await;
    test.publish("orders", "42").await;
    test.trace().await.assert_tree("publish orders\n└─ process orders\n   └─ publish stock.reserved");
}

/// TRAP-03: a context that the user keeps does not keep the span open, and what is set on it later is lost.
#[tokio::test]
async fn a_process_span_ends_once_although_its_context_is_kept() {
    async fn reserve(span: ProcessSpan, State(seen): State<Seen<Context>>) {
        span.set_attribute("order.items", 3);
        seen.push(span.context());
        seen.push(Context::current());
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(Channel::new("orders"), reserve).with_state(seen.clone())).await;
    test.publish("orders", "42").await;
    test.settle().await;
    let kept = seen.take();
    let tree = test.capture().tree();
    assert_eq!(attribute(tree.find("process orders"), "order.items"), Some(&3.into()));
    for context in kept {
        context.span().set_attribute(KeyValue::new("late", true));
    }
    let tree = test.capture().tree();
    assert_eq!(attribute(tree.find("process orders"), "late"), None);
}

/// TRAP-01, -02: contexts of messages handled at the same time on several threads never mix.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_messages_at_once_keep_their_own_trace_and_baggage() {
    async fn reserve(order: String, baggage: Baggage, publisher: Publisher) -> Result<(), PublishError> {
        let mine = |id: Option<String>| assert_eq!(id.as_deref(), Some(order.as_str()));
        for _ in 0..5 {
            yield_now().await;
            mine(baggage.get("id"));
            mine(Context::current().baggage().get("id").map(ToString::to_string));
        }
        baggage.set("seen", order.clone());
        let inner = spawn(async move {
            yield_now().await;
            publisher.publish("done", order).await.map(drop)
        });
        inner.await.expect("the task does not panic")
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reserve.concurrency(16))).await;
    for number in 0..200 {
        let id = number.to_string();
        Baggage::new().with("id", id.clone()).scope(test.publish("orders", id)).await;
    }
    test.settle().await;
    let mut traces = HashMap::new();
    for _ in 0..200 {
        let order = test.next_delivery("orders").await;
        traces.insert(order.payload().clone(), traceparent(&order).0);
    }
    assert_eq!(traces.len(), 200);
    for _ in 0..200 {
        let done = test.next_delivery("done").await;
        let id = std::str::from_utf8(done.payload()).unwrap();
        assert_eq!(traces.remove(done.payload()).as_ref(), Some(&traceparent(&done).0), "message {id}");
        assert_eq!(done.headers().get("baggage"), Some(format!("id={id},seen={id}").as_str()));
    }
    assert!(test.capture().tree().find_all("process orders").iter().all(|span| span.status == Default::default()));
}

/// TRAP-07: a span of the user's own, started in the handler with the OpenTelemetry API, is a child of the process span.
#[tokio::test]
async fn a_span_started_with_the_opentelemetry_api_is_a_child_of_the_process_span() {
    async fn reserve(State(tracer): State<opentelemetry_sdk::trace::SdkTracer>) {
        tracer.in_span("pack", |_| ());
    }
    let own = throughline_testing::Capture::new();
    let tracer = own.tracer_provider().tracer("service");
    let test = start(App::new().subscribe(Channel::new("orders"), reserve).with_state(tracer)).await;
    test.publish("orders", "42").await;
    let process = test.trace().await.find("process orders").clone();
    let pack = own.tree().find("pack").clone();
    assert_eq!(pack.parent_span_id, process.span_context.span_id());
    assert_eq!(pack.span_context.trace_id(), process.span_context.trace_id());
}
