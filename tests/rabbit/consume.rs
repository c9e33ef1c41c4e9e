//! Messages that are tried again, given up, and those that come by exchanges.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry_sdk::trace::SpanData;
use throughline_core::broker::{Broker, Received, Subscriber};
use throughline_core::telemetry::SettleSpans;
use throughline_core::{App, Delivery, Envelope, Settlement, serve};
use throughline_rabbit::{Exchange, NativeMessage, Queue, ToExchange};
use throughline_testing::{Capture, attribute};
use tokio::time::{Instant, sleep, timeout};

use crate::server::{self, KEPT, PATIENCE, Plain, unique};

async fn next(subscriber: &mut Box<dyn Subscriber>) -> Received {
    timeout(PATIENCE, subscriber.receive()).await.expect("a message in time").expect("a message")
}

async fn end(mut subscriber: Box<dyn Subscriber>) {
    let deadline = Instant::now() + PATIENCE;
    subscriber.close(deadline).await;
    while subscriber.drain().await.is_some() {}
    subscriber.finish(deadline).await.expect("an end in time");
}

const fn retry(after: Duration) -> Settlement {
    Settlement::Retry { after: Some(after) }
}

/// In place, on both kinds of queue: the attempts are counted, and nothing is added to the headers.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_short_retry_waits_in_place_and_is_counted() {
    let rabbit = server::connect().await;
    for queue in [Queue::new(unique("classic")), Queue::new(unique("quorum")).quorum().delivery_limit(9)] {
        let name = queue.to_string();
        let destination = name.split('`').nth(1).expect("its name").to_owned();
        let mut subscriber = rabbit.subscribe(&queue.expires(KEPT).into()).await.expect("a subscription");
        let message = Envelope::new(destination.clone(), "x").with_header("tenant", "acme");
        rabbit.transport().publish(message).await.expect("published");
        for attempt in 1..=3 {
            let mut received = next(&mut subscriber).await;
            assert_eq!(received.delivery.attempt(), attempt, "{name}");
            assert_eq!(received.delivery.header("tenant"), Some("acme"));
            received.settle(&retry(Duration::from_millis(50))).await.expect("settled");
        }
        next(&mut subscriber).await.settle(&Settlement::Ack).await.expect("settled");
        end(subscriber).await;
        let plain = Plain::connect(&server::url()).await;
        assert_eq!(plain.count(&destination).await, (0, 0), "{name}");
        plain.delete(&destination).await;
    }
}

/// Through a delay queue: as it came, by the exchange and the key it came by, once, and with one more attempt.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_retry_without_room_waits_in_a_delay_queue() {
    waits_in_a_delay_queue(|queue| queue).await;
    waits_in_a_delay_queue(Queue::quorum).await;
}

async fn waits_in_a_delay_queue(make: impl FnOnce(Queue) -> Queue) {
    let (rabbit, plain) = (server::connect().await, Plain::connect(&server::url()).await);
    let (name, exchange) = (unique("delayed"), unique("events"));
    let queue = make(Queue::new(name.as_str()))
        .expires(KEPT)
        .prefetch(1)
        .bind(Exchange::topic(exchange.as_str()).auto_delete(), "eu.*");
    let mut subscriber = rabbit.subscribe(&queue.into()).await.expect("a subscription");
    let mut headers = FieldTable::default();
    headers.insert("count".into(), AMQPValue::ShortShortUInt(7));
    headers.insert("when".into(), AMQPValue::Timestamp(u64::MAX));
    let properties =
        BasicProperties::default().with_headers(headers.clone()).with_priority(3).with_message_id("m1".into());
    let options = BasicPublishOptions::default();
    let published = plain.channel.basic_publish(exchange.as_str().into(), "eu.42".into(), options, b"x", properties);
    published.await.expect("published").await.expect("published");
    for attempt in 1..=3 {
        let mut received = next(&mut subscriber).await;
        let delivery = &received.delivery;
        assert_eq!((delivery.attempt(), delivery.destination(), delivery.id()), (attempt, "eu.42", Some("m1")));
        let native = delivery.native::<NativeMessage>().expect("a message of RabbitMQ");
        assert_eq!((native.exchange(), *native.properties().priority()), (exchange.as_str(), Some(3)));
        let arrived = native.properties().headers().clone().expect("headers");
        assert!(has_all(&arrived, &headers), "{arrived:?}");
        received.settle(&retry(Duration::from_millis(500))).await.expect("settled");
    }
    next(&mut subscriber).await.settle(&Settlement::Ack).await.expect("settled");
    end(subscriber).await;
    let deadline = Instant::now() + PATIENCE;
    while plain.count(&format!("{name}.retry.1s")).await.0 > 0 {
        assert!(Instant::now() < deadline, "one copy each time");
    }
    plain.delete(&format!("{name}.retry.1s")).await;
    plain.delete(&name).await;
}

