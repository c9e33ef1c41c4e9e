//! On the client's own mock of a message, which can be settled once, and on what is published before a channel has it.

use std::sync::Mutex;
use std::task::Poll;

use futures_util::{FutureExt, StreamExt, stream};
use lapin::message::{BasicReturnMessage, Delivery};
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, ErrorKind};
use opentelemetry::Value;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use throughline_core::CurrentBaggage;
use throughline_core::message::CreationContext;
use throughline_core::telemetry::{ParentMode, SettleSpans, Trust};
use throughline_testing::{Capture, attributes};

use super::Instrumentation;
use super::publish::{Place, one_at_a_time};
use crate::testing::{arrived, each_type, table, text, with_headers};
use crate::{Exchange, HeaderExtractor, Queue, SubscriptionTelemetry};

const SUPPLIED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn otel(capture: &Capture) -> Instrumentation {
    capture.instrumentation().settle_spans(SettleSpans::Always).build().into()
}

// GOLD-R-05.
fn my_queue(capture: &Capture) -> SubscriptionTelemetry {
    otel(capture).subscription(Queue::new("my_queue").bind(Exchange::direct("direct_logs"), "warning"))
}

fn warning(properties: BasicProperties) -> Delivery {
    arrived("direct_logs", "warning", properties)
}

fn place(exchange: &str, key: &str) -> Place {
    Place { exchange: exchange.into(), key: key.into() }
}

/// Publishes as far as to the channel, and returns what would be sent.
fn publish(otel: &Instrumentation, exchange: &str, key: &str, properties: BasicProperties) -> BasicProperties {
    let (sending, properties) = otel.start_publish(&place(exchange, key), 2, properties);
    sending.finish(Vec::new(), None);
    properties
}

/// The only span: its name, kind and links, and its complete attributes without those that every span of RabbitMQ has.
fn only(capture: &Capture) -> (String, SpanKind, usize, String) {
    let spans = capture.spans();
    assert_eq!(spans.len(), 1, "{spans:#?}");
    let span = &spans[0];
    let set = attributes(&span.attributes);
    assert_eq!(set["messaging.system"].as_str(), "rabbitmq", "ATTR-S-02");
    assert_eq!(set.len(), span.attributes.len(), "GEN-06");
    let common = ["messaging.system", "messaging.operation.name", "messaging.operation.type"];
    let own = set.iter().filter(|(key, _)| !common.contains(key));
    let shown: Vec<_> = own.map(|(key, value)| format!("{}={value}", key.trim_start_matches("messaging."))).collect();
    (span.name.to_string(), span.span_kind.clone(), span.links.len(), shown.join(" "))
}

fn error_type(capture: &Capture) -> String {
    let spans = capture.spans();
    let span = spans.last().unwrap();
    assert!(matches!(span.status, Status::Error { .. }), "STAT-02");
    attributes(&span.attributes)["error.type"].to_string()
}

fn names(capture: &Capture) -> Vec<String> {
    capture.spans().iter().map(|span| span.name.to_string()).collect()
}

#[test]
fn golden_r_01_to_04_publish() {
    let rows = [
        ("", "orders", "publish orders", "destination.name=orders rabbitmq.destination.routing_key=orders"),
        (
            "direct_logs",
            "warning",
            "publish direct_logs:warning",
            "destination.name=direct_logs:warning rabbitmq.destination.routing_key=warning",
        ),
        ("logs", "", "publish logs", "destination.name=logs"),
        ("", "", "publish amq.default", "destination.name=amq.default"),
    ];
    for (exchange, key, name, shown) in rows {
        let capture = Capture::new();
        publish(&otel(&capture), exchange, key, BasicProperties::default());
        assert_eq!(only(&capture), (name.to_owned(), SpanKind::Producer, 0, shown.to_owned()), "GOLD-R-01 to -04");
        assert_eq!(capture.spans()[0].status, Status::Unset, "STAT-01");
    }
}

