//! Names that others choose tell no operations apart: subjects behind patterns, and addresses that a requester made up (SPAN-17 to -20,
//! METR-09).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use throughline_core::broker::{BatchPolicy, BrokerErrorKind, Observe, Pattern, Subscription, Wildcards};
use throughline_core::extract::Batch;
use throughline_core::message::{Operations, Source, System, Target};
use throughline_core::telemetry::{Incoming, Outgoing, SettleSpans};
use throughline_core::{
    App, BrokerError, Delivery, Destination, Envelope, Headers, PublishError, Publisher, Settlement,
};
use throughline_memory::Channel;
use throughline_testing::{AppTest, Capture, attribute, attributes, start_with};

use crate::support::{Seen, untraced};

const DOTTED: Wildcards = Wildcards::new('.', "*", ">");

pub(crate) fn several() -> Subscription {
    Subscription::new("other", Pattern::new("orders.{id}", DOTTED))
        .with_pattern(Pattern::exact("bills"))
        .with_pattern(Pattern::new("audit.>", DOTTED))
}

/// What one could tell operations apart by: the names of spans, and the destinations on metrics.
pub(crate) fn identities(capture: &Capture) -> (BTreeSet<String>, BTreeSet<String>) {
    let names = capture.spans().into_iter().map(|span| span.name.into_owned()).collect();
    let metrics = capture.metrics().into_iter().flat_map(|point| {
        let attributes = point.attributes.into_iter();
        let destinations = attributes.filter(|(key, _)| key.starts_with("messaging.destination."));
        destinations.map(|(key, value)| format!("{key}={}", value.as_str())).collect::<Vec<_>>()
    });
    (names, metrics.collect())
}

pub(crate) fn set<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.into_iter().map(str::to_owned).collect()
}

async fn all_spans(app: App) -> AppTest {
    start_with(app, |telemetry| telemetry.receive_spans(true).settle_spans(SettleSpans::Always)).await
}

const DESTINATIONS: [&str; 5] = ["orders.0", "orders.1", "bills", "audit.a.b", "audit.c"];

/// SPAN-14, SPAN-20, METR-06, METR-09: in every operation the pattern that the message matched.
#[tokio::test]
async fn a_message_of_several_patterns_is_shown_by_the_one_it_matched() {
    let test = all_spans(App::new().subscribe(several(), async |_body: String| {})).await;
    for destination in DESTINATIONS {
        untraced(&test).publish(destination, "1").await.unwrap();
    }
    test.settle().await;
    let (names, metrics) = identities(test.capture());
    let mut expected = BTreeSet::new();
    for verb in ["receive", "process", "ack"] {
        expected.extend(["orders.{id}", "bills", "audit.>"].map(|place| format!("{verb} {place}")));
    }
    // The receive that waits for the next one has not ended.
    assert_eq!(names, expected);
    assert_eq!(
        metrics,
        set([
            "messaging.destination.template=orders.{id}",
            "messaging.destination.name=bills",
            "messaging.destination.template=audit.>"
        ])
    );
    let tree = test.capture().tree();
    let orders = tree.find_all("process orders.{id}");
    let names: BTreeSet<_> =
        orders.iter().map(|span| attribute(span, "messaging.destination.name").unwrap().as_str()).collect();
    assert_eq!(names, ["orders.0".into(), "orders.1".into()].into(), "ATTR-C-04: the name is on the span");
    assert_eq!(attribute(orders[0], "messaging.destination.template"), Some(&"orders.{id}".into()), "ATTR-C-05");
    assert_eq!(attribute(tree.find("process bills"), "messaging.destination.template"), None, "SPAN-21");
    for name in ["messaging.client.consumed.messages", "throughline.settled.messages"] {
        let points = test.capture().metrics().into_iter().filter(|point| point.name == name);
        let each: Vec<_> = points.map(|point| point.sum).collect();
        assert_eq!((each.len(), each.iter().sum::<f64>()), (3, 5.0), "{name}");
    }
}