/// Whether a table has all headers of another one, with their types.
fn has_all(table: &FieldTable, headers: &FieldTable) -> bool {
    headers.inner().iter().all(|(name, value)| table.inner().get(name) == Some(value))
}

/// A span: its name, and what only spans of RabbitMQ have.
fn shown(span: &SpanData) -> String {
    let get = |key: &str| attribute(span, key).map(|value| value.as_str().into_owned());
    let key = get("messaging.rabbitmq.destination.routing_key").unwrap_or_default();
    let tag = attribute(span, "messaging.rabbitmq.message.delivery_tag").is_some();
    let anonymous = get("messaging.destination.anonymous").is_some();
    let template = get("messaging.destination.template").unwrap_or_default();
    format!("{} key={key} tag={tag} anonymous={anonymous} {template}", span.name)
}

/// GOLD-R-02, -03, -05 to -09, ATTR-R-02, -05, -06, -08, -10: names through exchanges.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn messages_are_named_by_their_bindings() {
    let (rabbit, capture) = (server::connect().await, Capture::new());
    let [queue, logs, events, fanout] = ["q", "direct_logs", "ev", "logs"].map(unique);
    let bound = Queue::new(queue.as_str())
        .expires(KEPT)
        .bind(Exchange::direct(logs.as_str()).auto_delete(), "warning")
        .bind(Exchange::topic(events.as_str()).auto_delete(), "eu.*");
    let generated = Queue::generated().bind(Exchange::fanout(fanout.as_str()).auto_delete(), "");
    let app = App::new()
        .subscribe(bound, async |_: Delivery| {})
        .subscribe(generated, async |_: Delivery| {})
        .telemetry(capture.instrumentation().settle_spans(SettleSpans::Always).build());
    let running = serve(rabbit.clone(), app).start().await.expect("a service");
    let publisher = rabbit.publisher().telemetry(capture.instrumentation().build());
    for to in [
        ToExchange::new(logs.clone()).key("warning"),
        ToExchange::new(events.clone()).key("eu.42".to_owned()),
        ToExchange::new(fanout.clone()),
    ] {
        publisher.publish(to, "x").await.expect("published");
    }
    publisher.publish(queue.clone(), "x").await.expect("published");
    let count = |verb: &str| capture.spans().iter().filter(|span| span.name.starts_with(verb)).count();
    let deadline = Instant::now() + PATIENCE;
    while count("ack") < 4 && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    running.shutdown().await.expect("an end");
    let shown: Vec<String> = capture.spans().iter().map(shown).collect();
    let rename = |text: &str| {
        let mut text = text.to_owned();
        for (unique, name) in [(&queue, "q"), (&logs, "direct_logs"), (&events, "ev"), (&fanout, "logs")] {
            text = text.replace(unique.as_str(), name);
        }
        text.trim_end().to_owned()
    };
    let mut shown: Vec<_> = shown.iter().map(|line| rename(line)).collect();
    shown.sort();
    let mut expected = [
        "publish direct_logs:warning key=warning tag=false anonymous=false",
        "publish ev key=eu.42 tag=false anonymous=false ev",
        "publish logs key= tag=false anonymous=false",
        "publish q key=q tag=false anonymous=false",
        "process direct_logs:warning:q key=warning tag=true anonymous=false",
        "process ev:eu.*:q key=eu.42 tag=true anonymous=false ev:eu.*:q",
        "process key= tag=true anonymous=true",
        "process q key=q tag=true anonymous=false",
        "ack direct_logs:warning:q key= tag=true anonymous=false",
        "ack ev:eu.*:q key= tag=true anonymous=false ev:eu.*:q",
        "ack key= tag=true anonymous=true",
        "ack q key= tag=true anonymous=false",
    ];
    expected.sort_unstable();
    assert_eq!(shown, expected);
}

