//! Where answers go: what a message asks for is followed only where that is allowed.

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use throughline_core::broker::{Broker, PublishErrorKind, Subscription};
use throughline_core::{App, Delivery, Envelope};
use throughline_kafka::{Kafka, Topic};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::load::{connect, read, start};
use crate::server::{PATIENCE, url};
use crate::topics::{create, unique};

async fn ask(kafka: &Kafka, topic: &str, to: &str) {
    let request = Envelope::new(topic.to_owned(), to.to_owned()).with_header("reply-to", to.to_owned());
    kafka.publisher().without_telemetry().publish_envelope(request).await.expect("published");
}

async fn end_of(topic: &str) -> i64 {
    let (mut config, topic) = (ClientConfig::new(), topic.to_owned());
    config.set("bootstrap.servers", url()).set("group.id", "none");
    let asked = spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().expect("a consumer");
        consumer.fetch_watermarks(&topic, 0, PATIENCE).expect("an answer").1
    });
    asked.await.expect("the question does not panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn an_answer_goes_only_where_the_subscription_allows_it() {
    let (prices, closed, secret) = (unique("prices"), unique("closed"), unique("secret"));
    let (answers, done) = (unique("answers"), unique("done"));
    for name in [&prices, &closed, &secret, &answers, &done] {
        create(&url(), name, 1).await;
    }
    let answer = async |delivery: Delivery| String::from_utf8_lossy(delivery.payload()).into_owned();
    let open = Topic::new(prices.as_str()).group(unique("group")).reply_topics([format!("{}*", &answers[..9])]);
    let app = App::new().subscribe(open, answer).subscribe(Topic::new(closed.as_str()).group(unique("group")), answer);
    let running = start(&url(), app).await;
    let kafka = connect(&url()).await;
    ask(&kafka, &prices, &secret).await;
    ask(&kafka, &closed, &answers).await;
    ask(&kafka, &closed, &secret).await;
    // In the order of the partition, so that the others were answered before.
    ask(&kafka, &prices, &answers).await;
    assert_eq!(read(&url(), &answers, 1).await, [answers.as_str()]);
    running.shutdown().await.expect("all is handled");
    assert_eq!((end_of(&secret).await, end_of(&answers).await), (0, 1));
}

/// The client would wait for a topic to appear, here for ten minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn an_answer_to_a_topic_that_does_not_exist_fails_at_once() {
    let (prices, missing) = (unique("prices"), unique("missing"));
    create(&url(), &prices, 1).await;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url()).set("topic.metadata.propagation.max.ms", "600000");
    let kafka = Kafka::connect_with(config).await.expect("a connection");
    let topic = Topic::new(prices.as_str()).group(unique("group")).reply_topics(["*"]);
    let mut subscriber = kafka.subscribe(&Subscription::from(topic)).await.expect("a subscription");
    for (asked, expected) in [(&missing, false), (&prices, true), (&prices, true)] {
        ask(&kafka, &prices, asked).await;
        let received = loop {
            let received = timeout(PATIENCE, subscriber.receive()).await.expect("in time").expect("a message");
            if received.delivery.reply_to().is_some() {
                break received;
            }
        };
        let to = received.delivery.reply_to().expect("it asks for an answer").clone();
        let transport = kafka.transport();
        let published = transport.publish(Envelope::new(to, "x"));
        let published = timeout(PATIENCE, published).await.expect("at once");
        assert_eq!(
            published.as_ref().map(drop).map_err(|failed| failed.kind()),
            match expected {
                true => Ok(()),
                false => Err(PublishErrorKind::NotFound),
            }
        );
    }
}
