//! What a subscription declares, what leads messages to it, and what the server refuses.

use std::borrow::Cow;
use std::future::{Future, IntoFuture};
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use throughline_core::ServeErrorKind;
use throughline_core::broker::{Broker, BrokerErrorKind, ConnectionState, Subscriber};
use throughline_core::{App, BrokerError, Delivery, Settlement, serve};
use throughline_rabbit::{Exchange, Overflow, Queue, Rabbit, StreamOffset, ToExchange};
use tokio::time::timeout;

use crate::load::until;
use crate::proxy::Proxy;
use crate::server::{PATIENCE, Plain, host_and_port, unique, url};

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("the server answers in time")
}

async fn connect() -> Rabbit {
    within(Rabbit::connect(url())).await.expect("a connection to THROUGHLINE_RABBIT_URL")
}

async fn subscribe(rabbit: &Rabbit, queue: Queue) -> Result<Box<dyn Subscriber>, BrokerError> {
    within(rabbit.subscribe(&queue.into())).await
}

async fn publish(rabbit: &Rabbit, exchange: &str, key: impl Into<Cow<'static, str>>, body: &str) {
    let to = ToExchange::new(exchange.to_owned()).key(key);
    within(rabbit.publisher().publish(to, body.to_owned()).into_future()).await.expect("a queue takes it");
}

/// Returns the next message's body.
async fn next(subscriber: &mut Box<dyn Subscriber>) -> String {
    let mut received = within(subscriber.receive()).await.expect("a message");
    within(received.settle(&Settlement::Ack)).await.expect("it is settled");
    String::from_utf8_lossy(received.delivery.payload()).into_owned()
}

/// Another client, which makes what is there before, and removes what is left.
struct Other {
    connection: Connection,
}

impl Other {
    async fn connect() -> Self {
        let connection = within(Connection::connect(&url(), ConnectionProperties::default())).await;
        Self { connection: connection.expect("another connection") }
    }

    async fn channel(&self) -> Channel {
        within(self.connection.create_channel()).await.expect("a channel")
    }

    async fn declare(&self, queue: &str, options: QueueDeclareOptions, arguments: &[(&str, AMQPValue)]) {
        let arguments = table(arguments);
        let declared = self.channel().await.queue_declare(queue.into(), options, arguments).await;
        declared.expect("it is declared");
    }

    async fn remove(&self, queues: &[&str], exchanges: &[&str]) {
        let channel = self.channel().await;
        for queue in queues {
            let options = QueueDeleteOptions::default();
            channel.queue_delete((*queue).into(), options).await.expect("the queue is removed");
        }
        for exchange in exchanges {
            channel
                .exchange_delete((*exchange).into(), ExchangeDeleteOptions::default())
                .await
                .expect("the exchange is removed");
        }
    }
}

