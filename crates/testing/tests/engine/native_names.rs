//! A native part that names its destination, as on RabbitMQ (ATTR-R-02): the name is shown wherever that of the delivery would be, and
//! the delivery's own stays what patterns match.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::Context;
use opentelemetry_sdk::trace::SpanData;
use throughline_core::broker::{BatchPolicy, Broker, Pattern, Publish, Received, Subscriber, Subscription, Wildcards};
use throughline_core::extract::Batch;
use throughline_core::message::{Native, Operations, Source, System};
use throughline_core::telemetry::{Incoming, SettleSpans};
use throughline_core::{App, BrokerError, Headers, Settlement, serve};
use throughline_memory::{Channel, Memory};
use throughline_testing::{Capture, attribute, attributes};
use tokio::time::Instant;

use crate::names::{identities, set, several, system};
use crate::support::{TRACEPARENT, point, points};

struct Named(String);

impl Native for Named {
    fn destination(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.0))
    }
}

/// Names each delivery by its exchange, its key and its queue.
#[derive(Clone)]
struct Naming(Memory);

#[async_trait]
impl Broker for Naming {
    fn transport(&self) -> Arc<dyn Publish> {
        self.0.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        Ok(Box::new(NamingSubscriber(self.0.subscribe(subscription).await?)))
    }

    async fn shutdown(&self, deadline: Instant) -> Result<(), BrokerError> {
        Broker::shutdown(&self.0, deadline).await
    }
}

struct NamingSubscriber(Box<dyn Subscriber>);

#[async_trait]
impl Subscriber for NamingSubscriber {
    fn source(&self) -> Arc<Source> {
        self.0.source()
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        let mut received = self.0.receive().await?;
        let name = format!("shop:{}:stock", received.delivery.destination());
        received.delivery = received.delivery.clone().with_native(Arc::new(Named(name)));
        Ok(received)
    }
}

const NAME: &str = "messaging.destination.name";
const TEMPLATE: &str = "messaging.destination.template";

/// Runs an app on a broker that names its messages, until all that is published is handled.
async fn served(app: App, destinations: &[&'static str]) -> Capture {
    let (capture, broker) = (Capture::new(), Naming(Memory::new()));
    let telemetry = capture.instrumentation().receive_spans(true).settle_spans(SettleSpans::Always).build();
    let running = serve(broker.clone(), app.telemetry(telemetry)).start().await.unwrap();
    let publisher = broker.0.publisher().without_telemetry();
    for destination in destinations {
        publisher.publish(*destination, "1").header("traceparent", TRACEPARENT).await.unwrap();
    }
    broker.0.idle().await;
    running.shutdown().await.unwrap();
    capture
}

/// The values of an attribute on the links of a span, in their order.
fn linked(span: &SpanData, key: &str) -> Vec<Option<String>> {
    let links = span.links.iter().map(|link| attributes(&link.attributes));
    links.map(|link| link.get(key).map(|value| value.as_str().into_owned())).collect()
}

fn named(span: &SpanData) -> String {
    attribute(span, NAME).unwrap_or_else(|| panic!("no name on {}", span.name)).as_str().into_owned()
}

/// SPAN-13, SPAN-15, METR-06: in every operation of the framework.
#[tokio::test]
async fn the_name_of_the_native_part_is_shown_in_the_place_of_the_destination() {
    let capture = served(App::new().subscribe(Channel::new("placed"), async |_body: String| {}), &["placed"]).await;
    let (names, metrics) = identities(&capture);
    assert_eq!(names, set(["receive shop:placed:stock", "process shop:placed:stock", "ack shop:placed:stock"]));
    assert_eq!(metrics, set(["messaging.destination.name=shop:placed:stock"]));
    assert!(capture.spans().iter().all(|span| named(span) == "shop:placed:stock"), "ATTR-C-04");
    let with = [(NAME, "shop:placed:stock")];
    for metric in ["messaging.process.duration", "messaging.client.consumed.messages", "throughline.settled.messages"] {
        point(&capture, metric, &with);
    }
    assert_eq!(points(&capture, "messaging.client.operation.duration", &with).len(), 2, "receive and ack");
}

/// SPAN-14, SPAN-20: the delivery's own name is the one that patterns match, and a template is shown all the same.
#[tokio::test]
async fn patterns_match_the_name_of_the_delivery() {
    let app = App::new().subscribe(several(), async |_body: String| {});
    let capture = served(app, &["orders.0", "bills", "audit.a.b"]).await;
    let (names, metrics) = identities(&capture);
    let mut expected = BTreeSet::new();
    for verb in ["receive", "process", "ack"] {
        expected.extend(["orders.{id}", "shop:bills:stock", "audit.>"].map(|place| format!("{verb} {place}")));
    }
    assert_eq!(names, expected);
    assert_eq!(
        metrics,
        set([
            "messaging.destination.template=orders.{id}",
            "messaging.destination.name=shop:bills:stock",
            "messaging.destination.template=audit.>"
        ])
    );
    let tree = capture.tree();
    for (span, name) in [("process orders.{id}", "shop:orders.0:stock"), ("process audit.>", "shop:audit.a.b:stock")] {
        assert_eq!(named(tree.find(span)), name, "ATTR-C-04: the name is on the span");
    }
}

/// SPAN-18, LINK-15, METR-04: different names stand on the links of a batch, a common one on its span.
#[tokio::test]
async fn a_batch_is_shown_by_the_names_of_its_native_parts() {
    let app = |destinations: &'static [&'static str]| {
        let batched = several().with_batch(BatchPolicy::new(destinations.len(), Duration::from_secs(5)));
        served(App::new().subscribe(batched, async |_orders: Batch<String>| {}), destinations)
    };
    let capture = app(&["orders.0", "bills"]).await;
    let tree = capture.tree();
    for operation in ["receive", "process"] {
        let span = tree.find(operation);
        assert_eq!(attribute(span, NAME), None, "{operation}");
        let names = ["shop:orders.0:stock", "shop:bills:stock"].map(|name| Some(name.to_owned()));
        assert_eq!(linked(span, NAME), names, "{operation}");
        assert_eq!(linked(span, TEMPLATE), [Some("orders.{id}".to_owned()), None], "{operation}");
    }
    point(&capture, "messaging.client.consumed.messages", &[(NAME, "shop:bills:stock")]);

    let capture = app(&["bills", "bills"]).await;
    let tree = capture.tree();
    let span = tree.find("process shop:bills:stock");
    assert_eq!((named(span), linked(span, NAME)), ("shop:bills:stock".to_owned(), vec![None, None]));
    let consumed = point(&capture, "messaging.client.consumed.messages", &[(NAME, "shop:bills:stock")]);
    assert!((consumed.sum - 2.0).abs() < f64::EPSILON);
}

