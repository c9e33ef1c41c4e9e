//! An app that was written for another broker starts on the in-memory one, unchanged (issue 3, section 5).

use std::time::Duration;

use throughline_core::broker::{BatchPolicy, BrokerErrorKind, Pattern, Subscription, Wildcards};
use throughline_core::extract::{Batch, FromDelivery, Rejection, State};
use throughline_core::message::Native;
use throughline_core::{App, Delivery, Handler, ServeErrorKind, serve};
use throughline_memory::Memory;
use throughline_testing::start;

use crate::support::Seen;

/// The signs of a broker that is neither NATS nor the in-memory one.
const SLASHES: Wildcards = Wildcards::new('/', "+", "#").rest_may_be_empty();

fn subscription(pattern: &'static str) -> Subscription {
    Subscription::new("other", Pattern::new(pattern, SLASHES))
}

async fn note(order: String, State(seen): State<Seen<String>>) {
    seen.push(order);
}

#[tokio::test]
async fn patterns_of_another_broker_match_as_they_do_there() {
    let seen = Seen::new();
    let app = App::new().subscribe(subscription("orders/+/placed"), note).subscribe(subscription("audit/#"), note);
    let test = start(app.with_state(seen.clone())).await;
    for (destination, body) in [
        ("orders/42/placed", "one"),
        ("orders/42/43/placed", "none"),
        ("audit", "rest may be empty"),
        ("audit/eu/1", "rest"),
        ("bills", "none"),
    ] {
        test.publish(destination, body).await;
    }
    test.settle().await;
    let mut seen = seen.take();
    seen.sort();
    assert_eq!(seen, ["one", "rest", "rest may be empty"]);
    let tree = test.capture().tree();
    assert_eq!(tree.find_all("process orders/+/placed").len(), 1, "SPAN-20: the pattern, not the name");
    assert_eq!(tree.find_all("process audit/#").len(), 2);
}

#[tokio::test]
async fn a_group_of_another_broker_shares_its_messages() {
    let (one, all) = (Seen::new(), Seen::new());
    let member = |seen: &Seen<String>| {
        let seen = seen.clone();
        move |order: String| {
            seen.push(order);
            async {}
        }
    };
    let app: App = App::new()
        .subscribe(subscription("orders").with_group("stock"), member(&one))
        .subscribe(subscription("orders").with_group("billing"), member(&all));
    let second: App = App::new().subscribe(subscription("orders").with_group("stock"), member(&one));
    let test = start(app).await;
    let _second = serve(test.broker().clone(), second.without_telemetry()).start().await.unwrap();
    for order in ["1", "2", "3", "4"] {
        test.publish("orders", order).await;
    }
    test.settle().await;
    let (mut one, mut all) = (one.take(), all.take());
    one.sort();
    all.sort();
    assert_eq!(
        (one, all),
        (vec!["1".into(), "2".into(), "3".into(), "4".into()], ["1", "2", "3", "4"].map(String::from).to_vec())
    );
}

#[tokio::test]
async fn batches_of_another_broker_are_batches_here() {
    async fn count(batch: Batch<String>, State(seen): State<Seen<usize>>) {
        seen.push(batch.len());
    }
    let seen = Seen::new();
    let policy = BatchPolicy::new(3, Duration::from_secs(5));
    let test =
        start(App::new().subscribe(subscription("orders").with_batch(policy), count).with_state(seen.clone())).await;
    test.publisher().publish_batch("orders", ["1", "2", "3"]).await.unwrap();
    test.settle().await;
    assert_eq!(seen.one(), 3);
}

/// What a broker's own extractors read is set by the test.
#[tokio::test]
async fn a_brokers_own_extractor_reads_what_the_test_set() {
    struct Record {
        offset: u64,
    }
    impl Native for Record {}
    struct Offset(u64);
    impl<S: Sync> FromDelivery<S> for Offset {
        async fn from_delivery(delivery: &Delivery, _: &S) -> Result<Self, Rejection> {
            let record = delivery.native::<Record>().ok_or_else(|| Rejection::malformed("not from that broker"))?;
            Ok(Self(record.offset))
        }
    }
    async fn handle(Offset(offset): Offset, State(seen): State<Seen<u64>>) {
        seen.push(offset);
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(subscription("orders"), handle).with_state(seen.clone())).await;
    test.broker().deliver(Delivery::new("orders", "42").with_native(std::sync::Arc::new(Record { offset: 7 })));
    test.settle().await;
    assert_eq!(seen.one(), 7);
}

/// What memory cannot imitate is refused, with what it is and what to do.
#[tokio::test]
async fn what_cannot_be_imitated_is_refused_clearly() {
    async fn handle(_order: String) {}
    let needy = subscription("orders").with_need("a start position").with_need("compaction");
    let error =
        serve(Memory::new(), App::new().subscribe(needy, handle.concurrency(2))).start().await.expect_err("refused");
    let cause = error.broker_error().expect("the broker says why");
    assert_eq!((error.kind(), cause.kind()), (ServeErrorKind::Subscribe, BrokerErrorKind::Unsupported));
    assert_eq!(error.to_string(), format!("cannot subscribe to `orders`: {cause}"));
    assert_eq!(
        cause.to_string(),
        "the in-memory broker cannot imitate a start position and compaction that the subscription to `orders` needs: \
         run this test on the real broker (other)"
    );
}

/// The testing crate says all of that in one line.
#[tokio::test]
#[should_panic(
    expected = "the app cannot be served: cannot subscribe to `orders`: the in-memory broker cannot imitate a start position"
)]
async fn a_test_of_such_an_app_fails_with_that_text() {
    async fn handle(_order: String) {}
    start(App::new().subscribe(subscription("orders").with_need("a start position"), handle)).await;
}

/// Issue 3, section 7: two subscriptions that would each see a part of the messages are refused at start.
#[tokio::test]
async fn subscriptions_that_contradict_each_other_are_refused() {
    async fn handle(_order: String) {}
    let twice = || subscription("orders").with_group("stock");
    let app: App = App::new().subscribe(twice(), handle).subscribe(twice(), handle);
    let error = serve(Memory::new(), app).start().await.expect_err("refused");
    assert_eq!(error.kind(), ServeErrorKind::Configuration);
    let text = error.broker_error().unwrap().to_string();
    assert!(text.contains("`orders`") && text.contains("`stock`") && text.contains("different groups"), "{text}");
}
