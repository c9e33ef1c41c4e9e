//! What a user can choose about spans and attributes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanKind, Status};
use throughline_core::broker::{BoxFuture, Publish};
use throughline_core::extract::Batch;
use throughline_core::message::{OperationType, Operations, System, Target};
use throughline_core::telemetry::{Builder, Instrumentation};
use throughline_core::{App, Destination, Envelope, PublishError, Publisher, Receipt};
use throughline_memory::Channel;
use throughline_testing::{AppTest, Capture, attribute, attributes, start, start_with};

use crate::support::{links, point, publish_remote, traceparent, untraced};

async fn reserve(_order: String) {}

async fn reserve_all(_orders: Batch<String>) {}

fn app() -> App {
    App::new().subscribe(Channel::new("orders"), reserve)
}

fn batch_app() -> App {
    App::new().subscribe(Channel::new("orders").batch(2, Duration::from_secs(5)), reserve_all)
}

async fn publish_full(test: &AppTest) {
    let message =
        Envelope::new("orders", "12345").with_id("m1").with_correlation_id("cart-7").with_header("Tenant", "acme");
    test.publisher().publish_envelope(message).await.unwrap();
    test.settle().await;
}

/// SPAN-23, LINK-03, LINK-11.
#[tokio::test]
async fn a_batch_publish_makes_a_create_span_for_each_message() {
    let test = start(App::new()).await;
    test.publisher().publish_batch("orders", ["1", "2"]).await.unwrap();
    let tree = test.capture().tree();
    let (create, send) = (tree.find_all("create orders"), tree.find("publish orders"));
    assert_eq!((create.len(), &send.span_kind, links(send).len()), (2, &SpanKind::Client, 2));
    assert!(create.iter().all(|span| tree.parent(span).is_none()));
}

/// SPAN-24.
#[tokio::test]
async fn without_create_spans_all_messages_of_a_batch_carry_the_send_span() {
    let test = start_with(App::new(), |telemetry| telemetry.create_spans(false)).await;
    test.publisher().publish_batch("orders", ["1", "2"]).await.unwrap();
    let tree = test.capture().tree();
    let send = tree.find("publish orders");
    assert_eq!((tree.roots().len(), &send.span_kind, links(send)), (1, &SpanKind::Producer, vec![]));
    for _ in 0..2 {
        assert_eq!(traceparent(&test.next_delivery("orders").await), crate::support::ids(send));
    }
}

/// ATTR-C-22, ATTR-C-24: nothing from a message's content or headers is recorded unless it is asked for.
#[tokio::test]
async fn by_default_neither_headers_nor_sizes_nor_baggage_are_recorded() {
    let test = start(app()).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    let tree = test.trace().await;
    let keys: Vec<_> = attributes(&tree.find("process orders").attributes).into_keys().collect();
    let usual =
        ["messaging.destination.name", "messaging.operation.name", "messaging.operation.type", "messaging.system"];
    assert_eq!(keys, usual);
}

/// ATTR-C-24, PROP-03: a listed header, whatever its spelling.
#[tokio::test]
async fn listed_headers_are_recorded() {
    let test = start_with(app(), |telemetry| telemetry.capture_headers(["tenant", "absent"])).await;
    publish_full(&test).await;
    let tree = test.capture().tree();
    let process = tree.find("process orders");
    assert_eq!(attribute(process, "throughline.header.tenant"), Some(&"acme".into()));
    assert_eq!(attribute(process, "throughline.header.absent"), None);
}

/// ATTR-C-24, LINK-15: headers of the messages of a batch are on their links.
#[tokio::test]
async fn listed_headers_of_a_batch_are_recorded_on_its_links() {
    let test = start_with(batch_app(), |telemetry| telemetry.capture_headers(["tenant"])).await;
    test.publisher().publish("orders", "1").header("tenant", "acme").await.unwrap();
    test.publisher().publish("orders", "2").header("tenant", "globex").await.unwrap();
    let tree = test.trace().await;
    let process = tree.find("process orders");
    let tenants: Vec<_> = process.links.iter().flat_map(|link| attributes(&link.attributes)).collect();
    let tenant = |name: &'static str| ("throughline.header.tenant", name.into());
    assert_eq!(tenants, [tenant("acme"), tenant("globex")]);
    assert_eq!(attribute(process, "throughline.header.tenant"), None);
}