/// Does with a consumer of its own everything there is, with one message for each of the names.
fn consume(source: Source, natives: &[&dyn Native]) -> Capture {
    let capture = Capture::new();
    let engine = capture.instrumentation().settle_spans(SettleSpans::Always).build();
    let consumer = engine.consumer(Arc::new(source));
    let headers = Headers::from_iter([("traceparent", TRACEPARENT)]);
    let messages: Vec<_> =
        natives.iter().map(|native| Incoming::new("placed", &headers).with_native(*native)).collect();
    for message in &messages {
        consumer.receive().finish(message);
        consumer.process(message).succeed();
        consumer.settle(&Settlement::Ack, &Context::new()).finish(&[*message], None);
    }
    consumer.process_batch(&messages).succeed();
    consumer.receive().finish_batch(&messages);
    capture
}

fn name(text: &str) -> Named {
    Named(text.to_owned())
}

/// The raw door: of a message alone, of several with one name and of several with different ones.
#[test]
fn a_consumer_shows_the_name_of_the_native_part() {
    let source = || Source::new(system()).with_destination("placed");
    let (stock, bills) = (name("orders:placed:stock"), name("orders:placed:bills"));
    let one = consume(source(), &[&stock, &stock]);
    let (names, metrics) = identities(&one);
    assert_eq!(names, set(["receive orders:placed:stock", "process orders:placed:stock", "ack orders:placed:stock"]));
    assert_eq!(metrics, set(["messaging.destination.name=orders:placed:stock"]));
    assert!(one.spans().iter().all(|span| named(span) == "orders:placed:stock"));

    let two = consume(source(), &[&stock, &bills]);
    let (names, metrics) = identities(&two);
    let mut expected = set(["receive", "process"]);
    for verb in ["receive", "process", "ack"] {
        expected.extend(["stock", "bills"].map(|queue| format!("{verb} orders:placed:{queue}")));
    }
    assert_eq!(names, expected);
    let queues = ["orders:placed:stock", "orders:placed:bills"];
    assert_eq!(metrics, queues.map(|queue| format!("messaging.destination.name={queue}")).into());
    for operation in ["receive", "process"] {
        assert_eq!(linked(two.tree().find(operation), NAME), queues.map(|queue| Some(queue.to_owned())));
    }
}