fn table(arguments: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

const DURABLE: QueueDeclareOptions =
    QueueDeclareOptions { passive: false, durable: true, exclusive: false, auto_delete: false, nowait: false };

fn says(result: Result<Box<dyn Subscriber>, BrokerError>, kind: BrokerErrorKind, parts: &[&str]) {
    let failed = result.err().expect("the server refuses it");
    for part in parts {
        assert!(failed.to_string().contains(part), "{part} in {failed}");
    }
    assert_eq!(failed.kind(), kind, "{failed}");
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn each_kind_of_exchange_leads_to_the_queue() {
    let (rabbit, other) = (connect().await, Other::connect().await);
    let [direct, topic, fanout, queue] = ["direct", "topic", "fanout", "q"].map(unique);
    let bound = Queue::new(queue.clone())
        .bind(Exchange::direct(direct.clone()), "placed")
        .bind(Exchange::topic(topic.clone()), "placed.{country}")
        .bind(Exchange::fanout(fanout.clone()), "");
    let mut subscriber = subscribe(&rabbit, bound.clone()).await.expect("all is declared");
    for (exchange, key) in [(&direct, "placed"), (&topic, "placed.eu"), (&fanout, "any")] {
        publish(&rabbit, exchange, key, exchange).await;
        assert_eq!(next(&mut subscriber).await, *exchange);
    }
    let missed = ToExchange::new(topic.clone()).key("placed.eu.north");
    let missed = within(rabbit.publisher().publish(missed, "two words".to_owned()).into_future()).await;
    assert!(missed.is_err(), "a placeholder is one word");
    // The same again changes nothing.
    drop(subscriber);
    let mut again = subscribe(&rabbit, bound).await.expect("it is all there");
    publish(&rabbit, &fanout, "", "once").await;
    assert_eq!(next(&mut again).await, "once");
    other.remove(&[&queue], &[&direct, &topic, &fanout]).await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn headers_lead_to_the_queue_and_exchanges_to_each_other() {
    let (rabbit, other) = (connect().await, Other::connect().await);
    let [headers, source, between, queue] = ["headers", "source", "between", "q"].map(unique);
    let all = [("tenant", text("acme")), ("paid", AMQPValue::Boolean(true))];
    let any = [("urgent", text("yes")), ("late", text("yes"))];
    let eu = Exchange::fanout(between.clone()).internal().bound_to(Exchange::topic(source.clone()), "*.{region}");
    let bound = Queue::new(queue.clone())
        .bind_headers(Exchange::headers(headers.clone()), all)
        .bind_any_header(Exchange::headers(headers.clone()), any)
        .bind(eu, "");
    let mut subscriber = subscribe(&rabbit, bound).await.expect("all is declared");
    let to = || ToExchange::new(headers.clone());
    let publisher = rabbit.publisher();
    let half = within(publisher.publish(to(), "half".to_owned()).header("tenant", "acme").into_future()).await;
    assert!(half.is_err(), "both headers are needed");
    within(publisher.publish(to(), "late".to_owned()).header("late", "yes").into_future())
        .await
        .expect("one is enough");
    assert_eq!(next(&mut subscriber).await, "late");
    publish(&rabbit, &source, "placed.eu", "from the source").await;
    assert_eq!(next(&mut subscriber).await, "from the source");
    other.remove(&[&queue], &[&between, &source, &headers]).await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn every_builder_is_taken_by_the_server() {
    let (rabbit, other) = (connect().await, Other::connect().await);
    let kinds = ["classic", "quorum", "stream", "exclusive", "forgetful"];
    let [classic, quorum, stream, exclusive, forgetful] = kinds.map(unique);
    let seconds = Duration::from_secs;
    let all_of_classic = Queue::new(classic.clone())
        .dead_letter_exchange("", "dead")
        .message_ttl(seconds(60))
        .expires(seconds(60))
        .max_length(1_000)
        .max_bytes(1_000_000)
        .overflow(Overflow::RejectPublishDeadLetter)
        .max_priority(5)
        .single_active_consumer()
        .prefetch(5)
        .consumer_tag("mine")
        .consumer_priority(3);
    let all_of_quorum = Queue::new(quorum.clone())
        .quorum()
        .delivery_limit(3)
        .dead_letter_exchange("amq.fanout", "")
        .overflow(Overflow::RejectPublish)
        .dead_letter_at_least_once();
    let all_of_stream = Queue::new(stream.clone()).stream(StreamOffset::Ago(seconds(60))).max_bytes(500_000_000);
    let all_of_exclusive = Queue::new(exclusive.clone()).exclusive().transient().auto_delete().exclusive_consumer();
    let unsettled = Queue::new(forgetful.clone()).exclusive().ack_on_receipt();
    let queues = [all_of_classic, all_of_quorum, all_of_stream, all_of_exclusive, unsettled];
    for (queue, name) in queues.into_iter().zip([&classic, &quorum, &stream, &exclusive, &forgetful]) {
        let opened = subscribe(&rabbit, queue).await;
        let mut subscriber = opened.unwrap_or_else(|failed| panic!("{failed}: {name}"));
        let to = throughline_core::Destination::new(name.clone());
        within(rabbit.publisher().publish(to, name.clone()).into_future()).await.expect("the queue takes it");
        assert_eq!(next(&mut subscriber).await, *name);
    }
    other.remove(&[&classic, &quorum, &stream], &[]).await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_name_as_long_as_may_be_is_consumed_from() {
    let (rabbit, other) = (connect().await, Other::connect().await);
    let unique = unique("");
    // 255 bytes in letters of three.
    let letters = "語".repeat((255 - unique.len()) / 3);
    let name = format!("{letters}{unique}{}", "q".repeat((255 - unique.len()) % 3));
    assert_eq!(name.len(), 255);
    let mut subscriber = subscribe(&rabbit, Queue::new(name.clone()).retry_in_place()).await.expect("it is declared");
    publish(&rabbit, "", name.clone(), "arrived").await;
    assert_eq!(next(&mut subscriber).await, "arrived");
    other.remove(&[&name], &[]).await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_stream_is_read_from_its_first_message_again() {
    let (rabbit, other) = (connect().await, Other::connect().await);
    let name = unique("stream");
    let from = |offset| Queue::new(name.clone()).stream(offset);
    drop(subscribe(&rabbit, from(StreamOffset::Next)).await.expect("it is declared"));
    for body in ["one", "two", "three"] {
        let to = throughline_core::Destination::new(name.clone());
        within(rabbit.publisher().publish(to, body.to_owned()).into_future()).await.expect("the stream takes it");
    }
    let offsets = [StreamOffset::First, StreamOffset::At(1), StreamOffset::Ago(Duration::from_secs(3_600))];
    for (offset, first) in offsets.into_iter().zip(["one", "two", "one"]) {
        let mut subscriber = subscribe(&rabbit, from(offset)).await.expect("it is there");
        assert_eq!(next(&mut subscriber).await, first, "{offset:?}");
    }
    other.remove(&[&name], &[]).await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_queue_that_the_server_names_is_bound_and_goes_with_the_connection() {
    let (rabbit, other) = (connect().await, Other::connect().await);
    let fanout = unique("fanout");
    let all = || Queue::generated().bind(Exchange::fanout(fanout.clone()), "");
    let mut one = subscribe(&rabbit, all()).await.expect("the server names it");
    let mut two = subscribe(&rabbit, all()).await.expect("the server names another");
    publish(&rabbit, &fanout, "", "to all").await;
    assert_eq!((next(&mut one).await, next(&mut two).await), ("to all".to_owned(), "to all".to_owned()));
    within(rabbit.close()).await.expect("it is closed");
    let left = connect().await;
    let lost = within(left.publisher().publish(ToExchange::new(fanout.clone()), "late".to_owned()).into_future()).await;
    assert!(lost.is_err(), "no queue is left");
    other.remove(&[], &[&fanout]).await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn what_others_own_is_looked_for_and_not_made() {
    let (rabbit, other) = (connect().await, Other::connect().await);
    let name = unique("theirs");
    let not_found = BrokerErrorKind::NotFound;
    let missing = subscribe(&rabbit, Queue::new(name.clone()).passive()).await;
    says(missing, not_found, &[&format!("find queue `{name}`"), "declare it before"]);
    says(subscribe(&rabbit, Queue::new(name.clone()).no_declare()).await, not_found, &[&format!("`{name}`")]);
    other.declare(&name, DURABLE, &[("x-max-length", AMQPValue::LongInt(5))]).await;
    // Neither says that there is a limit.
    for queue in [Queue::new(name.clone()).passive(), Queue::new(name.clone()).no_declare()] {
        drop(subscribe(&rabbit, queue).await.expect("it is there"));
    }
    let exchange = unique("nowhere");
    let bound = Queue::new(name.clone()).bind(Exchange::named(exchange.clone()), "key");
    says(subscribe(&rabbit, bound.passive()).await, not_found, &[&exchange, "declare it before"]);
    other.remove(&[&name], &[]).await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_queue_that_differs_is_named_with_both_values() {
    let (rabbit, other) = (connect().await, Other::connect().await);
    let quorum = || vec![("x-queue-type", text("quorum"))];
    let long = |name: &'static str, value| vec![(name, AMQPValue::LongLongInt(value))];
    let of = |what: fn(Queue) -> Queue| what;
    let cases = [
        (vec![], of(|q| q.quorum()), "`x-queue-type` is `classic` on the server and `quorum` here"),
        (quorum(), of(|q| q), "`x-queue-type` is `quorum` on the server and `classic` here"),
        (vec![], of(|q| q.max_length(5)), "`x-max-length` is not set on the server and `5` here"),
        (long("x-max-length", 6), of(|q| q), "`x-max-length` is `6` on the server and not set here"),
        (long("x-max-length", 6), of(|q| q.max_length(5)), "`x-max-length` is `6` on the server and `5` here"),
        (long("x-max-length-bytes", 6), of(|q| q.max_bytes(5)), "`x-max-length-bytes` is `6`"),
        (long("x-message-ttl", 6), of(|q| q.message_ttl(Duration::from_secs(1))), "`x-message-ttl` is `6`"),
        (long("x-expires", 600_000), of(|q| q.expires(Duration::from_secs(60))), "`x-expires` is `600000`"),
        (long("x-max-priority", 6), of(|q| q.max_priority(5)), "`x-max-priority` is `6` on the server and `5` here"),
        (vec![], of(|q| q.single_active_consumer()), "`x-single-active-consumer` is not set"),
        (vec![], of(|q| q.dead_letter_exchange("dead", "")), "`x-dead-letter-exchange` is not set"),
        (
            vec![],
            of(|q| q.overflow(Overflow::RejectPublish)),
            "`x-overflow` is not set on the server and `reject-publish` here",
        ),
        (
            [quorum(), long("x-delivery-limit", 6)].concat(),
            of(|q| q.quorum().delivery_limit(5)),
            "`x-delivery-limit` is `6`",
        ),
        (vec![], of(|q| q.auto_delete()), "`auto_delete` is `false` on the server and `true` here"),
    ];
    for (theirs, ours, part) in cases {
        let name = unique("differs");
        other.declare(&name, DURABLE, &theirs).await;
        let parts = [&*name, part, "delete it there", "`passive`", "`no_declare`"];
        says(subscribe(&rabbit, ours(Queue::new(name.clone()))).await, BrokerErrorKind::Configuration, &parts);
        other.remove(&[&name], &[]).await;
    }
    // The connection is as good as before.
    let mut after =
        subscribe(&rabbit, Queue::generated().bind(Exchange::named("amq.fanout"), "")).await.expect("a queue");
    publish(&rabbit, "amq.fanout", "", "after all").await;
    assert_eq!(next(&mut after).await, "after all");
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn an_exchange_that_differs_or_is_missing_is_named() {
    let (rabbit, other) = (connect().await, Other::connect().await);
    let [exchange, queue] = ["differs", "q"].map(unique);
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let channel = other.channel().await;
    let declared = channel.exchange_declare((&*exchange).into(), ExchangeKind::Direct, options, FieldTable::default());
    declared.await.expect("it is declared");
    let configuration = BrokerErrorKind::Configuration;
    let cases = [
        (Exchange::topic(exchange.clone()), "`type` is `direct` on the server and `topic` here"),
        (Exchange::direct(exchange.clone()).transient(), "`durable` is `true` on the server and `false` here"),
        (Exchange::direct(exchange.clone()).internal(), "`internal` is `false` on the server and `true` here"),
        (Exchange::direct(exchange.clone()).auto_delete(), "`auto_delete` is `false` on the server and `true` here"),
        (Exchange::direct(exchange.clone()).alternate_exchange("other"), "`alternate-exchange` is not set"),
    ];
    for (ours, part) in cases {
        let bound = Queue::new(queue.clone()).bind(ours, "key");
        says(subscribe(&rabbit, bound).await, configuration, &[&exchange, part, "`no_declare`"]);
    }
    let reserved = Queue::new(queue.clone()).bind(Exchange::direct("amq.ours"), "key");
    says(subscribe(&rabbit, reserved).await, BrokerErrorKind::Unauthorized, &["`amq.ours`", "choose another name"]);
    // Last, since an old server ends the connection.
    let plug_in = Queue::new(queue).bind(Exchange::of_kind("x-nonsense", unique("e")), "key");
    says(subscribe(&rabbit, plug_in).await, configuration, &["x-nonsense", "rabbitmq-plugins enable"]);
    other.remove(&[], &[&exchange]).await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_queue_of_another_connection_is_refused() {
    let (rabbit, other) = (connect().await, Other::connect().await);
    let [locked, shared] = ["locked", "shared"].map(unique);
    other.declare(&locked, QueueDeclareOptions { exclusive: true, ..DURABLE }, &[]).await;
    let refused = subscribe(&rabbit, Queue::new(locked.clone()).exclusive()).await;
    says(refused, BrokerErrorKind::Configuration, &[&locked, "another connection has it", "`exclusive`"]);
    let mut first = subscribe(&rabbit, Queue::new(shared.clone()).exclusive_consumer()).await.expect("it is declared");
    let to = throughline_core::Destination::new(shared.clone());
    within(rabbit.publisher().publish(to, "mine".to_owned()).into_future()).await.expect("the queue takes it");
    assert_eq!(next(&mut first).await, "mine");
    // A service does not start.
    for refused in [Queue::new(shared.clone()), Queue::new(shared.clone()).exclusive_consumer()] {
        let app = App::new().subscribe(refused, async |_: Delivery| {}).without_telemetry();
        let failed = within(serve(connect().await, app).start()).await.expect_err("it has a consumer of its own");
        assert_eq!(failed.kind(), ServeErrorKind::Configuration);
        for part in [&*shared, "has a consumer that is exclusive", "`single_active_consumer`"] {
            assert!(failed.to_string().contains(part), "{part} in {failed}");
        }
    }
    drop(first);
    other.remove(&[&shared], &[]).await;
}

/// Reading goes on from the time of the start, and not with what is published after the outage.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_stream_that_was_empty_at_an_outage_is_read_from_the_start_of_its_reading() {
    let (plain, proxy) = (Plain::connect(&url()).await, Proxy::start(host_and_port(&url()).1).await);
    for from in [StreamOffset::Next, StreamOffset::Last, StreamOffset::Ago(Duration::from_secs(1))] {
        let rabbit = within(Rabbit::connect(proxy.url())).await.expect("a connection");
        let name = unique("stream");
        let mut subscriber = subscribe(&rabbit, Queue::new(name.clone()).stream(from)).await.expect("it is declared");
        within(subscriber.begin()).await.expect("it is read");
        proxy.cut();
        // It has noticed, so that its next consumer begins behind what is published now.
        until("the connection is lost", || Broker::connection(&rabbit) != ConnectionState::Connected).await;
        let publisher = connect().await;
        publish(&publisher, "", name.clone(), "in the outage").await;
        proxy.mend();
        assert_eq!(next(&mut subscriber).await, "in the outage", "{from:?}");
        plain.delete(&name).await;
    }
}
