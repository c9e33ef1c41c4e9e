//! How far the headers of a message are trusted (PROP-22), and what a filter leaves standing.

use std::time::Duration;

use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{SpanId, SpanKind};
use throughline_core::broker::Broker as _;
use throughline_core::extract::{Baggage, Batch};
use throughline_core::message::OperationType;
use throughline_core::telemetry::{BaggagePolicy, Trust};
use throughline_core::{App, CurrentBaggage, Handler, Headers, PublishError, Publisher};
use throughline_memory::{Channel, Memory};
use throughline_testing::{AppTest, Capture, start, start_with};

use crate::support::{SPAN, TRACE, TRACEPARENT, ids, links, point, publish_remote, traceparent};

async fn forward(publisher: Publisher, baggage: Baggage) -> Result<(), PublishError> {
    let seen = baggage.get("tenant").unwrap_or_else(|| "nobody".to_owned());
    publisher.publish("forwarded", seen).await.map(drop)
}

async fn forward_each(batch: Batch<String>, publisher: Publisher) {
    for message in batch {
        message.run(async |_| publisher.publish("forwarded", "42").await.map(drop)).await;
    }
}

async fn received_with(trust: Trust) -> AppTest {
    let test = start(App::new().subscribe(Channel::new("orders"), forward.trust(trust))).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    test.settle().await;
    test
}

/// PROP-22, `continue`.
#[tokio::test]
async fn trusted_headers_give_the_parent_and_the_baggage() {
    let test = received_with(Trust::Continue).await;
    let forwarded = test.next_delivery("forwarded").await;
    assert_eq!(forwarded.payload().as_ref(), b"acme");
    assert_eq!((traceparent(&forwarded).0.as_str(), forwarded.headers().get("baggage")), (TRACE, Some("tenant=acme")));
}

/// PROP-22, `link`: the producer is linked, never the parent; its baggage is dropped.
#[tokio::test]
async fn headers_that_may_only_link_give_neither_parent_nor_baggage() {
    let test = received_with(Trust::Link).await;
    let process = test.capture().tree().find("process orders").clone();
    assert_eq!((process.parent_span_id, links(&process)), (SpanId::INVALID, vec![(TRACE.into(), SPAN.into())]));
    let forwarded = test.next_delivery("forwarded").await;
    assert_eq!(forwarded.payload().as_ref(), b"nobody");
    assert_eq!((traceparent(&forwarded).0, forwarded.headers().get("baggage")), (ids(&process).0, None));
}

/// PROP-22, `ignore`: as if there were no headers.
#[tokio::test]
async fn ignored_headers_are_not_read() {
    let test = received_with(Trust::Ignore).await;
    let process = test.capture().tree().find("process orders").clone();
    assert_eq!((process.parent_span_id, links(&process)), (SpanId::INVALID, vec![]));
    assert_ne!(process.span_context.trace_id().to_string(), TRACE);
    assert_eq!(test.next_delivery("forwarded").await.payload().as_ref(), b"nobody");
}

/// PROP-22: `link` also where the process span is filtered out, so that nothing stands between the headers and the publish.
#[tokio::test]
async fn headers_that_may_only_link_are_not_passed_on_without_a_process_span() {
    let app = App::new().subscribe(Channel::new("orders"), forward.trust(Trust::Link));
    let test = start_with(app, |t| t.filter(|operation| operation.operation_type != OperationType::Process)).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    assert_ne!(traceparent(&test.next_delivery("forwarded").await).0, TRACE);
}

/// PROP-22: `link` also for the work on one message of a batch, which then belongs to the batch.
#[tokio::test]
async fn headers_that_may_only_link_are_no_parent_of_the_work_on_one_message_of_a_batch() {
    let orders = Channel::new("orders").batch(1, Duration::from_secs(1));
    let test = start(App::new().subscribe(orders, forward_each.trust(Trust::Link))).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    let tree = test.trace().await;
    let forwarded = test.next_delivery("forwarded").await;
    assert_eq!(traceparent(&forwarded).0, ids(tree.find("process orders")).0);
    assert_eq!(forwarded.headers().get("baggage"), None);
}