/// The subscription may be described by the native name while its pattern is what the broker matches.
#[test]
fn a_source_may_have_the_name_of_its_native_parts() {
    let named = name("orders:placed:stock");
    let source = Source::new(system()).with_destination("orders:placed:stock");
    let capture = consume(source.with_patterns(vec![Pattern::exact("placed")]), &[&named]);
    let (names, metrics) = identities(&capture);
    assert_eq!(names, set(["receive orders:placed:stock", "process orders:placed:stock", "ack orders:placed:stock"]));
    assert_eq!(metrics, set(["messaging.destination.name=orders:placed:stock"]));
}

/// SPAN-17, METR-09: names that are too many tell no operations apart.
#[test]
fn a_destination_with_very_many_names_is_shown_by_its_operation() {
    let named: Vec<_> = (0..200).map(|number| name(&format!("orders:{number}:stock"))).collect();
    let natives: Vec<_> = named.iter().map(|named| named as &dyn Native).collect();
    let capture = consume(Source::new(system()).with_destination("placed"), &natives);
    let (names, metrics) = identities(&capture);
    assert!(names.len() < 250 && metrics.len() < 100, "{} span names, {} destinations", names.len(), metrics.len());
    let last = capture.spans().into_iter().filter(|span| span.name == "process").map(|span| named_or_none(&span));
    assert!(last.flatten().any(|name| name == "orders:199:stock"), "ATTR-C-04: the name stays on the span");
}

fn named_or_none(span: &SpanData) -> Option<String> {
    attribute(span, NAME).map(|name| name.as_str().into_owned())
}

struct Panicking;

impl Native for Panicking {
    fn destination(&self) -> Option<Cow<'_, str>> {
        panic!("the adapter panics on purpose")
    }
}

#[test]
fn a_native_part_that_panics_or_names_nothing_leaves_the_destination() {
    let natives: [&dyn Native; 2] = [&Panicking, &name("")];
    for native in natives {
        let capture = consume(Source::new(system()).with_destination("placed"), &[native]);
        let (names, metrics) = identities(&capture);
        assert_eq!(names, set(["receive placed", "process placed", "ack placed"]));
        assert_eq!(metrics, set(["messaging.destination.name=placed"]));
    }
}

/// A message that came through an exchange to a queue.
struct Through(Option<&'static str>, String);

impl Native for Through {
    fn destination(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.1))
    }

    fn namespace(&self) -> Option<&str> {
        self.0
    }
}

/// SPAN-14, ATTR-R-10: the same key of two exchanges is two names, each shown by the pattern of its own exchange; what no pattern takes
/// is shown by what stands for others.
#[test]
fn a_pattern_counts_within_its_namespace_and_is_shown_as_it_says() {
    let signs = Wildcards::new('.', "*", "#").rest_may_be_empty();
    let patterns = [
        Pattern::exact("stock"),
        Pattern::new("eu.*", signs).within("events").shown_as("events:eu.*:stock"),
        Pattern::exact("eu.1").within("bills").shown_as("bills:eu.1:stock"),
    ];
    let of_exchanges = System::new("rabbitmq", Operations::DEFAULT);
    let source =
        Source::new(Arc::new(of_exchanges)).with_patterns(patterns).with_others("stock").with_destination("stock");
    let capture = Capture::new();
    let consumer = capture.instrumentation().build().consumer(Arc::new(source));
    let headers = Headers::new();
    let name = |exchange: Option<&'static str>, key: &'static str| {
        let native = Through(exchange, format!("{}:{key}:stock", exchange.unwrap_or_default()));
        consumer.process(&Incoming::new(key, &headers).with_native(&native)).succeed();
        let span = capture.spans().pop().unwrap();
        capture.reset();
        span.name.into_owned()
    };
    assert_eq!(name(Some("events"), "eu.1"), "process events:eu.*:stock");
    assert_eq!(name(Some("bills"), "eu.1"), "process bills:eu.1:stock");
    for other in [(None, "eu.1"), (Some("bills"), "eu.2"), (Some("elsewhere"), "eu.1"), (Some("events"), "stock")] {
        assert_eq!(name(other.0, other.1), "process stock", "{other:?}");
    }
    let native = Through(None, "stock".to_owned());
    consumer.process(&Incoming::new("stock", &headers).with_native(&native)).succeed();
    assert_eq!(capture.spans()[0].name, "process stock");
}
