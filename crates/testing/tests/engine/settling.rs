//! Spans and metrics of settling and receiving (SPAN-30, SPAN-32, METR-01, METR-14).

use std::time::Duration;

use opentelemetry::trace::SpanKind;
use throughline_core::extract::Batch;
use throughline_core::telemetry::SettleSpans;
use throughline_core::{App, Settlement};
use throughline_memory::Channel;
use throughline_testing::{AppTest, attribute, start_with};

use crate::support::{links, point, points};

/// Acknowledges, rejects, or asks for the message once more.
async fn decide(order: String, delivery: throughline_core::Delivery) -> Settlement {
    match order.as_str() {
        "bad" => Settlement::reject("unknown tenant"),
        "again" if delivery.attempt() == 1 => Settlement::retry_after(Duration::ZERO),
        _ => Settlement::Ack,
    }
}

async fn settled_with(which: SettleSpans) -> AppTest {
    let app = App::new().subscribe(Channel::new("orders"), decide);
    let test = start_with(app, |telemetry| telemetry.settle_spans(which)).await;
    for order in ["good", "bad", "again"] {
        test.publish("orders", order).await;
    }
    test.settle().await;
    test
}

/// SPAN-32 in every mode, METR-01: what has a span changes, what is measured does not.
#[track_caller]
fn assert_settled(test: &AppTest, acks: usize, nacks: usize) {
    let tree = test.capture().tree();
    assert_eq!((tree.find_all("ack orders").len(), tree.find_all("nack orders").len()), (acks, nacks), "{tree}");
    let settled = |verb: &str| {
        let with = [("messaging.operation.name", verb), ("messaging.operation.type", "settle")];
        point(test.capture(), "messaging.client.operation.duration", &with).count
    };
    assert_eq!((settled("ack"), settled("nack")), (2, 2), "METR-01");
}

/// SPAN-32.
#[tokio::test]
async fn by_default_only_exceptional_settlements_have_a_span() {
    assert_settled(&settled_with(SettleSpans::Exceptional).await, 0, 2);
}

/// SPAN-32, LINK-12, LINK-04, STAT-10.
#[tokio::test]
async fn every_settlement_can_have_a_span_below_the_process_span() {
    let test = settled_with(SettleSpans::Always).await;
    assert_settled(&test, 2, 2);
    let tree = test.capture().tree();
    for span in tree.find_all("ack orders").into_iter().chain(tree.find_all("nack orders")) {
        assert_eq!(tree.parent(span).map(|parent| parent.name.as_ref()), Some("process orders"));
        assert_eq!((&span.span_kind, links(span)), (&SpanKind::Client, vec![]));
        assert_eq!((attribute(span, "error.type"), &span.status), (None, &Default::default()));
    }
}

/// SPAN-32.
#[tokio::test]
async fn no_settlement_need_have_a_span() {
    assert_settled(&settled_with(SettleSpans::Never).await, 0, 0);
}

async fn ignore(_order: String) {}

async fn ignore_all(_orders: Batch<String>) {}

/// SPAN-30, METR-14: by default the framework's own polling makes no span, and messages are counted when they are dispatched.
#[tokio::test]
async fn by_default_receiving_has_no_span_and_messages_count_at_dispatch() {
    let test = start_with(App::new().subscribe(Channel::new("orders"), ignore), |telemetry| telemetry).await;
    test.publish("orders", "42").await;
    test.trace().await.assert_tree("publish orders\n└─ process orders");
    let consumed = point(test.capture(), "messaging.client.consumed.messages", &[]);
    assert_eq!(consumed.attributes["messaging.operation.name"].as_str(), "process");
}

/// SPAN-30, SPAN-04, LINK-13, METR-14.
#[tokio::test]
async fn a_receive_span_links_the_producer_and_then_messages_count_there() {
    let app = App::new().subscribe(Channel::new("orders"), ignore);
    let test = start_with(app, |telemetry| telemetry.receive_spans(true)).await;
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    let receive = tree.find("receive orders");
    assert_eq!(receive.span_kind, SpanKind::Client);
    assert_eq!(links(receive), [crate::support::ids(tree.find("publish orders"))]);
    assert_eq!(attribute(receive, "messaging.batch.message_count"), None, "ATTR-C-07");
    let process = tree.find("process orders");
    assert_eq!(tree.parent(process).map(|parent| parent.name.as_ref()), Some("publish orders"));
    let consumed = point(test.capture(), "messaging.client.consumed.messages", &[]);
    assert_eq!((consumed.sum, consumed.attributes["messaging.operation.name"].as_str().as_ref()), (1.0, "receive"));
    let received =
        point(test.capture(), "messaging.client.operation.duration", &[("messaging.operation.type", "receive")]);
    assert_eq!(received.count, 1);
}

/// SPAN-30, ATTR-C-07: one receive span for a batch, which says how many messages there were.
#[tokio::test]
async fn a_batch_is_received_once() {
    let orders = Channel::new("orders").batch(2, Duration::from_secs(5));
    let app = App::new().subscribe(orders, ignore_all);
    let test = start_with(app, |telemetry| telemetry.receive_spans(true)).await;
    test.publisher().publish_batch("orders", ["1", "2"]).await.unwrap();
    let tree = test.trace().await;
    let receive = tree.find("receive orders");
    assert_eq!(attribute(receive, "messaging.batch.message_count"), Some(&2.into()));
    assert_eq!(links(receive).len(), 2);
    assert_eq!(point(test.capture(), "messaging.client.consumed.messages", &[]).sum, 2.0);
    assert_eq!(points(test.capture(), "messaging.process.duration", &[]).len(), 1);
}