/// The prefetch bounds what waits in the service, and what was not handed over goes back.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn what_is_acknowledged_on_receipt_is_bounded_and_does_not_come_again() {
    const MESSAGES: u32 = 300;
    let (rabbit, plain, name) = (server::connect().await, Plain::connect(&server::url()).await, unique("receipt"));
    let queue = || Queue::new(name.as_str()).expires(KEPT).prefetch(10).ack_on_receipt();
    let mut subscriber = rabbit.subscribe(&queue().into()).await.expect("a subscription");
    let messages = (0..MESSAGES).map(|number| Envelope::new(name.clone(), number.to_string())).collect();
    assert!(rabbit.transport().publish_batch(messages).await.iter().all(Result::is_ok));
    let first = next(&mut subscriber).await;
    assert_eq!(first.delivery.payload().as_ref(), b"0");
    assert!(!first.needs_settlement());
    // Ten more may have come, and with the acknowledgement one more.
    let waiting = plain.count(&name).await.0;
    assert!(waiting >= MESSAGES - 12, "{waiting} of {MESSAGES} are with the server");
    // Not settled, and its channel ends.
    drop(first);
    end(subscriber).await;
    assert_eq!(plain.count(&name).await, (MESSAGES - 1, 0));
    let mut again = rabbit.subscribe(&queue().into()).await.expect("a subscription");
    assert_eq!(next(&mut again).await.delivery.payload().as_ref(), b"1");
    drop(again);
    plain.delete(&name).await;
}

/// Two processes count one after the other, and put their copies into the same delay queue.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn two_connections_share_the_count_of_attempts() {
    let of = |make: fn(Queue) -> Queue| make;
    let cases = [
        ("a copy of a classic queue", of(|queue| queue.prefetch(1)), 500),
        ("a copy of a quorum queue", of(|queue| queue.quorum().delivery_limit(9).prefetch(1)), 500),
        ("in place, counted by the server", of(|queue| queue.quorum().delivery_limit(9)), 50),
    ];
    let (rabbits, plain) = ([server::connect().await, server::connect().await], Plain::connect(&server::url()).await);
    for (what, make, delay) in cases {
        let name = unique("shared");
        let queue = || make(Queue::new(name.as_str()).expires(KEPT));
        for attempt in 1..=4 {
            let process = &rabbits[attempt % 2];
            let mut subscriber = process.subscribe(&queue().into()).await.expect("a subscription");
            if attempt == 1 {
                process.transport().publish(Envelope::new(name.clone(), "x")).await.expect("published");
            }
            let mut received = next(&mut subscriber).await;
            assert_eq!(received.delivery.attempt() as usize, attempt, "{what}");
            let settlement = if attempt < 4 { retry(Duration::from_millis(delay)) } else { Settlement::Ack };
            received.settle(&settlement).await.expect("settled");
            end(subscriber).await;
        }
        let deadline = Instant::now() + PATIENCE;
        while plain.count(&name).await != (0, 0) {
            assert!(Instant::now() < deadline, "nothing is left: {what}");
        }
        if delay == 500 {
            let waiting = format!("{name}.retry.1s");
            while plain.count(&waiting).await.0 > 0 {
                assert!(Instant::now() < deadline, "one copy each time: {what}");
            }
            plain.delete(&waiting).await;
        }
        plain.delete(&name).await;
    }
}
