//! RabbitMQ's own rows of the golden table, GOLD-R-01 to -09, through the raw door, and what only a channel of the client's can show.

use std::fmt::Write as _;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, BasicRejectOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Consumer, ExchangeKind};
use opentelemetry::Value;
use opentelemetry::trace::{SpanKind, Status};
use throughline_core::telemetry::SettleSpans;
use throughline_rabbit::{Exchange, Instrumentation, Queue};
use throughline_testing::{Capture, attributes};
use tokio::time::timeout;

use crate::server::{self, PATIENCE, Plain, unique};

pub(crate) const P1: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A channel with confirms, an exchange with a queue, and what is recorded.
struct Rows {
    capture: Capture,
    plain: Plain,
    otel: Instrumentation,
    exchange: String,
    queue: String,
}

impl Rows {
    async fn start(kind: ExchangeKind, binding: &str) -> Self {
        let rows = Self::without_confirms(kind, binding).await;
        rows.plain.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        rows
    }

    async fn without_confirms(kind: ExchangeKind, binding: &str) -> Self {
        let (plain, exchange, queue) = (Plain::connect(&server::url()).await, unique("ex"), unique("q"));
        let options = ExchangeDeclareOptions::default();
        let declared = plain.channel.exchange_declare(exchange.as_str().into(), kind, options, FieldTable::default());
        declared.await.expect("an exchange");
        plain.declare(&queue, &[]).await;
        let rows = Self { capture: Capture::new(), otel: Instrumentation::from_globals(), plain, exchange, queue };
        rows.bind(&rows.queue, binding).await;
        let engine = rows.capture.instrumentation().settle_spans(SettleSpans::Always).build();
        Self { otel: engine.into(), ..rows }
    }

    async fn bind(&self, queue: &str, key: &str) {
        let (exchange, options) = (self.exchange.as_str().into(), QueueBindOptions::default());
        let bound = self.plain.channel.queue_bind(queue.into(), exchange, key.into(), options, FieldTable::default());
        bound.await.expect("a binding");
    }

    async fn publish(&self, exchange: &str, key: &str) -> lapin::Result<Confirmation> {
        let (exchange, key) = (exchange.into(), key.into());
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        self.otel.basic_publish(&self.plain.channel, exchange, key, options, b"{}", properties).await?.await
    }

    /// Publishes a message with P1, without telemetry.
    async fn given(&self, exchange: &str, key: &str) {
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::LongString(P1.into()));
        let properties = BasicProperties::default().with_headers(headers);
        let options = BasicPublishOptions::default();
        let channel = &self.plain.channel;
        let sent = channel.basic_publish(exchange.into(), key.into(), options, b"{}", properties).await;
        sent.expect("a publish").await.expect("a confirmation");
    }

    async fn consume(&self, queue: &str) -> Consumer {
        let options = BasicConsumeOptions::default();
        let consumer = self.plain.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        consumer.await.expect("a consumer")
    }

    async fn take(&self, queue: &str) -> Delivery {
        next(&mut self.consume(queue).await).await
    }

    fn shown(&self) -> String {
        shown(&self.capture).replace(&self.exchange, "ex").replace(&self.queue, "q")
    }

    fn is_unset(&self) -> bool {
        self.capture.spans().iter().all(|span| span.status == Status::Unset)
    }

    /// On a connection of its own: a test may have closed the channel.
    async fn stop(self) {
        let plain = Plain::connect(&server::url()).await;
        plain.delete(&self.queue).await;
        let deleted = plain.channel.exchange_delete(self.exchange.as_str().into(), ExchangeDeleteOptions::default());
        deleted.await.expect("the exchange is deleted");
    }
}

async fn next(consumer: &mut Consumer) -> Delivery {
    timeout(PATIENCE, consumer.next()).await.expect("a message in time").expect("a message").expect("a message")
}

mod golden {
    use super::*;