#[test]
fn what_the_user_says_about_the_connection_is_on_the_span() {
    let capture = Capture::new();
    let otel = otel(&capture).with_server("localhost", 5672).with_client_id("stock");
    publish(&otel, "logs", "", BasicProperties::default());
    let expected = "client.id=stock destination.name=logs server.address=localhost server.port=5672";
    assert_eq!(only(&capture).3, expected, "ATTR-R-13, ATTR-C-11, ATTR-C-12");
}

#[test]
fn a_computed_key_is_shown_by_its_template_or_by_the_exchange() {
    let capture = Capture::new();
    let otel = otel(&capture).with_template("ev", "placed.{country}").with_computed_keys("ev");
    let otel = otel.with_template("", "replies.{id}");
    let keys = [("ev", "placed.eu"), ("ev", "a.b.c"), ("other", "placed.eu"), ("", "replies.7"), ("", "orders")];
    for (exchange, key) in keys {
        publish(&otel, exchange, key, BasicProperties::default());
    }
    let expected = [
        "publish ev:placed.{country}",
        "publish ev",
        "publish other:placed.eu",
        "publish replies.{id}",
        "publish orders",
    ];
    assert_eq!(names(&capture), expected, "ATTR-R-10");
    let spans = capture.spans();
    let first = attributes(&spans[0].attributes);
    let shown = ["destination.name", "destination.template", "rabbitmq.destination.routing_key"];
    let shown = shown.map(|key| first[format!("messaging.{key}").as_str()].to_string());
    assert_eq!(shown, ["ev:placed.eu", "ev:placed.{country}", "placed.eu"], "ATTR-R-10, ATTR-R-05");
}

#[test]
fn a_reply_goes_to_an_address_without_a_name_of_its_own() {
    let capture = Capture::new();
    publish(&otel(&capture), "", "amq.rabbitmq.reply-to.g2dk", BasicProperties::default());
    let (name, _, _, shown) = only(&capture);
    assert_eq!(name, "publish amq.rabbitmq.reply-to", "SPAN-19");
    assert!(shown.starts_with("destination.anonymous=true "), "ATTR-R-08: {shown}");
    assert!(shown.contains(" destination.temporary=true "), "ATTR-R-09: {shown}");
}

#[test]
fn only_propagation_headers_are_touched() {
    let capture = Capture::new();
    let mut headers = table(&each_type());
    headers.insert("CC".into(), text("further"));
    headers.insert("Traceparent".into(), text(SUPPLIED));
    headers.insert("tracestate".into(), AMQPValue::LongInt(3));
    let properties = BasicProperties::default().with_headers(headers).with_expiration("60000".into()).with_priority(5);
    let sent = publish(&otel(&capture), "shop", "placed", properties.clone());
    let written = sent.headers().as_ref().unwrap();
    for (name, value) in each_type() {
        assert_eq!(written.inner().get(name), Some(&value), "PROP-R-02: {name}");
    }
    assert_eq!(written.inner().get("CC"), Some(&text("further")), "the caller's own");
    let span = capture.spans()[0].span_context.clone();
    let expected = format!("00-{}-{}-01", span.trace_id(), span.span_id());
    assert_eq!(written.inner().get("traceparent"), Some(&text(&expected)), "PROP-05, PROP-R-01");
    assert!(!written.contains_key("Traceparent"), "PROP-05");
    let without = |properties: BasicProperties| properties.with_headers(FieldTable::default());
    assert_eq!(without(sent), without(properties), "all other properties");
}

#[test]
fn ids_are_read_from_the_properties() {
    let capture = Capture::new();
    let properties = BasicProperties::default().with_message_id("m1".into()).with_correlation_id("c1".into());
    publish(&otel(&capture), "logs", "", properties);
    assert_eq!(only(&capture).3, "destination.name=logs message.conversation_id=c1 message.id=m1", "ATTR-R-07");
}