/// BAGG-13.
#[tokio::test]
async fn listed_baggage_is_recorded_on_spans_and_never_on_metrics() {
    let test = start_with(app(), |telemetry| telemetry.baggage_attributes(["tenant"])).await;
    publish_remote(&test, "orders", "tenant=acme,user=bob").await;
    let tree = test.trace().await;
    let process = tree.find("process orders");
    assert_eq!(attribute(process, "throughline.baggage.tenant"), Some(&"acme".into()));
    assert_eq!(attribute(process, "throughline.baggage.user"), None);
    let measured = test.capture().metrics();
    assert!(!measured.iter().flat_map(|point| point.attributes.keys()).any(|key| key.contains("baggage")));
}

/// BAGG-12, BAGG-13: of a batch, the merged baggage.
#[tokio::test]
async fn listed_baggage_of_a_batch_is_recorded_on_its_span() {
    let test = start_with(batch_app(), |telemetry| telemetry.baggage_attributes(["tenant"])).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    publish_remote(&test, "orders", "tenant=globex").await;
    let tree = test.trace().await;
    assert_eq!(attribute(tree.find("process orders"), "throughline.baggage.tenant"), Some(&"globex".into()));
}

/// ATTR-C-16: sizes are opt-in, on every span of a single message but those of settling.
#[tokio::test]
async fn body_sizes_are_recorded_where_they_are_asked_for() {
    let test = start_with(app(), |telemetry| telemetry.body_sizes(true)).await;
    publish_full(&test).await;
    let tree = test.capture().tree();
    for name in ["publish orders", "process orders"] {
        assert_eq!(attribute(tree.find(name), "messaging.message.body.size"), Some(&5.into()), "{name}");
    }
}

/// ATTR-C-08, ATTR-C-09, ATTR-C-23.
#[tokio::test]
async fn ids_are_recorded_unless_they_are_switched_off() {
    let (id, conversation) = ("messaging.message.id", "messaging.message.conversation_id");
    let test = start(app()).await;
    publish_full(&test).await;
    let tree = test.capture().tree();
    for name in ["publish orders", "process orders"] {
        let span = tree.find(name);
        assert_eq!((attribute(span, id), attribute(span, conversation)), (Some(&"m1".into()), Some(&"cart-7".into())));
    }
    let test = start_with(app(), |telemetry| telemetry.message_ids(false).conversation_ids(false)).await;
    publish_full(&test).await;
    let tree = test.capture().tree();
    for name in ["publish orders", "process orders"] {
        assert_eq!((attribute(tree.find(name), id), attribute(tree.find(name), conversation)), (None, None));
    }
}

/// ENV-10: strings that come from messages are cut, also those of links.
#[tokio::test]
async fn long_values_are_cut() {
    let settings =
        |telemetry: throughline_core::telemetry::Builder<_>| telemetry.max_value_length(10).capture_headers(["tenant"]);
    let long = "äbcdefghijklmnop";
    let test = start_with(app(), settings).await;
    test.publisher().publish("orders", "1").id(long).header("tenant", long).await.unwrap();
    let tree = test.trace().await;
    let process = tree.find("process orders");
    assert_eq!(attribute(process, "messaging.message.id"), Some(&"äbcdefghij".into()));
    assert_eq!(attribute(process, "throughline.header.tenant"), Some(&"äbcdefghij".into()));
    assert_eq!(attribute(tree.find("publish orders"), "messaging.message.id"), Some(&"äbcdefghij".into()));

    let test = start_with(batch_app(), settings).await;
    for _ in 0..2 {
        test.publisher().publish("orders", "1").id(long).await.unwrap();
    }
    let tree = test.trace().await;
    for link in tree.find("process orders").links.iter() {
        assert_eq!(attributes(&link.attributes)["messaging.message.id"], "äbcdefghij".into());
    }
}