    #[tokio::test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    async fn golden_r_01_to_04_publish() {
        let rows = Rows::start(ExchangeKind::Direct, "warning").await;
        for (exchange, key) in [("", rows.queue.as_str()), (&rows.exchange, "warning"), (&rows.exchange, ""), ("", "")]
        {
            let confirmed = rows.publish(exchange, key).await.expect("a confirmation");
            assert_eq!(confirmed, Confirmation::Ack(None));
        }
        let expected = "publish q Producer 0 destination.name=q destination.routing_key=q\n\
                        publish ex:warning Producer 0 destination.name=ex:warning destination.routing_key=warning\n\
                        publish ex Producer 0 destination.name=ex\n\
                        publish amq.default Producer 0 destination.name=amq.default\n";
        assert_eq!(rows.shown(), expected, "GOLD-R-01 to -04");
        assert!(rows.is_unset(), "STAT-01");
        rows.stop().await;
    }

    #[tokio::test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    async fn golden_r_05_and_09_process_and_settle() {
        let rows = Rows::start(ExchangeKind::Direct, "warning").await;
        let otel = rows
            .otel
            .subscription(Queue::new(rows.queue.as_str()).bind(Exchange::direct(rows.exchange.as_str()), "warning"));
        let mut consumer = rows.consume(&rows.queue).await;
        for verb in ["nack", "reject", "ack"] {
            if verb == "nack" {
                rows.given(&rows.exchange, "warning").await;
            }
            let message = next(&mut consumer).await;
            let settled = otel.process(&message, async {
                match verb {
                    "ack" => otel.ack(&message, BasicAckOptions::default()).await,
                    "nack" => otel.nack(&message, BasicNackOptions { requeue: true, ..Default::default() }).await,
                    _ => otel.reject(&message, BasicRejectOptions { requeue: true }).await,
                }
            });
            assert!(settled.await.expect("a settlement"), "it is the first");
            let (tag, again) = match verb {
                "nack" => (1, ""),
                "reject" => (2, " throughline.attempt=2"),
                _ => (3, " throughline.attempt=2"),
            };
            let expected = format!(
                "{verb} ex:warning:q Client 0 destination.name=ex:warning:q message.delivery_tag={tag}\n\
                 process ex:warning:q Consumer 1 destination.name=ex:warning:q destination.routing_key=warning \
                 message.delivery_tag={tag}{again}\n"
            );
            assert_eq!(sorted(&rows.shown()), sorted(&expected), "GOLD-R-05, GOLD-R-09");
            let tree = rows.capture.tree();
            follow_p1(&rows.capture);
            let settle = tree.find(&format!("{verb} {}:warning:{}", rows.exchange, rows.queue));
            let parent = tree.parent(settle).map(|span| span.span_kind.clone());
            assert_eq!(parent, Some(SpanKind::Consumer), "GOLD-R-09, LINK-12");
            assert!(rows.is_unset(), "STAT-01");
            rows.capture.reset();
        }
        drop(consumer);
        assert_eq!(rows.plain.count(&rows.queue).await.0, 0, "it was settled for good");
        rows.stop().await;
    }

    #[tokio::test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    async fn golden_r_06_the_default_exchange() {
        let rows = Rows::start(ExchangeKind::Direct, "k").await;
        rows.given("", &rows.queue).await;
        let message = rows.take(&rows.queue).await;
        rows.otel.subscription(Queue::new(rows.queue.as_str())).process(&message, async {}).await;
        let expected = "process q Consumer 1 destination.name=q destination.routing_key=q message.delivery_tag=1\n";
        assert_eq!(rows.shown(), expected, "GOLD-R-06");
        follow_p1(&rows.capture);
        rows.stop().await;
    }

    #[tokio::test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    async fn golden_r_07_a_queue_that_the_server_named() {
        let rows = Rows::start(ExchangeKind::Fanout, "").await;
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let declared =
            rows.plain.channel.queue_declare("".into(), options, FieldTable::default()).await.expect("a queue");
        let generated = declared.name().as_str();
        rows.bind(generated, "").await;
        rows.given(&rows.exchange, "").await;
        let message = rows.take(generated).await;
        let queue = Queue::new(generated).bind(Exchange::fanout(rows.exchange.as_str()), "");
        rows.otel.subscription(queue).process(&message, async {}).await;
        let expected = "process Consumer 1 destination.anonymous=true destination.name=ex:amq.gen destination.temporary=true \
                        message.delivery_tag=1\n";
        assert_eq!(rows.shown().replace(generated, "amq.gen"), expected, "GOLD-R-07");
        follow_p1(&rows.capture);
        rows.stop().await;
    }

    #[tokio::test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    async fn golden_r_08_a_binding_by_a_pattern() {
        let rows = Rows::start(ExchangeKind::Topic, "eu.*").await;
        rows.given(&rows.exchange, "eu.42").await;
        let message = rows.take(&rows.queue).await;
        let queue = Queue::new(rows.queue.as_str()).bind(Exchange::topic(rows.exchange.as_str()), "eu.*");
        rows.otel.subscription(queue).process(&message, async {}).await;
        let expected = "process ex:eu.*:q Consumer 1 destination.name=ex:eu.42:q destination.routing_key=eu.42 \
                        destination.template=ex:eu.*:q message.delivery_tag=1\n";
        assert_eq!(sorted(&rows.shown()), sorted(expected), "GOLD-R-08");
        follow_p1(&rows.capture);
        rows.stop().await;
    }
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn basic_get_has_a_receive_span_also_when_there_is_nothing() {
    let rows = Rows::start(ExchangeKind::Direct, "k").await;
    let otel = rows.otel.subscription(Queue::new(rows.queue.as_str()));
    rows.given("", &rows.queue).await;
    let get = || otel.basic_get(&rows.plain.channel, rows.queue.as_str().into(), BasicGetOptions::default());
    let message = get().await.expect("an answer").expect("a message");
    assert!(get().await.expect("an answer").is_none(), "there was one");
    let expected = "receive q Client 1 destination.name=q destination.routing_key=q message.delivery_tag=1\n\
                    receive q Client 0 destination.name=q\n";
    assert_eq!(rows.shown(), expected, "GOLD-X-10, SPAN-31");
    rows.capture.reset();
    otel.process(&message, async {}).await;
    assert!(otel.ack(&message, BasicAckOptions::default()).await.expect("an acknowledgement"));
    let names: Vec<_> = rows.capture.spans().iter().map(|span| span.name.replace(&rows.queue, "q")).collect();
    assert_eq!(names, ["process q", "ack q"]);

    rows.capture.reset();
    let missing = otel.basic_get(&rows.plain.channel, unique("missing").into(), BasicGetOptions::default()).await;
    missing.expect_err("there is no such queue");
    assert!(rows.shown().contains("error.type=not-found"), "ATTR-R-14: {}", rows.shown());
    rows.stop().await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn tags_are_settled_on_the_channel_many_at_a_time() {
    let rows = Rows::start(ExchangeKind::Direct, "k").await;
    let otel = rows.otel.subscription(Queue::new(rows.queue.as_str()));
    for _ in 0..4 {
        rows.given("", &rows.queue).await;
    }
    let (channel, mut consumer) = (&rows.plain.channel, rows.consume(&rows.queue).await);
    let mut tags = Vec::new();
    for _ in 0..4 {
        tags.push(next(&mut consumer).await.delivery_tag);
    }
    let [first, second, third, last] = tags[..] else { panic!("four messages: {tags:?}") };
    otel.basic_reject(channel, first, BasicRejectOptions { requeue: false }).await.expect("a settlement");
    otel.basic_nack(channel, second, BasicNackOptions::default()).await.expect("a settlement");
    otel.basic_ack(channel, last, BasicAckOptions { multiple: true }).await.expect("a settlement");
    let expected = format!(
        "reject q Client 0 destination.name=q message.delivery_tag={first}\n\
         nack q Client 0 destination.name=q message.delivery_tag={second}\n\
         ack q Client 0 destination.name=q message.delivery_tag={last}\n"
    );
    assert_eq!(rows.shown(), expected, "SPAN-33, GOLD-R-09");
    assert!(third < last && rows.is_unset());
    channel.basic_cancel(consumer.tag(), Default::default()).await.expect("the consumer ends");
    assert!(channel.status().connected(), "the server knew all tags");
    rows.stop().await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn what_the_server_does_not_take_is_a_failed_publish_and_the_callers_to_see() {
    let rows = Rows::start(ExchangeKind::Direct, "warning").await;
    let (channel, mandatory) = (&rows.plain.channel, BasicPublishOptions { mandatory: true, ..Default::default() });
    let (exchange, properties) = (rows.exchange.as_str(), BasicProperties::default());
    let confirm = rows.otel.basic_publish(channel, exchange.into(), "nowhere".into(), mandatory, b"{}", properties);
    let confirmed = confirm.await.expect("a publish").await.expect("a confirmation");
    let returned = confirmed.take_message().expect("it came back");
    assert_eq!((returned.reply_code, returned.data.as_slice()), (312, &b"{}"[..]), "the caller's own");

    let full = unique("full");
    let text = |text: &str| AMQPValue::LongString(text.into());
    let arguments = [("x-max-length", AMQPValue::LongInt(0)), ("x-overflow", text("reject-publish"))];
    rows.plain.declare(&full, &arguments).await;
    // A full queue says so from the second message on.
    let mut confirmed = rows.publish("", &full).await.expect("a confirmation");
    if confirmed.is_ack() {
        rows.capture.reset();
        confirmed = rows.publish("", &full).await.expect("a confirmation");
    }
    assert!(confirmed.is_nack(), "{confirmed:?}");
    assert_eq!(error_type(&rows), "nack", "ATTR-R-14");
    rows.plain.delete(&full).await;

    rows.publish(&unique("missing"), "k").await.expect_err("there is no such exchange");
    assert_eq!(error_type(&rows), "not-found", "ATTR-R-14");
    rows.publish("", &rows.queue).await.expect_err("the channel is closed");
    assert_eq!(error_type(&rows), "connection_lost", "the client did not send it");
    rows.stop().await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn an_unroutable_message_has_the_error_type_no_route() {
    let rows = Rows::start(ExchangeKind::Direct, "warning").await;
    let (channel, mandatory) = (&rows.plain.channel, BasicPublishOptions { mandatory: true, ..Default::default() });
    let exchange = rows.exchange.as_str();
    let confirm =
        rows.otel.basic_publish(channel, exchange.into(), "k".into(), mandatory, b"{}", BasicProperties::default());
    assert!(confirm.await.expect("a publish").await.expect("a confirmation").take_message().is_some());
    let expected = "publish ex:k Producer 0 error.type=no-route destination.name=ex:k destination.routing_key=k\n";
    assert_eq!(rows.shown(), expected, "ATTR-R-14");
    assert!(matches!(rows.capture.spans()[0].status, Status::Error { .. }), "STAT-02");
    rows.stop().await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_span_ends_with_the_confirmation_or_where_there_is_none_at_once() {
    let rows = Rows::without_confirms(ExchangeKind::Direct, "warning").await;
    let (channel, options) = (&rows.plain.channel, BasicPublishOptions::default());
    let publish = || {
        let (queue, properties) = (rows.queue.as_str().into(), BasicProperties::default());
        rows.otel.basic_publish(channel, "".into(), queue, options, b"{}", properties)
    };
    let confirm = publish().await.expect("a publish");
    assert_eq!(rows.capture.spans().len(), 1, "SPAN-35: nothing is confirmed");
    assert_eq!(confirm.await.expect("an answer"), Confirmation::NotRequested, "the client's own answer");

    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    rows.capture.reset();
    let confirm = publish().await.expect("a publish");
    assert!(rows.capture.spans().is_empty(), "SPAN-35: it is not confirmed");
    assert_eq!(confirm.await.expect("an answer"), Confirmation::Ack(None));
    assert_eq!(rows.capture.spans().len(), 1, "SPAN-35");

    rows.capture.reset();
    drop(publish().await.expect("a publish"));
    assert!(rows.is_unset() && rows.capture.spans().len() == 1, "nobody asked what became of it");
    let returned = channel.wait_for_confirms().await.expect("the confirmations");
    assert!(returned.is_empty(), "the client still waits for it");
    rows.stop().await;
}

/// The client alone mixes up the confirmations of tasks that share a channel.
// L2.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn tasks_that_share_a_channel_get_their_own_confirmations() {
    const TASKS: usize = 8;
    const EACH: usize = 300;
    let rows = Rows::start(ExchangeKind::Direct, "k").await;
    let full = unique("full");
    let text = |text: &str| AMQPValue::LongString(text.into());
    let arguments = [("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", text("reject-publish"))];
    rows.plain.declare(&full, &arguments).await;
    while rows.publish("", &full).await.expect("a confirmation").is_ack() {}
    rows.capture.reset();
    let tasks = (0..TASKS).map(|_| {
        let (otel, channel) = (rows.otel.clone(), rows.plain.channel.clone());
        let (full, good) = (full.clone(), rows.queue.clone());
        tokio::spawn(async move {
            let mut confirms = Vec::with_capacity(EACH);
            for number in 0..EACH {
                let is_good = number % 3 != 0;
                let queue = if is_good { good.as_str() } else { full.as_str() };
                let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
                let confirm = otel.basic_publish(&channel, "".into(), queue.into(), options, b"{}", properties).await;
                confirms.push((is_good, confirm.expect("a publish")));
            }
            for (is_good, confirm) in confirms {
                assert_eq!(confirm.await.expect("a confirmation").is_ack(), is_good, "L2");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("each has its own");
    }
    let spans = rows.capture.spans();
    assert_eq!(spans.len(), TASKS * EACH);
    for span in &spans {
        let is_full = span.name.ends_with(&full);
        assert_eq!(matches!(span.status, Status::Error { .. }), is_full, "{}", span.name);
    }
    rows.plain.delete(&full).await;
    rows.stop().await;
}

/// A settlement that comes too late.
// R8.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_settlement_after_the_end_of_its_channel_is_a_failed_one() {
    let rows = Rows::start(ExchangeKind::Direct, "k").await;
    let otel = rows.otel.subscription(Queue::new(rows.queue.as_str()));
    rows.given("", &rows.queue).await;
    let message = rows.take(&rows.queue).await;
    let channel = &rows.plain.channel;
    otel.basic_ack(channel, 99, BasicAckOptions::default()).await.expect("the client has written it");
    let closed = rows.publish("", &rows.queue).await;
    // The server closes the channel for the unknown tag, before or after it takes the message.
    if closed.is_ok() {
        rows.publish("", &rows.queue).await.expect_err("the channel is closed");
    }
    rows.capture.reset();
    let settled = otel.ack(&message, BasicAckOptions::default()).await;
    assert!(!matches!(settled, Ok(true)), "{settled:?}");
    assert!(matches!(rows.capture.spans()[0].status, Status::Error { .. }), "R8");
    otel.basic_ack(channel, message.delivery_tag, BasicAckOptions::default()).await.expect_err("the channel is closed");
    assert_eq!(error_type(&rows), "connection_lost", "R8");
    rows.stop().await;
}

fn error_type(rows: &Rows) -> String {
    let spans = rows.capture.spans();
    let span = spans.last().expect("a span");
    assert!(matches!(span.status, Status::Error { .. }), "STAT-02: {:?}", span.status);
    attributes(&span.attributes)["error.type"].to_string()
}

/// Every span: its name, kind, number of links, and all attributes but those of every span of a connection.
pub(crate) fn shown(capture: &Capture) -> String {
    let mut all = String::new();
    for span in capture.spans() {
        let set = attributes(&span.attributes);
        assert_eq!(set.len(), span.attributes.len(), "GEN-06");
        assert_eq!(set["messaging.system"].as_str(), "rabbitmq", "ATTR-S-02");
        write!(all, "{} {:?} {}", span.name, span.span_kind, span.links.len()).expect("memory");
        for (key, value) in set.iter().filter(|(key, _)| !COMMON.contains(key)) {
            let key = key.trim_start_matches("messaging.").trim_start_matches("rabbitmq.");
            assert!(key != "message.delivery_tag" || matches!(value, Value::I64(_)), "ATTR-R-06");
            write!(all, " {key}={value}").expect("memory");
        }
        all.push('\n');
    }
    all
}

const COMMON: [&str; 6] = [
    "messaging.client.id",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.system",
    "server.address",
    "server.port",
];

/// The process spans are children of the span of P1, and linked to it.
pub(crate) fn follow_p1(capture: &Capture) {
    let spans = capture.spans();
    let processed: Vec<_> = spans.iter().filter(|span| span.span_kind == SpanKind::Consumer).collect();
    assert!(!processed.is_empty());
    for span in processed {
        let [link] = &span.links.links[..] else { panic!("LINK-01: {:?}", span.links) };
        let linked = (link.span_context.trace_id(), link.span_context.span_id());
        for (trace, parent) in [(span.span_context.trace_id(), span.parent_span_id), linked] {
            assert_eq!(format!("00-{trace}-{parent}-01"), P1, "LINK-01, LINK-06: {}", span.name);
        }
    }
}

/// Attributes come in the order of their whole names, spans in that of their ends.
pub(crate) fn sorted(shown: &str) -> Vec<Vec<&str>> {
    let mut spans: Vec<Vec<&str>> = shown.lines().map(|line| line.split(' ').collect()).collect();
    for span in &mut spans {
        span.sort_unstable();
    }
    spans.sort_unstable();
    spans
}
