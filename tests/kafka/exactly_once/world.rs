//! What the tests share: topics of their own, and what a reader of committed messages sees.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use throughline_core::serve::Running;
use throughline_core::{App, serve};
use throughline_kafka::{Kafka, Topic};
use throughline_testing::Capture;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::server::{self, PATIENCE};
use crate::topics::{create, unique};

/// The topics of one test, and the name of its group.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) orders: String,
    pub(crate) results: String,
    pub(crate) dead: String,
    pub(crate) partitions: i32,
}

impl World {
    pub(crate) async fn new(name: &str, partitions: i32) -> Self {
        Self::on(server::url(), name, partitions).await
    }

    /// The same on a server of the test's own.
    pub(crate) async fn on(url: String, name: &str, partitions: i32) -> Self {
        let id = unique(name);
        let named = |suffix: &str| format!("{id}-{suffix}");
        let world = Self { url, orders: named("orders"), results: named("results"), dead: named("dead"), partitions };
        for topic in [&world.orders, &world.results, &world.dead] {
            create(&world.url, topic, partitions).await;
        }
        world
    }

    /// The subscription of the service; the group and the transactional id have the name of the topic.
    pub(crate) fn topic(&self) -> Topic {
        Topic::new(self.orders.as_str())
            .group(self.orders.as_str())
            .exactly_once(self.orders.as_str())
            .property("session.timeout.ms", "6000")
    }

    pub(crate) async fn publish(&self, partition: i32, bodies: impl IntoIterator<Item = String>) {
        let mut config = ClientConfig::new();
        let producer: FutureProducer =
            config.set("bootstrap.servers", &self.url).set("linger.ms", "5").create().expect("a producer");
        let bodies: Vec<String> = bodies.into_iter().collect();
        let sent: Vec<_> = bodies
            .iter()
            .map(|body| {
                let record = FutureRecord::<(), _>::to(&self.orders).payload(body).partition(partition);
                producer.send_result(record).unwrap_or_else(|(error, _)| panic!("not sent: {error}"))
            })
            .collect();
        for stored in sent {
            stored.await.expect("a report").unwrap_or_else(|(error, _)| panic!("not stored: {error}"));
        }
    }

    pub(crate) async fn serve(&self, app: App, capture: &Capture) -> Running {
        let kafka = Kafka::connect(self.url.as_str()).await.expect("a connection");
        serve(kafka, app.telemetry(capture.instrumentation().build())).start().await.expect("the app starts")
    }

    /// All bodies that a reader of committed messages finds in a topic, in the order of each partition.
    pub(crate) async fn committed(&self, topic: &str) -> Vec<String> {
        self.reader(topic, "read_committed", 0).await
    }

    /// The same with those of transactions that were aborted.
    pub(crate) async fn written(&self, topic: &str) -> Vec<String> {
        self.reader(topic, "read_uncommitted", 0).await
    }

    /// Waits until so many are committed.
    pub(crate) async fn wait_for(&self, topic: &str, count: usize) -> Vec<String> {
        self.reader(topic, "read_committed", count).await
    }

    async fn reader(&self, topic: &str, isolation: &'static str, count: usize) -> Vec<String> {
        let (url, topic, partitions) = (self.url.clone(), topic.to_owned(), self.partitions);
        let reading = spawn_blocking(move || read(&url, &topic, partitions, isolation, count, PATIENCE * 6));
        reading.await.expect("the reader does not panic")
    }

    /// Where the group goes on, in each partition; `None` where it has no place.
    pub(crate) async fn offsets(&self) -> Vec<Option<i64>> {
        let (url, topic, partitions) = (self.url.clone(), self.orders.clone(), self.partitions);
        let asking = spawn_blocking(move || {
            let mut config = ClientConfig::new();
            let consumer: BaseConsumer =
                config.set("bootstrap.servers", url).set("group.id", &topic).create().expect("a consumer");
            let mut list = TopicPartitionList::new();
            list.add_partition_range(&topic, 0, partitions - 1);
            let found = consumer.committed_offsets(list, PATIENCE).expect("the offsets");
            let offset_of = |number| found.find_partition(&topic, number).map(|found| found.offset());
            (0..partitions)
                .map(|number| match offset_of(number) {
                    Some(Offset::Offset(offset)) => Some(offset),
                    _ => None,
                })
                .collect()
        });
        asking.await.expect("the question does not panic")
    }
}

/// Reads a topic from its beginning to its end, and on until so many bodies were there.
fn read(url: &str, topic: &str, partitions: i32, isolation: &str, count: usize, limit: Duration) -> Vec<String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", url)
        .set("group.id", "none")
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for number in 0..partitions {
        list.add_partition_offset(topic, number, Offset::Beginning).expect("a position");
    }
    consumer.assign(&list).expect("the partitions");
    let deadline = Instant::now() + limit;
    let mut bodies: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let mut at_end = vec![false; partitions as usize];
    loop {
        let found: usize = bodies.values().map(Vec::len).sum();
        if found >= count && at_end.iter().all(|end| *end) {
            return bodies.into_values().flatten().collect();
        }
        assert!(Instant::now() < deadline, "{found} of {count} in {topic} after {limit:?}: {bodies:?}");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                at_end[message.partition() as usize] = false;
                let body = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                bodies.entry(message.partition()).or_default().push(body);
            }
            Some(Err(KafkaError::PartitionEOF(number))) => at_end[number as usize] = true,
            Some(Err(error)) => panic!("{topic} cannot be read: {error}"),
        }
    }
}

pub(crate) fn sorted(mut bodies: Vec<String>) -> Vec<String> {
    bodies.sort();
    bodies
}

/// Texts that sort as their numbers do.
pub(crate) fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("{number:05}")).collect()
}