/// PROP-01, LINK-16: work on a message of a batch that has no trace of its own belongs to the batch.
#[tokio::test]
async fn work_on_a_message_without_a_trace_belongs_to_its_batch() {
    let orders = Channel::new("orders").batch(1, Duration::from_secs(1));
    let test = start(App::new().subscribe(orders, forward_each)).await;
    crate::support::untraced(&test).publish("orders", "42").await.unwrap();
    test.trace().await.assert_tree("process orders\n└─ publish forwarded");
}

/// PROP-01, PROP-20, METR-12: a filtered operation has no span, and yet the trace, the baggage and the metrics go on.
#[tokio::test]
async fn a_filter_takes_spans_away_and_nothing_else() {
    let app = App::new().subscribe(Channel::new("orders"), forward);
    let test = start_with(app, |t| t.filter(|operation| operation.destination != "orders")).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    let forwarded = test.next_delivery("forwarded").await;
    assert_eq!((traceparent(&forwarded).0.as_str(), forwarded.headers().get("baggage")), (TRACE, Some("tenant=acme")));
    let tree = test.trace().await;
    assert_eq!(tree.find("publish forwarded").parent_span_id.to_string(), SPAN, "the nearest span there is");
    tree.assert_tree("publish forwarded ~ parent not captured");
    assert_eq!(point(test.capture(), "messaging.process.duration", &[]).count, 1);
    assert_eq!(point(test.capture(), "messaging.client.consumed.messages", &[]).sum, 1.0);
}

/// PROP-01: where the send span is filtered out, the message carries the context it was published in.
#[tokio::test]
async fn a_message_whose_send_span_is_filtered_carries_the_surrounding_context() {
    let app = App::new().subscribe(Channel::new("orders"), forward);
    let test = start_with(app, |t| t.filter(|operation| operation.operation_type != OperationType::Send)).await;
    publish_remote(&test, "orders", "").await;
    let forwarded = test.next_delivery("forwarded").await;
    assert_eq!(traceparent(&forwarded), ids(test.trace().await.find("process orders")));
}

/// A request that came another way than by a message is trusted as messages are, and what is published for it is in its trace.
#[tokio::test]
async fn the_headers_of_a_request_are_trusted_as_those_of_a_message() {
    let headers = Headers::from_iter([("traceparent", TRACEPARENT), ("baggage", "tenant=acme,user=7")]);
    for trust in [Trust::Continue, Trust::Link, Trust::Ignore] {
        let (capture, memory) = (Capture::new(), Memory::new());
        let only = BaggagePolicy::only(["tenant"]);
        let otel = capture.instrumentation().trust(trust).inbound_baggage(only).build();
        let mut orders = memory.subscribe(&Channel::new("orders").into()).await.unwrap();
        let publisher = memory.publisher().telemetry(otel.clone());
        let context = otel.server_span("POST /orders", &headers);
        async { publisher.publish("orders", "42").await.unwrap() }.with_context(context).await;
        let published = orders.receive().await.unwrap();
        let tree = capture.tree();
        let (server, publish) = (tree.find("POST /orders").clone(), tree.find("publish orders"));
        assert_eq!(server.span_kind, SpanKind::Server);
        assert_eq!(publish.parent_span_id, server.span_context.span_id());
        let asked = (TRACE.to_owned(), SPAN.to_owned());
        let (parent, linked, baggage) = match trust {
            Trust::Continue => (SPAN, vec![], Some("tenant=acme")),
            Trust::Link => ("0000000000000000", vec![asked], None),
            _ => ("0000000000000000", vec![], None),
        };
        assert_eq!((server.parent_span_id.to_string().as_str(), links(&server)), (parent, linked), "{trust:?}");
        assert_eq!(published.delivery.headers().get("baggage"), baggage, "{trust:?}");
        let same_trace = server.span_context.trace_id().to_string() == TRACE;
        assert_eq!(same_trace, trust == Trust::Continue, "{trust:?}");
    }
}