/// SPAN-18, LINK-15, METR-04: what differs within a batch is on its links, and counted where it belongs.
#[tokio::test]
async fn a_batch_of_several_patterns_is_shown_by_its_operation_alone() {
    let batched = several().with_batch(BatchPolicy::new(5, Duration::from_secs(5)));
    let test = all_spans(App::new().subscribe(batched, async |_orders: Batch<String>| {})).await;
    for destination in DESTINATIONS {
        test.publish(destination, "1").await;
    }
    test.settle().await;
    let tree = test.capture().tree();
    let process = tree.find("process");
    assert_eq!(attribute(process, "messaging.destination.name"), None, "ATTR-C-04");
    let linked: Vec<_> = process.links.iter().map(|link| attributes(&link.attributes)).collect();
    let shown: Vec<_> =
        linked.iter().map(|link| link.get("messaging.destination.template").map(|t| t.as_str())).collect();
    let (orders, audit) = (Some("orders.{id}".into()), Some("audit.>".into()));
    assert_eq!(shown, [orders.clone(), orders, None, audit.clone(), audit]);
    let consumed = test.capture().metrics();
    let consumed = consumed.iter().filter(|point| point.name == "messaging.client.consumed.messages");
    assert_eq!(consumed.map(|point| point.sum).collect::<Vec<_>>().len(), 3, "METR-04: each where it stands");

    let test = all_spans(App::new().subscribe(
        several().with_batch(BatchPolicy::new(2, Duration::from_secs(5))),
        async |_orders: Batch<String>| {},
    ));
    let test = test.await;
    test.publish("orders.0", "1").await;
    test.publish("orders.1", "1").await;
    test.settle().await;
    let tree = test.capture().tree();
    tree.find("process orders.{id}");
    tree.find("receive orders.{id}");
}

pub(crate) fn system() -> Arc<System> {
    let operations = Operations::DEFAULT.with_ack("ack").with_retry("nack").with_reject("term");
    Arc::new(System::new("raw", operations))
}

/// SPAN-17: what no pattern stands for is shown by its operation, whatever the patterns are.
#[tokio::test]
async fn what_no_pattern_stands_for_is_shown_by_its_operation_alone() {
    let orders = || Pattern::new("orders.*", DOTTED);
    for patterns in [vec![], vec![Pattern::exact("orders")], vec![orders(), Pattern::exact("bills")]] {
        let count = patterns.len();
        let capture = Capture::new();
        let engine = capture.instrumentation().settle_spans(SettleSpans::Always).build();
        let consumer = engine.consumer(Arc::new(Source::new(system()).with_patterns(patterns)));
        let headers = Headers::new();
        for name in ["others.0", "others.1"] {
            let message = Incoming::new(name, &headers);
            consumer.receive().finish(&message);
            consumer.process(&message).succeed();
            consumer.process_batch(&[message, message]).succeed();
            consumer.settle(&Settlement::Ack, &Context::new()).finish(&[message], None);
            consumer.settle(&Settlement::Ack, &Context::new()).finish_up_to(Some(name), Vec::new(), None);
            Observe::settled(&consumer, std::time::Instant::now(), Some(name), Vec::new(), None);
        }
        let (names, metrics) = identities(&capture);
        assert_eq!(names, set(["receive", "process", "ack"]), "{count} patterns");
        assert_eq!(metrics, set([]), "{count} patterns");
        assert!(capture.spans().iter().all(|span| attribute(span, "messaging.destination.name").is_some()));
    }
}

/// ATTR-J-04: a pull that stands for no message has the only subject, or none.
#[tokio::test]
async fn a_pull_without_a_message_has_no_name_where_there_are_several_patterns() {
    let capture = Capture::new();
    let engine = capture.instrumentation().build();
    let consumer = |patterns: Vec<Pattern>| engine.consumer(Arc::new(Source::new(system()).with_patterns(patterns)));
    let failed = BrokerError::new(BrokerErrorKind::Timeout, "timeout", "no answer");
    consumer(vec![Pattern::exact("orders"), Pattern::exact("bills")]).receive().finish_empty();
    consumer(vec![Pattern::new("orders.*", DOTTED)]).receive().fail(&failed);
    consumer(vec![Pattern::exact("orders")]).receive().finish_batch(&[]);
    let names: Vec<_> = capture.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["receive", "receive orders.*", "receive orders"]);
}

/// Answers in every way there is.
async fn price(_item: String, request: Delivery, publisher: Publisher) -> Result<String, PublishError> {
    if let Some(address) = request.reply_to() {
        publisher.publish(address.clone(), "by the address").await?;
        publisher.publish(address.name().to_owned(), "by its name").await?;
        publisher.publish_batch(address.name().to_owned(), ["in", "batches"]).await?;
    }
    Ok("by the framework".to_owned())
}

async fn ask(test: &AppTest, address: &str) {
    let request = Envelope::new("prices", "bread").with_reply_to(address);
    untraced(test).publish_envelope(request).await.unwrap();
}