#[test]
fn a_message_that_is_passed_on_keeps_its_context_and_nothing_of_the_server() {
    let capture = Capture::new();
    let entries = [
        ("traceparent", text(SUPPLIED)),
        ("tenant", AMQPValue::LongInt(42)),
        ("x-delivery-count", AMQPValue::LongLongInt(3)),
        ("x-first-death-queue", text("orders")),
        ("BCC", text("elsewhere")),
    ];
    let forward = otel(&capture).with_creation_context(CreationContext::Kept);
    let sent = publish(&forward, "", "orders.dead", with_headers(&entries));
    let kept = [("traceparent", text(SUPPLIED)), ("tenant", AMQPValue::LongInt(42))];
    assert_eq!(sent.headers().as_ref(), Some(&table(&kept)), "SPAN-25, SPAN-37");
    let (name, kind, links, _) = only(&capture);
    assert_eq!((name.as_str(), kind, links), ("publish orders.dead", SpanKind::Client, 1), "SPAN-03, SPAN-37");
}

#[test]
fn a_given_creation_context_is_written() {
    let capture = Capture::new();
    let given = SpanContext::new(
        TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap(),
        SpanId::from_hex("00f067aa0ba902b7").unwrap(),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    let otel = otel(&capture).with_creation_context(CreationContext::Given(given));
    let sent = publish(&otel, "logs", "", BasicProperties::default());
    assert_eq!(HeaderExtractor::new(sent.headers().as_ref()).find("traceparent"), Some(SUPPLIED), "GOLD-X-08");
}

#[test]
fn what_the_server_says_of_a_message_is_the_error_of_its_span() {
    let returned = |reply_code| {
        let delivery = Delivery::mock(0, "shop".into(), "nowhere".into(), false, Vec::new());
        Some(BasicReturnMessage { delivery, reply_code, reply_text: "NO_ROUTE".into() })
    };
    let type_of = |confirmation| {
        let refused = place("shop", "nowhere").refused(&confirmation)?;
        assert!(refused.to_string().contains("`shop:nowhere`"), "{refused}");
        Some(refused.error_type().to_owned())
    };
    let types = [
        type_of(Confirmation::Ack(None)),
        type_of(Confirmation::NotRequested),
        type_of(Confirmation::Nack(None)),
        type_of(Confirmation::Ack(returned(312))),
        type_of(Confirmation::Ack(returned(313))),
    ];
    let types: Vec<_> = types.iter().map(Option::as_deref).collect();
    assert_eq!(types, [None, None, Some("nack"), Some("no-route"), Some("no-consumers")], "ATTR-R-14");
    let lost = place("shop", "k").failed(&ErrorKind::MissingHeartbeatError.into());
    assert_eq!(lost.error_type(), "connection_lost");
}

#[tokio::test]
async fn one_task_at_a_time_is_polled_first_and_none_is_held_up_by_an_answer() {
    let turn = Mutex::new(());
    let first_of = |polls: &mut u32| {
        *polls += 1;
        assert_eq!(turn.try_lock().is_err(), *polls == 1, "poll {polls}");
    };
    let mut polls = 0;
    let publish = std::future::poll_fn(|context| {
        first_of(&mut polls);
        context.waker().wake_by_ref();
        if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
    });
    assert_eq!(one_at_a_time(&turn, publish).await, 3);
    let never = one_at_a_time(&turn, std::future::pending::<()>());
    assert!(never.now_or_never().is_none() && turn.try_lock().is_ok());
}

#[tokio::test]
async fn golden_r_05_process() {
    let capture = Capture::new();
    my_queue(&capture).process(&warning(with_headers(&[("traceparent", text(SUPPLIED))])), async {}).await;
    let shown = "destination.name=direct_logs:warning:my_queue rabbitmq.destination.routing_key=warning \
                 rabbitmq.message.delivery_tag=7";
    let expected = ("process direct_logs:warning:my_queue".to_owned(), SpanKind::Consumer, 1, shown.to_owned());
    assert_eq!(only(&capture), expected, "GOLD-R-05");
    let spans = capture.spans();
    assert_eq!(spans[0].parent_span_id.to_string(), SUPPLIED[36..52], "LINK-06");
    let tag = spans[0].attributes.iter().find(|one| one.key.as_str() == "messaging.rabbitmq.message.delivery_tag");
    assert_eq!(tag.map(|tag| &tag.value), Some(&Value::I64(7)), "ATTR-R-06");
}

#[tokio::test]
async fn golden_r_06_to_08_process() {
    let rows = [
        (Queue::new("orders"), "", "orders", "process orders", "orders"),
        (Queue::new("amq.gen-x").bind(Exchange::fanout("logs"), ""), "logs", "", "process", "logs:amq.gen-x"),
        (Queue::new("q").bind(Exchange::topic("ev"), "eu.*"), "ev", "eu.42", "process ev:eu.*:q", "ev:eu.42:q"),
        // What came by no binding that is known.
        (Queue::new("q").bind(Exchange::topic("ev"), "eu.*"), "else", "k", "process q", "else:k:q"),
    ];
    for (queue, exchange, key, name, destination) in rows {
        let capture = Capture::new();
        let subscription = otel(&capture).subscription(queue);
        subscription.process(&arrived(exchange, key, BasicProperties::default()), async {}).await;
        let spans = capture.spans();
        let set = attributes(&spans[0].attributes);
        assert_eq!((spans[0].name.as_ref(), set["messaging.destination.name"].as_str().as_ref()), (name, destination));
        let is_anonymous = set.get("messaging.destination.anonymous") == Some(&Value::Bool(true));
        assert_eq!(is_anonymous, destination.contains("amq.gen"), "ATTR-R-08");
    }
}

#[tokio::test]
async fn a_queue_that_is_not_known_names_no_span() {
    let capture = Capture::new();
    let otel = otel(&capture);
    for (exchange, key) in [("ev", "eu.42"), ("", "orders"), ("", "amq.gen-x"), ("", "amq.rabbitmq.reply-to.g2dk")] {
        otel.process(&arrived(exchange, key, BasicProperties::default()), async {}).await;
    }
    assert_eq!(names(&capture), ["process", "process", "process", "process amq.rabbitmq.reply-to"], "SPAN-17, SPAN-19");
    let spans = capture.spans();
    let sets: Vec<_> = spans.iter().map(|span| attributes(&span.attributes)).collect();
    let destinations: Vec<_> = sets.iter().map(|set| set["messaging.destination.name"].to_string()).collect();
    assert_eq!(destinations, ["ev:eu.42", "orders", "amq.gen-x", "amq.rabbitmq.reply-to.g2dk"], "ATTR-R-04");
    let anonymous = sets.iter().map(|set| set.contains_key("messaging.destination.anonymous"));
    assert_eq!(anonymous.collect::<Vec<_>>(), [false, false, true, true], "ATTR-R-08");
}

#[tokio::test]
async fn the_only_queue_may_be_said_once() {
    let capture = Capture::new();
    let otel = otel(&capture).with_queue(Queue::new("my_queue").bind(Exchange::direct("direct_logs"), "warning"));
    otel.process(&warning(BasicProperties::default()), async {}).await;
    otel.ack(&warning(BasicProperties::default()), BasicAckOptions::default()).await.unwrap();
    let expected = ["process direct_logs:warning:my_queue", "ack direct_logs:warning:my_queue"];
    assert_eq!(names(&capture), expected);
}

#[tokio::test]
async fn a_message_is_read_completely() {
    let capture = Capture::new();
    let properties = with_headers(&[("x-delivery-count", AMQPValue::LongLongInt(2)), ("baggage", text("tenant=acme"))])
        .with_message_id("m1".into())
        .with_correlation_id("c1".into());
    let message = Delivery { redelivered: true, ..arrived("", "orders", properties) };
    let orders = otel(&capture).subscription(Queue::new("orders").quorum());
    let processing = orders.start(&message);
    assert_eq!(processing.scope().get("tenant").map(|tenant| tenant.to_string()).as_deref(), Some("acme"));
    processing.run(async {}).await;
    let shown = "destination.name=orders message.conversation_id=c1 message.id=m1 \
                 rabbitmq.destination.routing_key=orders rabbitmq.message.delivery_tag=7 throughline.attempt=3";
    assert_eq!(only(&capture).3, shown, "ATTR-R-05 to -07");
}

#[tokio::test]
async fn the_attempt_is_what_the_server_has_counted() {
    let count = |queue: Option<Queue>, redelivered, header: Option<i64>| async move {
        let capture = Capture::new();
        let entries: Vec<_> =
            header.map(|count| ("x-delivery-count", AMQPValue::LongLongInt(count))).into_iter().collect();
        let message = Delivery { redelivered, ..arrived("", "orders", with_headers(&entries)) };
        match queue {
            Some(queue) => otel(&capture).subscription(queue).process(&message, async {}).await,
            None => otel(&capture).process(&message, async {}).await,
        }
        attributes(&capture.spans()[0].attributes).get("throughline.attempt").map(ToString::to_string)
    };
    let classic = || Some(Queue::new("orders"));
    assert_eq!(count(classic(), false, Some(9)).await, None, "a header of somebody else's");
    assert_eq!(count(classic(), true, Some(9)).await.as_deref(), Some("2"));
    assert_eq!(count(Some(Queue::new("orders").quorum()), true, Some(9)).await.as_deref(), Some("10"));
    assert_eq!(count(None, true, Some(9)).await.as_deref(), Some("10"), "a queue that may count");
    assert_eq!(count(None, true, None).await.as_deref(), Some("2"), "a queue that does not count");
}

#[tokio::test]
async fn hostile_properties_do_no_harm() {
    let capture = Capture::new();
    let entries = [
        ("traceparent", AMQPValue::LongInt(42)),
        ("tracestate", AMQPValue::LongString(vec![0xff].into())),
        ("x-delivery-count", AMQPValue::LongLongInt(-3)),
        ("x-death", text("no list")),
        ("retry-attempt", AMQPValue::Void),
    ];
    let properties = with_headers(&entries).with_timestamp(u64::MAX).with_reply_to("".into());
    let message = Delivery { redelivered: true, ..warning(properties) };
    my_queue(&capture).process(&message, async {}).await;
    let (name, _, links, _) = only(&capture);
    assert_eq!((name.as_str(), links), ("process direct_logs:warning:my_queue", 0));
}

#[tokio::test]
async fn a_batch_has_a_link_to_each_message() {
    let capture = Capture::new();
    let messages = [("traceparent", text(SUPPLIED)), ("none", text("x"))].map(|entry| warning(with_headers(&[entry])));
    my_queue(&capture).process_batch(&messages, async {}).await;
    let (name, _, links, shown) = only(&capture);
    assert_eq!((name.as_str(), links), ("process direct_logs:warning:my_queue", 1), "GOLD-K-10");
    assert!(shown.starts_with("batch.message_count=2 "), "{shown}");
}

#[tokio::test]
async fn golden_r_09_settlements_are_children_of_the_process_span() {
    let capture = Capture::new();
    let queue = my_queue(&capture);
    for verb in ["ack", "nack", "reject"] {
        let message = warning(BasicProperties::default());
        let settled = queue.process(&message, async {
            match verb {
                "ack" => queue.ack(&message, BasicAckOptions::default()).await,
                "nack" => queue.nack(&message, BasicNackOptions::default()).await,
                _ => queue.reject(&message, BasicRejectOptions { requeue: true }).await,
            }
        });
        assert!(settled.await.unwrap());
        let tree = capture.tree();
        let span = tree.find(&format!("{verb} direct_logs:warning:my_queue"));
        assert_eq!(
            (&span.span_kind, span.links.len(), &span.status),
            (&SpanKind::Client, 0, &Status::Unset),
            "GOLD-R-09"
        );
        let parent = tree.parent(span).map(|parent| parent.name.as_ref());
        assert_eq!(parent, Some("process direct_logs:warning:my_queue"), "LINK-12");
        let set = attributes(&span.attributes);
        assert_eq!(set["messaging.destination.name"].as_str(), "direct_logs:warning:my_queue", "GOLD-R-09");
        assert_eq!(set["messaging.rabbitmq.message.delivery_tag"], Value::I64(7), "ATTR-R-06");
        assert!(!set.contains_key("messaging.rabbitmq.destination.routing_key"), "ATTR-R-05");
        capture.reset();
    }
}

#[tokio::test]
async fn a_plain_ack_has_a_span_only_where_it_is_asked_for() {
    for (which, expected) in
        [(SettleSpans::Exceptional, &["nack direct_logs:warning:my_queue"][..]), (SettleSpans::Never, &[])]
    {
        let capture = Capture::new();
        let otel = Instrumentation::from(capture.instrumentation().settle_spans(which).build());
        let queue = otel.subscription(Queue::new("my_queue").bind(Exchange::direct("direct_logs"), "warning"));
        queue.ack(&warning(BasicProperties::default()), BasicAckOptions::default()).await.unwrap();
        queue.nack(&warning(BasicProperties::default()), BasicNackOptions::default()).await.unwrap();
        assert_eq!(names(&capture), expected, "SPAN-32");
    }
}

#[tokio::test]
async fn what_the_client_does_not_settle_is_a_failed_settlement() {
    let capture = Capture::new();
    let (queue, message) = (my_queue(&capture), warning(BasicProperties::default()));
    assert!(queue.ack(&message, BasicAckOptions::default()).await.unwrap());
    capture.reset();
    assert!(!queue.ack(&message, BasicAckOptions::default()).await.unwrap(), "the client's own answer");
    assert_eq!(error_type(&capture), "_OTHER");
}

#[tokio::test]
async fn a_receive_span_is_around_the_wait() {
    let capture = Capture::new();
    let message = warning(with_headers(&[("traceparent", text(SUPPLIED))]));
    let failed = Err(ErrorKind::MissingHeartbeatError.into());
    let mut consumer = stream::iter([Ok(message), failed]).boxed();
    let queue = my_queue(&capture);
    let received = queue.next(&mut consumer).await.unwrap().unwrap();
    assert_eq!(received.routing_key.as_str(), "warning");
    let shown = "destination.name=direct_logs:warning:my_queue rabbitmq.destination.routing_key=warning \
                 rabbitmq.message.delivery_tag=7";
    let expected = ("receive direct_logs:warning:my_queue".to_owned(), SpanKind::Client, 1, shown.to_owned());
    assert_eq!(only(&capture), expected, "SPAN-30, GOLD-X-10");
    queue.next(&mut consumer).await.unwrap().unwrap_err();
    assert_eq!(error_type(&capture), "connection_lost", "STAT-14");
    capture.reset();
    assert!(queue.next(&mut consumer).await.is_none());
    assert!(queue.next(&mut stream::pending().boxed()).now_or_never().is_none());
    assert!(capture.spans().is_empty(), "the consumer has ended, and a dropped wait has received nothing");
}

#[tokio::test]
async fn parent_and_trust_are_those_of_the_client_unless_the_queue_says_its_own() {
    let capture = Capture::new();
    let otel = otel(&capture).with_parent_mode(ParentMode::LinkOnly).with_trust(Trust::Ignore);
    let message = warning(with_headers(&[("traceparent", text(SUPPLIED)), ("baggage", text("tenant=acme"))]));
    let queue = otel.subscription(Queue::new("my_queue"));
    assert!(queue.start(&message).scope().get("tenant").is_none());
    capture.reset();
    let trusting = queue.with_trust(Trust::Continue).with_parent_mode(ParentMode::Auto);
    assert!(trusting.start(&message).scope().get("tenant").is_some());
    assert_eq!(capture.spans()[0].parent_span_id.to_string(), SUPPLIED[36..52], "LINK-06");
}
