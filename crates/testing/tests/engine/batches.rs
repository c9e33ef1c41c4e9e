//! Batches: one span, one baggage, and each message's own (BAGG-12, LINK-05, LINK-15).

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use throughline_core::extract::{Baggage, Batch, State};
use throughline_core::middleware::Filter;
use throughline_core::telemetry::BatchBaggage;
use throughline_core::{App, CurrentBaggage, CurrentSpan, Handler, PublishError, Publisher, Settlement};
use throughline_memory::Channel;
use throughline_testing::{AppTest, start, start_with};

use crate::support::{Seen, ids, traceparent, untraced};

fn batches_of(count: usize) -> Channel {
    Channel::new("orders").batch(count, Duration::from_secs(5))
}

/// Two messages that agree on the region, disagree on the tenant, and have one entry each that the other lacks.
async fn publish_two(test: &AppTest) {
    for baggage in ["region=eu,tenant=acme,first=1", "region=eu,tenant=globex,second=2"] {
        untraced(test).publish("orders", "x").header("baggage", baggage).await.unwrap();
    }
    test.settle().await;
}

#[derive(Debug, Eq, PartialEq)]
struct Found {
    all: String,
    each: Vec<String>,
    conflicts: Vec<String>,
    current: String,
}

fn text(entries: BTreeMap<String, String>) -> String {
    let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    entries.join(",")
}

async fn look(
    _batch: Batch<String>,
    baggage: Baggage,
    publisher: Publisher,
    State(seen): State<Seen<Found>>,
) -> Result<(), PublishError> {
    let context = Context::current();
    let current = context.baggage().iter().map(|(key, (value, _))| (key.to_string(), value.to_string())).collect();
    seen.push(Found {
        all: text(baggage.get_all()),
        each: baggage.get_all_batch().into_iter().map(text).collect(),
        conflicts: baggage.conflicts(),
        current: text(current),
    });
    publisher.publish("published", "").await.map(drop)
}

/// What the handler of a batch saw, and what its publish carried.
async fn found(how: BatchBaggage) -> (Found, Option<String>) {
    let seen = Seen::new();
    let app = App::new().subscribe(batches_of(2), look).with_state(seen.clone());
    let test = start_with(app, |telemetry| telemetry.batch_baggage(how)).await;
    publish_two(&test).await;
    let carried = test.next_delivery("published").await.headers().get("baggage").map(str::to_owned);
    (seen.one(), carried)
}

fn expected(merged: &str) -> (Found, Option<String>) {
    let each = ["first=1,region=eu,tenant=acme", "region=eu,second=2,tenant=globex"].map(str::to_owned).to_vec();
    let found =
        Found { all: merged.to_owned(), each, conflicts: vec!["tenant".to_owned()], current: merged.to_owned() };
    (found, Some(merged.to_owned()).filter(|merged| !merged.is_empty()))
}

/// BAGG-12.
#[tokio::test]
async fn baggage_of_a_batch_is_merged_and_the_last_value_wins() {
    assert_eq!(found(BatchBaggage::Merged).await, expected("first=1,region=eu,second=2,tenant=globex"));
}

/// BAGG-12, `agreeing`.
#[tokio::test]
async fn only_baggage_without_conflict_is_merged_where_that_is_asked_for() {
    assert_eq!(found(BatchBaggage::Agreeing).await, expected("first=1,region=eu,second=2"));
}

/// BAGG-12, `none`.
#[tokio::test]
async fn no_baggage_is_merged_where_that_is_asked_for() {
    assert_eq!(found(BatchBaggage::None).await, expected(""));
}

async fn forward_each(batch: Batch<String>, publisher: Publisher) {
    for message in batch {
        message.set("seen", message.body().clone());
        message.run(async |body| publisher.publish("forwarded", body).await.map(drop)).await;
    }
}

async fn publish_tenants(test: &AppTest) -> Vec<(String, String)> {
    let mut origins = Vec::new();
    for (body, tenant) in [("1", "acme"), ("2", "globex"), ("3", "initech")] {
        let order = Baggage::new().with("tenant", tenant);
        order.scope(test.publisher().publish("orders", body).header("tenant", tenant)).await.unwrap();
        origins.push(traceparent(&test.next_delivery("orders").await));
    }
    origins
}

/// Issue 3: each message of a batch offers its own context and baggage, and its work lands in its own trace.
#[tokio::test]
async fn work_on_one_message_is_in_its_trace_with_its_baggage() {
    let test = start(App::new().subscribe(batches_of(3), forward_each)).await;
    let origins = publish_tenants(&test).await;
    let tree = test.trace().await;
    let sent = tree.find_all("publish forwarded");
    for (index, tenant) in ["acme", "globex", "initech"].into_iter().enumerate() {
        let message = test.next_delivery("forwarded").await;
        let baggage = format!("seen={},tenant={tenant}", index + 1);
        assert_eq!(message.headers().get("baggage"), Some(baggage.as_str()));
        assert_eq!(traceparent(&message).0, origins[index].0);
        assert_eq!(sent[index].parent_span_id.to_string(), origins[index].1);
    }
}