/// SPAN-19, METR-09: whatever the address looks like, and however the answer gets there.
#[tokio::test]
async fn an_answer_to_an_address_of_the_requesters_own_has_no_name_of_its_own() {
    let test = all_spans(App::new().subscribe(Channel::new("prices"), price)).await;
    for address in ["acme.replies.RhSk1", "acme.replies.RhSk2", "orders.42"] {
        ask(&test, address).await;
        for _ in 0..5 {
            test.next_delivery(address).await;
        }
    }
    test.settle().await;
    let (names, metrics) = identities(test.capture());
    assert_eq!(names, set(["receive prices", "process prices", "ack prices", "create", "publish"]));
    assert_eq!(metrics, set(["messaging.destination.name=prices"]));
    let tree = test.capture().tree();
    for send in tree.find_all("publish") {
        assert!(attribute(send, "messaging.destination.name").is_some(), "ATTR-N-01");
        assert_eq!(attribute(send, "messaging.destination.temporary"), Some(&true.into()), "ATTR-C-20");
        assert_eq!(attribute(send, "messaging.destination.anonymous"), Some(&true.into()), "ATTR-C-20");
    }
}

/// METR-09: also where nothing but metrics is recorded.
#[tokio::test]
async fn an_answer_has_no_series_of_its_own_where_only_metrics_are_recorded() {
    let app = App::new().subscribe(Channel::new("prices"), price);
    let none = opentelemetry::trace::noop::NoopTracerProvider::new();
    let test = start_with(app, |telemetry| telemetry.tracer_provider(none.clone())).await;
    ask(&test, "acme.replies.RhSk1").await;
    test.settle().await;
    assert_eq!(identities(test.capture()).1, set(["messaging.destination.name=prices"]));
}

/// SPAN-19: each message of a batch has an address of its own.
#[tokio::test]
async fn an_answer_to_a_message_of_a_batch_has_no_name_of_its_own() {
    async fn price_all(
        requests: Batch<String>,
        publisher: Publisher,
        state: throughline_core::extract::State<Seen<String>>,
    ) {
        for request in requests {
            let address = request.delivery().reply_to().map(|address| address.name().to_owned()).unwrap();
            state.0.push(address.clone());
            request.run(async |_| publisher.publish(address, "1").await.map(drop)).await;
        }
    }
    let seen = Seen::new();
    let prices = Channel::new("prices").batch(2, Duration::from_secs(5));
    let test = all_spans(App::new().subscribe(prices, price_all).with_state(seen.clone())).await;
    ask(&test, "acme.replies.RhSk1").await;
    ask(&test, "acme.replies.RhSk2").await;
    test.settle().await;
    assert_eq!(seen.take(), ["acme.replies.RhSk1", "acme.replies.RhSk2"]);
    let (names, metrics) = identities(test.capture());
    assert_eq!(names, set(["receive prices", "process prices", "ack prices", "publish"]));
    assert_eq!(metrics, set(["messaging.destination.name=prices"]));
}

/// SPAN-19: the raw door; what else is published there keeps its name.
#[tokio::test]
async fn an_answer_through_the_raw_door_has_no_name_of_its_own() {
    let capture = Capture::new();
    let engine = capture.instrumentation().build();
    let consumer = engine.consumer(Arc::new(Source::new(system()).with_destination("prices")));
    let producer = engine.producer(system());
    let headers = Headers::new();
    for address in ["acme.replies.RhSk1", "acme.replies.RhSk2"] {
        let request = Incoming::new("prices", &headers).with_reply_to(address);
        let answer = async {
            for name in [address, "stock"] {
                let (mut one, mut two) = (Headers::new(), Headers::new());
                producer.send(&Target::new(name), Outgoing::new(&mut one)).finish(Vec::new(), None);
                producer.send_batch(&Target::new(name), vec![Outgoing::new(&mut two)]).finish_batch(1, &[]);
            }
        };
        consumer.process(&request).run(answer).await;
    }
    let (names, metrics) = identities(&capture);
    assert_eq!(names, set(["process prices", "create", "publish", "create stock", "publish stock"]));
    assert_eq!(metrics, set(["messaging.destination.name=prices", "messaging.destination.name=stock"]));
}

/// SPAN-14: a pattern that the program gives is shown all the same.
#[tokio::test]
async fn a_temporary_destination_is_shown_by_its_template() {
    let test = all_spans(App::new()).await;
    test.publish(Destination::new("session.1").temporary().with_template("session.{id}"), "1").await;
    test.publish(Destination::new("session.1").temporary(), "1").await;
    assert_eq!(identities(test.capture()).0, set(["publish session.{id}", "publish"]));
}