/// ENV-10: the default is 1024 characters.
#[tokio::test]
async fn values_of_up_to_1024_characters_stay_whole() {
    let test = start_with(app(), |telemetry| telemetry.capture_headers(["tenant"])).await;
    let long = "ä".repeat(1025);
    untraced(&test).publish("orders", "1").header("tenant", long.clone()).await.unwrap();
    untraced(&test).publish("orders", "1").header("tenant", "ä".repeat(1024)).await.unwrap();
    for span in test.trace().await.find_all("process orders") {
        assert_eq!(attribute(span, "throughline.header.tenant").unwrap().as_str().chars().count(), 1024);
    }
}

/// TRAP-13, ATTR-C-21: what the hook adds is there when the sampler is asked.
#[tokio::test]
async fn samplers_see_what_the_attribute_hook_adds() {
    let test = start_with(app(), |telemetry| {
        telemetry.attributes(|operation, attributes| {
            assert!(!attributes.is_empty(), "the hook sees the conventional attributes");
            attributes.push(KeyValue::new("team", format!("{} {}", operation.operation_name, operation.system)));
        })
    });
    let test = test.await;
    publish_full(&test).await;
    let teams: Vec<_> = test.capture().sampled().iter().map(|call| call.attribute("team").cloned()).collect();
    assert_eq!(teams, [Some("publish in_memory".into()), Some("process in_memory".into())]);
}

/// SPAN-13: the hook names spans; `None` keeps the conventional name.
#[tokio::test]
async fn the_name_hook_names_spans() {
    let test = start_with(app(), |telemetry| {
        telemetry.span_name(|operation| {
            (operation.operation_type == OperationType::Process)
                .then(|| format!("handle {}", operation.destination).into())
        })
    });
    let test = test.await;
    test.publish("orders", "1").await;
    test.trace().await.assert_tree("publish orders\n└─ handle orders");
}

/// ATTR-C-02: hooks are told the verb of the operation that the span stands for.
#[tokio::test]
async fn hooks_are_told_what_the_operation_is() {
    use throughline_core::telemetry::SettleSpans;
    let test = start_with(app(), |telemetry| {
        telemetry.settle_spans(SettleSpans::Always).receive_spans(true).span_name(|operation| {
            Some(format!("{} {}", operation.operation_type.as_str(), operation.operation_name).into())
        })
    });
    let test = test.await;
    test.publish("orders", "1").await;
    test.settle().await;
    let mut names: Vec<_> = test.capture().spans().into_iter().map(|span| span.name).collect();
    names.sort();
    assert_eq!(names, ["process process", "receive receive", "send publish", "settle ack"]);
}

/// ATTR-C-23: a broker's own attribute that is hidden is nowhere.
#[tokio::test]
async fn a_hidden_attribute_is_not_recorded() {
    let test = start_with(app(), |telemetry| telemetry.hide_attribute("messaging.kafka.message.key")).await;
    deliver_keyed(&test).await;
    let tree = test.trace().await;
    let process = tree.find("process orders");
    assert_eq!(attribute(process, "messaging.kafka.message.key"), None);
    assert_eq!(attribute(process, "messaging.kafka.offset"), Some(&12.into()));
    let test = start(app()).await;
    deliver_keyed(&test).await;
    let tree = test.trace().await;
    assert_eq!(attribute(tree.find("process orders"), "messaging.kafka.message.key"), Some(&"k1".into()));
}

async fn deliver_keyed(test: &AppTest) {
    struct Record;
    impl throughline_core::message::Native for Record {
        fn attributes(&self, _: OperationType, attributes: &mut Vec<KeyValue>) {
            attributes.push(KeyValue::new("messaging.kafka.message.key", "k1"));
            attributes.push(KeyValue::new("messaging.kafka.offset", 12));
        }
    }
    let delivery = throughline_core::Delivery::new("orders", "x").with_native(std::sync::Arc::new(Record));
    assert_eq!(test.broker().deliver(delivery), 2, "the app and the observer of the test");
}

