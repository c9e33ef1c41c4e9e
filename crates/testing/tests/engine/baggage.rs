//! `CurrentBaggage`: start, look at, change, pass on, stop (BAGG).

use std::collections::BTreeMap;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use throughline_core::extract::{Baggage, State};
use throughline_core::{App, CurrentBaggage, Delivery, Headers, PublishError, Publisher};
use throughline_memory::Channel;
use throughline_testing::start;

use crate::support::{Seen, ids, publish_remote, traceparent};

fn entries<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn carried(delivery: &Delivery) -> Option<&str> {
    delivery.headers().get("baggage")
}

/// BAGG-11: incoming baggage is seen through the extractor, the delivery and the OpenTelemetry context alike.
#[tokio::test]
async fn incoming_baggage_is_visible_everywhere() {
    async fn look(baggage: Baggage, delivery: Delivery, State(seen): State<Seen<BTreeMap<String, String>>>) {
        assert_eq!((baggage.get("tenant").as_deref(), baggage.get("nobody")), (Some("acme"), None));
        assert_eq!(delivery.baggage().get("tenant").as_deref(), Some("acme"));
        assert_eq!(Context::current().baggage().get("tenant").map(|value| value.as_str()), Some("acme"));
        assert_eq!((baggage.get_all_batch(), baggage.conflicts()), (vec![baggage.get_all()], vec![]));
        seen.push(baggage.get_all());
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(Channel::new("orders"), look).with_state(seen.clone())).await;
    publish_remote(&test, "orders", "tenant=acme,user=bob%20b").await;
    test.settle().await;
    assert_eq!(seen.one(), entries([("tenant", "acme"), ("user", "bob b")]));
}

async fn change(publisher: Publisher, baggage: Baggage) -> Result<(), PublishError> {
    publisher.publish("as.it.came", "").await?;
    assert!(baggage.set("warehouse", "north 1"));
    assert!(baggage.set("tenant", "globex"));
    publisher.publish("set", "").await?;
    baggage.remove("tenant");
    baggage.remove("never there");
    publisher.publish("removed", "").await?;
    baggage.clear();
    assert!(baggage.get_all().is_empty());
    publisher.publish("cleared", "").await?;
    baggage.set("fresh", "1");
    publisher.publish("fresh", "").await.map(drop)
}

/// Design, section 4: what a handler sets, removes or clears is what its later publishes carry.
#[tokio::test]
async fn changes_are_carried_by_later_publishes_and_by_them_alone() {
    let test = start(App::new().subscribe(Channel::new("orders"), change)).await;
    publish_remote(&test, "orders", "tenant=acme,user=bob;private").await;
    test.settle().await;
    let expected = [
        ("as.it.came", Some("tenant=acme,user=bob;private")),
        ("set", Some("tenant=globex,user=bob;private,warehouse=north%201")),
        ("removed", Some("user=bob;private,warehouse=north%201")),
        ("cleared", None),
        ("fresh", Some("fresh=1")),
    ];
    for (destination, baggage) in expected {
        assert_eq!(carried(&test.next_delivery(destination).await), baggage, "{destination}");
    }
}

/// Design, section 4: a reply is a later publish too.
#[tokio::test]
async fn replies_carry_the_changed_baggage() {
    use throughline_core::Handler;
    async fn reserve(order: String, baggage: Baggage) -> String {
        baggage.set("warehouse", "north");
        order
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reserve.reply_to("reserved"))).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    assert_eq!(carried(&test.next_delivery("reserved").await), Some("tenant=acme,warehouse=north"));
}

/// BAGG-01, BAGG-07, BAGG-17: what cannot be carried is refused, and says so.
#[test]
fn entries_that_cannot_be_carried_are_refused() {
    let baggage = Baggage::new();
    for key in ["", "two words", "a=b", "a,b", "a;b", "ключ", "a\"b"] {
        assert!(!baggage.set(key, "1"), "{key:?}");
        assert_eq!(baggage.get(key), None, "{key:?}");
    }
    assert!(!baggage.set("large", "x".repeat(9000)));
    assert!(baggage.set("empty", ""));
    assert!(baggage.set("odd", "a=b, c;d \u{e4}"));
    assert_eq!(baggage.get("odd").as_deref(), Some("a=b, c;d \u{e4}"));
    assert_eq!(baggage.get_all().len(), 2);
}

/// BAGG-17: what is removed makes room again.
#[test]
fn removed_entries_make_room() {
    let baggage = Baggage::new();
    for _ in 0..20 {
        assert!(baggage.set("large", "x".repeat(4000)));
        baggage.remove("large");
    }
    assert!(baggage.set("large", "x".repeat(8000)));
    assert!(!baggage.set("more", "x".repeat(1000)), "there is no room beside it");
    baggage.clear();
    assert!(baggage.set("more", "x".repeat(1000)));
}

/// BAGG-02, BAGG-03.
#[test]
fn headers_and_back_is_the_same() {
    let baggage = Baggage::new().with("tenant", "acme").with("note", " 50% of a,b;c=d ä");
    let headers = baggage.to_headers();
    assert_eq!(headers.get("baggage"), Some("note=%2050%25%20of%20a%2Cb%3Bc=d%20%C3%A4,tenant=acme"));
    assert_eq!(Baggage::from_headers(&headers).get_all(), baggage.get_all());
    assert!(Baggage::new().to_headers().is_empty());
}

