//! What stands in the headers of records, byte for byte: what a client in another language reads.

use futures_util::StreamExt;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use throughline_core::broker::HeaderNames;
use throughline_core::extract::Baggage;
use throughline_core::propagation::Propagators;
use throughline_core::telemetry::Instrumentation as Engine;
use throughline_core::{App, Delivery, Handler, Settlement, serve};
use throughline_kafka::Topic;
use throughline_testing::Capture;
use tokio::time::timeout;

use crate::load::connect;
use crate::server::{PATIENCE, url};
use crate::topics::{create, unique};

/// Names and values in their order; a value may be null.
type Written = Vec<(String, Option<Vec<u8>>)>;

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url()).set("group.id", "none").set("enable.auto.commit", "false");
    config
}

async fn topic(name: &str) -> String {
    let name = unique(name);
    create(&url(), &name, 1).await;
    name
}

/// Reads the headers of the first records of a topic.
async fn headers(topic: &str, count: usize) -> Vec<Written> {
    let consumer: StreamConsumer = config().create().expect("a consumer");
    let mut places = TopicPartitionList::new();
    places.add_partition_offset(topic, 0, Offset::Beginning).expect("a position");
    consumer.assign(&places).expect("the partition");
    let records = consumer.stream().take(count).map(|record| {
        let record = record.expect("a record");
        let headers = record.headers().into_iter().flat_map(rdkafka::message::Headers::iter);
        headers.map(|one| (one.key.to_owned(), one.value.map(<[u8]>::to_vec))).collect()
    });
    timeout(PATIENCE, records.collect()).await.expect("all records in time")
}

#[track_caller]
fn has(written: &Written, name: &str, value: Option<&str>) {
    let found = written.iter().find(|(own, _)| own == name);
    let expected = value.map(|value| value.as_bytes().to_vec());
    assert_eq!(found.map(|(_, value)| value), Some(&expected), "{name}: {written:?}");
}

/// Stores a record as a client of somebody else's does.
async fn store(topic: &str, headers: &[(&str, Option<&str>)]) {
    let producer: FutureProducer = config().create().expect("a producer");
    let headers =
        headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: *value }));
    let record = FutureRecord::<str, str>::to(topic).payload("x").headers(headers);
    producer.send(record, PATIENCE).await.expect("it is stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_service_beside_faststream_reads_and_writes_its_names() {
    let (prices, answers) = (topic("prices").await, topic("answers").await);
    let answer = |delivery: Delivery| async move { delivery.correlation_id().unwrap_or_default().to_owned() };
    let subscription = Topic::new(prices.as_str()).group(unique("group")).reply_topics([answers.as_str()]);
    let kafka = connect(&url()).await.with_header_names(HeaderNames::faststream()).expect("names");
    let running = serve(kafka, App::new().subscribe(subscription, answer)).start().await.expect("it starts");
    let asks =
        [("correlation_id", Some("c1")), ("correlation-id", Some("other")), ("reply_to", Some(answers.as_str()))];
    store(&prices, &asks).await;
    let answered = headers(&answers, 1).await.remove(0);
    has(&answered, "correlation_id", Some("c1"));
    has(&answered, "content-type", Some("text/plain"));
    assert!(answered.iter().all(|(name, _)| name != "correlation-id"), "{answered:?}");
    running.shutdown().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_dead_letter_has_the_headers_of_its_message_null_ones_too() {
    let (orders, dead) = (topic("orders").await, topic("dead").await);
    let reject = |_: Delivery| async { Settlement::reject("kein Käse") };
    let route = Handler::<(Delivery,), ()>::dead_letter(reject, dead.clone());
    let app = App::new().subscribe(Topic::new(orders.as_str()).group(unique("group")), route);
    let running = serve(connect(&url()).await, app).start().await.expect("it starts");
    store(&orders, &[("X", Some("v ü")), ("null", None), ("empty", Some("")), ("both", Some("")), ("both", None)])
        .await;
    let letter = headers(&dead, 1).await.remove(0);
    has(&letter, "X", Some("v ü"));
    has(&letter, "null", None);
    has(&letter, "empty", Some(""));
    let both: Vec<_> = letter.iter().filter(|(name, _)| name == "both").map(|(_, value)| value.is_none()).collect();
    assert_eq!(both, [false, true], "PROP-K-02");
    has(&letter, "dead-letter-reason", Some("UTF-8''kein%20K%C3%A4se"));
    running.shutdown().await.expect("it stops");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn trace_and_baggage_stand_in_the_record_as_others_read_them() {
    let orders = topic("orders").await;
    let capture = Capture::new();
    let formats = Propagators::from_names("tracecontext,baggage,b3multi").expect("formats");
    let engine = Engine::builder().tracer_provider(capture.tracer_provider()).propagator(formats).build();
    let publisher = connect(&url()).await.publisher().telemetry(engine);
    let publishing = publisher.publish(orders.as_str(), "x");
    Baggage::new().with("sum", "1+1 = 2").scope(publishing).await.expect("it is stored");
    let written = headers(&orders, 1).await.remove(0);
    has(&written, "baggage", Some("sum=1%2B1%20=%202"));
    has(&written, "X-B3-TraceId", Some(&capture.spans()[0].span_context.trace_id().to_string()));
    has(&written, "X-B3-Sampled", Some("1"));
    has(&written, "content-type", Some("text/plain"));
}
