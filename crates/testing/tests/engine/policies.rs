//! Which baggage comes in and which leaves (BAGG-15).

use throughline_core::extract::Baggage;
use throughline_core::telemetry::BaggagePolicy;
use throughline_core::{App, CurrentBaggage, CurrentSpan, PublishError, Publisher};
use throughline_memory::Channel;
use throughline_testing::start_with;

use crate::support::publish_remote;

async fn forward(publisher: Publisher, baggage: Baggage) -> Result<(), PublishError> {
    let keys: Vec<String> = baggage.get_all().into_keys().collect();
    publisher.publish("forwarded", keys.join(" ")).await.map(drop)
}

/// What the handler saw, and what it passed on.
async fn forwarded(inbound: BaggagePolicy, outbound: BaggagePolicy) -> (String, Option<String>) {
    let app = App::new().subscribe(Channel::new("orders"), forward);
    let settings = |t: throughline_core::telemetry::Builder<_>| {
        t.inbound_baggage(inbound.clone()).outbound_baggage(outbound.clone())
    };
    let test = start_with(app, settings).await;
    publish_remote(&test, "orders", "tenant=acme,user=bob").await;
    let message = test.next_delivery("forwarded").await;
    let body = String::from_utf8(message.payload().to_vec()).unwrap();
    (body, message.headers().get("baggage").map(str::to_owned))
}

/// BAGG-11.
#[tokio::test]
async fn by_default_all_baggage_comes_in_and_goes_on() {
    let found = forwarded(BaggagePolicy::All, BaggagePolicy::All).await;
    assert_eq!(found, ("tenant user".to_owned(), Some("tenant=acme,user=bob".to_owned())));
}

/// BAGG-15.
#[tokio::test]
async fn only_admitted_baggage_comes_in() {
    let found = forwarded(BaggagePolicy::only(["tenant"]), BaggagePolicy::All).await;
    assert_eq!(found, ("tenant".to_owned(), Some("tenant=acme".to_owned())));
    assert_eq!(forwarded(BaggagePolicy::Off, BaggagePolicy::All).await, (String::new(), None));
}

/// BAGG-15: what may not leave is still there for the handler.
#[tokio::test]
async fn only_admitted_baggage_leaves() {
    let found = forwarded(BaggagePolicy::All, BaggagePolicy::only(["user"])).await;
    assert_eq!(found, ("tenant user".to_owned(), Some("user=bob".to_owned())));
    assert_eq!(forwarded(BaggagePolicy::All, BaggagePolicy::Off).await, ("tenant user".to_owned(), None));
}

/// BAGG-15: baggage that a handler sets is subject to the policy too, and so is that of another call.
#[tokio::test]
async fn what_a_handler_sets_leaves_only_when_admitted() {
    async fn set(
        publisher: Publisher,
        baggage: Baggage,
        span: throughline_core::extract::ProcessSpan,
    ) -> Result<(), PublishError> {
        baggage.set("secret", "1");
        baggage.set("tenant", "globex");
        let mut headers = std::collections::HashMap::new();
        span.inject(&mut headers);
        publisher.publish("forwarded", headers.get("baggage").cloned().unwrap_or_default()).await.map(drop)
    }
    let app = App::new().subscribe(Channel::new("orders"), set);
    let test = start_with(app, |t| t.outbound_baggage(BaggagePolicy::only(["tenant"]))).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    let message = test.next_delivery("forwarded").await;
    assert_eq!(message.headers().get("baggage"), Some("tenant=globex"));
    assert_eq!(message.payload().as_ref(), b"tenant=globex", "an HTTP call, say");
}

/// BAGG-15: baggage can be left out of one publish.
#[tokio::test]
async fn one_publish_can_go_without_baggage() {
    async fn publish_both(publisher: Publisher) -> Result<(), PublishError> {
        Baggage::new().scope(publisher.publish("outside", "1")).await?;
        publisher.publish("inside", "2").await.map(drop)
    }
    let test = start_with(App::new().subscribe(Channel::new("orders"), publish_both), |t| t).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    assert_eq!(test.next_delivery("outside").await.headers().get("baggage"), None);
    assert_eq!(test.next_delivery("inside").await.headers().get("baggage"), Some("tenant=acme"));
    let tree = test.trace().await;
    assert_eq!(tree.parent(tree.find("publish outside")).unwrap().name, "process orders");
}