/// BAGG-10, PROP-12: malformed entries are left out, several headers are one.
#[test]
fn malformed_headers_give_what_can_be_read() {
    let headers = Headers::from_iter([("Baggage", "tenant=acme,,=x,no value,b%=1"), ("Baggage", "user=bob")]);
    let read = Baggage::from_headers(&headers).get_all();
    assert_eq!(
        (read.get("tenant").map(String::as_str), read.get("user").map(String::as_str)),
        (Some("acme"), Some("bob"))
    );
    assert!(Baggage::from_headers(&Headers::new()).get_all().is_empty());
}

/// Issue 3: a producer outside any handler can start baggage.
#[tokio::test]
async fn baggage_can_be_started_outside_any_handler() {
    let test = start(App::new()).await;
    Baggage::new().with("tenant", "acme").scope(test.publish("orders", "1")).await;
    test.publish("orders", "2").await;
    assert_eq!(carried(&test.next_delivery("orders").await), Some("tenant=acme"));
    assert_eq!(carried(&test.next_delivery("orders").await), None, "the scope has ended");
}

/// Issue 3, LINK-11: inside an HTTP server's span, that span stays the parent.
#[tokio::test]
async fn started_baggage_leaves_the_ambient_span_the_parent() {
    let test = start(App::new()).await;
    let tracer = test.capture().tracer_provider().tracer("http");
    let server = Context::new().with_span(tracer.start_with_context("GET /", &Context::new()));
    let request = async { Baggage::new().with("tenant", "acme").scope(test.publish("orders", "1")).await };
    request.with_context(server.clone()).await;
    server.span().end();
    test.trace().await.assert_tree("GET /\n└─ publish orders");
    assert_eq!(carried(&test.next_delivery("orders").await), Some("tenant=acme"));
}

/// Design, section 4: the scoped form is current for foreign instrumentation.
#[tokio::test]
async fn scoped_baggage_is_in_the_opentelemetry_context() {
    async fn call(baggage: Baggage, State(seen): State<Seen<Vec<Option<String>>>>) {
        let current = || Context::current().baggage().get("warehouse").map(ToString::to_string);
        let before = current();
        baggage.set("warehouse", "north");
        let unscoped = current();
        let scoped = baggage.scope(async { (current(), Context::current().has_active_span()) }).await;
        assert!(scoped.1, "the process span stays current");
        seen.push(vec![before, unscoped, scoped.0, current()]);
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(Channel::new("orders"), call).with_state(seen.clone())).await;
    test.publish("orders", "1").await;
    test.settle().await;
    assert_eq!(seen.one(), [None, None, Some("north".to_owned()), None]);
}

/// Design, section 4: what is changed inside the scoped form counts for later publishes as well.
#[tokio::test]
async fn changes_inside_the_scoped_form_are_carried() {
    async fn call(baggage: Baggage, publisher: Publisher) -> Result<(), PublishError> {
        let inside = async {
            baggage.set("warehouse", "north");
            publisher.publish("inside", "").await
        };
        baggage.scope(inside).await?;
        publisher.publish("after", "").await.map(drop)
    }
    let test = start(App::new().subscribe(Channel::new("orders"), call)).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    for destination in ["inside", "after"] {
        let message = test.next_delivery(destination).await;
        assert_eq!(carried(&message), Some("tenant=acme,warehouse=north"), "{destination}");
    }
}

/// The same outside any handler, with and without an ambient span.
#[tokio::test]
async fn changes_inside_started_baggage_are_carried() {
    let test = start(App::new()).await;
    let tracer = test.capture().tracer_provider().tracer("http");
    let server = Context::new().with_span(tracer.start_with_context("GET /", &Context::new()));
    for context in [Context::new(), server] {
        let baggage = Baggage::new().with("tenant", "acme");
        let inside = async {
            baggage.set("user", "bob");
            baggage.remove("tenant");
            test.publish("orders", "1").await;
        };
        baggage.scope(inside).with_context(context).await;
        assert_eq!(carried(&test.next_delivery("orders").await), Some("user=bob"));
    }
}

/// BAGG-11: baggage that is in the context without us, as HTTP instrumentation puts it there, is carried too.
#[tokio::test]
async fn baggage_of_the_ambient_context_is_carried() {
    let test = start(App::new()).await;
    let context = Context::new().with_baggage([KeyValue::new("tenant", "acme")]);
    test.publish("orders", "1").with_context(context).await;
    assert_eq!(carried(&test.next_delivery("orders").await), Some("tenant=acme"));
}

/// Baggage read from the headers of one message can be given to another publish.
#[tokio::test]
async fn baggage_read_from_headers_can_be_given_to_a_publish() {
    let test = start(App::new()).await;
    let stored = Headers::from_iter([("baggage", "tenant=acme")]);
    Baggage::from_headers(&stored).scope(test.publish("orders", "1")).await;
    let message = test.next_delivery("orders").await;
    assert_eq!(carried(&message), Some("tenant=acme"));
    assert_eq!(traceparent(&message), ids(test.capture().tree().find("publish orders")));
}