/// Issue 3: also where middleware has taken messages out of the batch.
#[tokio::test]
async fn a_filtered_batch_does_not_mix_up_its_messages() {
    let filter = Filter::new(|delivery| delivery.headers().get("tenant") != Some("acme"));
    let test = start(App::new().subscribe(batches_of(3), forward_each.middleware(filter))).await;
    let origins = publish_tenants(&test).await;
    test.settle().await;
    for (index, baggage) in [(1, "seen=2,tenant=globex"), (2, "seen=3,tenant=initech")] {
        let message = test.next_delivery("forwarded").await;
        assert_eq!((&traceparent(&message).0, message.headers().get("baggage")), (&origins[index].0, Some(baggage)));
    }
}

/// Issue 3: the delivery of one message knows its span and baggage as well.
#[tokio::test]
async fn the_delivery_of_one_message_of_a_batch_has_its_context_and_baggage() {
    async fn look(batch: Batch<String>, State(seen): State<Seen<(String, Option<String>)>>) {
        for message in &batch {
            assert_eq!(message.span_context(), message.delivery().span_context());
            let context = message.delivery().span_context();
            seen.push((context.span_id().to_string(), message.delivery().baggage().get("tenant")));
        }
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(batches_of(3), look).with_state(seen.clone())).await;
    let origins = publish_tenants(&test).await;
    test.settle().await;
    let tenants = ["acme", "globex", "initech"].map(|tenant| Some(tenant.to_owned()));
    assert_eq!(seen.take(), Vec::from_iter(origins.into_iter().map(|origin| origin.1).zip(tenants)));
}

/// SPAN-38: the reply to one message is in that message's trace, that of the batch below its process span.
#[tokio::test]
async fn replies_of_a_batch_are_where_they_belong() {
    async fn reply(batch: Batch<String>) -> String {
        for message in batch {
            message.run(async |body| body).await;
        }
        "all".to_owned()
    }
    let test = start(App::new().subscribe(batches_of(1), reply.reply_to("replies"))).await;
    test.publish("orders", "1").await;
    let tree = test.trace().await;
    let order = test.next_delivery("orders").await;
    let (all, one) = (test.next_delivery("replies").await, test.next_delivery("replies").await);
    assert_eq!((all.payload().as_ref(), one.payload().as_ref()), (&b"all"[..], &b"1"[..]));
    assert_eq!(traceparent(&one).0, traceparent(&order).0);
    assert_eq!(traceparent(&all).0, ids(tree.find("process orders")).0);
}

/// Design, section 5: each message of a batch has its own outcome; the others have that of the batch.
#[tokio::test]
async fn each_message_of_a_batch_is_settled_by_itself() {
    async fn settle(batch: Batch<String>) -> Settlement {
        for message in batch {
            match message.body().as_str() {
                "bad" => message.settle(Settlement::reject("bad")),
                "good" => drop(message.run(async |_| ()).await),
                "panics" => assert!(!message.run(async |_| -> () { panic!("no") }).await),
                _ => {}
            }
        }
        Settlement::retry_after(Duration::from_secs(1))
    }
    let test = start(App::new().subscribe(batches_of(4), settle)).await;
    test.publisher().publish_batch("orders", ["good", "bad", "other", "panics"]).await.unwrap();
    let settled = test.broker().settled_within(4, Duration::from_secs(10)).await.unwrap();
    let settled: Vec<Settlement> = settled.into_iter().map(|message| message.settlement).collect();
    assert_eq!(
        settled[..3],
        [Settlement::Ack, Settlement::reject("bad"), Settlement::retry_after(Duration::from_secs(1))]
    );
    assert!(matches!(settled[3], Settlement::Retry { .. }), "a panic is a failure of that message");
}

/// STAT-11: a message that cannot be decoded is rejected by itself, the others are handled.
#[tokio::test]
async fn a_message_of_a_batch_that_cannot_be_decoded_is_rejected_by_itself() {
    async fn sum(batch: Batch<throughline_core::extract::Json<u64>>, State(seen): State<Seen<u64>>) {
        seen.push(batch.iter().map(|message| message.body().0).sum());
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(batches_of(3), sum.dead_letter("dead")).with_state(seen.clone())).await;
    test.publisher().publish_batch("orders", ["1", "no number", "3"]).await.unwrap();
    test.settle().await;
    assert_eq!(seen.one(), 4);
    assert_eq!(test.next::<String>("dead").await, "no number");
}