#[derive(Debug)]
struct OutOfStock;

impl fmt::Display for OutOfStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no bread for bob")
    }
}

impl std::error::Error for OutOfStock {}

async fn fail(_order: String, delivery: throughline_core::Delivery) -> Result<(), OutOfStock> {
    if delivery.attempt() == 1 { Err(OutOfStock) } else { Ok(()) }
}

fn failing() -> App {
    App::new().subscribe(Channel::new("orders"), fail)
}

/// STAT-06: the classifier's value is on the span and in the metrics alike (STAT-05).
#[tokio::test(start_paused = true)]
async fn the_classifier_chooses_the_error_type() {
    let test = start_with(failing(), |telemetry| {
        telemetry.error_type(|error| error.is::<OutOfStock>().then_some("out_of_stock".into()))
    });
    let test = test.await;
    test.publish("orders", "1").await;
    let tree = test.trace().await;
    let failed = tree.find_all("process orders")[0];
    assert_eq!(attribute(failed, "error.type"), Some(&"out_of_stock".into()));
    assert_eq!(point(test.capture(), "messaging.process.duration", &[("error.type", "out_of_stock")]).count, 1);
}

/// STAT-03: the text of a user's error is private unless the user says otherwise.
#[tokio::test(start_paused = true)]
async fn the_text_of_a_handlers_error_is_in_the_status_only_when_asked_for() {
    let test = start(failing()).await;
    test.publish("orders", "1").await;
    assert_eq!(test.trace().await.find_all("process orders")[0].status, Status::error(""));
    let test = start_with(failing(), |telemetry| telemetry.error_descriptions(true)).await;
    test.publish("orders", "1").await;
    assert_eq!(test.trace().await.find_all("process orders")[0].status, Status::error("no bread for bob"));
}

/// A transport that knows a routing key when it sends, and an offset when it is answered.
struct Keyed;

impl Publish for Keyed {
    fn system(&self) -> Arc<System> {
        Arc::new(System::new("keyed", Operations::DEFAULT))
    }

    fn target<'a>(&self, destination: &'a Destination) -> Target<'a> {
        Target::new(destination.name()).with_attribute(KeyValue::new("keyed.routing_key", "k1"))
    }

    fn attributes(&self, _: &Envelope, attributes: &mut Vec<KeyValue>) {
        attributes.push(KeyValue::new("keyed.message.key", "k2"));
    }

    fn publish(&self, _: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move { Ok(Receipt::new().with_attribute(KeyValue::new("keyed.offset", "000000000012"))) })
    }
}

/// ATTR-C-21, ATTR-C-23, ENV-10: hidden and cut wherever it comes from, also when it comes with the broker's answer.
#[tokio::test]
async fn attributes_of_a_publish_are_hidden_and_cut_wherever_they_come_from() {
    let published = async |settings: fn(Builder<Instrumentation>) -> Builder<Instrumentation>| {
        let capture = Capture::new();
        let publisher = Publisher::from_transport(Arc::new(Keyed));
        publisher.telemetry(settings(capture.instrumentation()).build()).publish("orders", "1").await.unwrap();
        let span = capture.tree().find("publish orders").clone();
        ["keyed.routing_key", "keyed.message.key", "keyed.offset"]
            .map(|key| attribute(&span, key).map(|value| value.as_str().into_owned()))
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(published(|t| t).await, [text("k1"), text("k2"), text("000000000012")]);
    assert_eq!(published(|t| t.max_value_length(4)).await, [text("k1"), text("k2"), text("0000")]);
    let hidden = published(|t| {
        t.hide_attribute("keyed.routing_key").hide_attribute("keyed.message.key").hide_attribute("keyed.offset")
    });
    assert_eq!(hidden.await, [None, None, None]);
}
