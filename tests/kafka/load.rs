//! Load on a topic, and an account of every message of it: by number, in the order in which they were handled.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use throughline_core::serve::Running;
use throughline_core::{App, Delivery, serve};
use throughline_kafka::{Kafka, NativeRecord};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

/// How long everything may take, with a server that goes away. A group whose members have to join anew after that waits for the sessions of
/// the old ones, 45 s by default, and may have to do so twice.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// How many of those that came again are printed.
const MOST_SHOWN: usize = 20;

/// A message that was handled: who did it, where it lay and which one it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) member: u32,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) number: u64,
}

impl Entry {
    pub(crate) fn new(member: u32, delivery: &Delivery) -> Self {
        let record = delivery.native::<NativeRecord>().expect("a message of Kafka");
        let text = std::str::from_utf8(delivery.payload()).expect("a number");
        let number = text.trim_start_matches('"').trim_end_matches('"').parse().expect("a number");
        Self { member, partition: record.partition(), offset: record.offset(), number }
    }
}

/// All that was handled, in its order.
#[derive(Clone)]
pub(crate) struct Account {
    entries: Arc<Mutex<Vec<Entry>>>,
    counts: Arc<Mutex<HashMap<u64, u32>>>,
    distinct: Arc<watch::Sender<usize>>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Sum {
    pub(crate) handled: usize,
    pub(crate) lost: usize,
    pub(crate) twice: usize,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self { entries: Arc::default(), counts: Arc::default(), distinct: Arc::new(watch::Sender::new(0)) }
    }

    pub(crate) fn add(&self, entry: Entry) {
        self.entries.lock().expect("no handler panicked").push(entry);
        let mut counts = self.counts.lock().expect("no handler panicked");
        *counts.entry(entry.number).or_default() += 1;
        self.distinct.send_replace(counts.len());
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().expect("no handler panicked").clone()
    }

    /// How many different messages were handled.
    pub(crate) fn distinct(&self) -> usize {
        *self.distinct.borrow()
    }

    /// Waits until so many different messages are handled.
    pub(crate) async fn reach(&self, count: usize) {
        let mut distinct = self.distinct.subscribe();
        let reached = timeout(PATIENCE, distinct.wait_for(|distinct| *distinct >= count)).await.is_ok();
        assert!(reached, "{} of {count} messages were handled within {PATIENCE:?}", self.distinct());
    }

    /// How many a member has handled.
    pub(crate) fn of_member(&self, member: u32) -> usize {
        self.entries().iter().filter(|entry| entry.member == member).count()
    }

    /// Counts, and prints it for the record.
    pub(crate) fn sum(&self, what: &str, published: usize) -> Sum {
        let counts = self.counts.lock().expect("no handler panicked");
        let handled = self.entries.lock().expect("no handler panicked").len();
        let lost = (0..published as u64).filter(|number| !counts.contains_key(number)).count();
        let sum = Sum { handled, lost, twice: handled - counts.len() };
        eprintln!("FAULT {what}: published {published}, handled {handled}, lost {}, again {}", sum.lost, sum.twice);
        for entry in self.entries().iter().filter(|entry| counts[&entry.number] > 1).take(MOST_SHOWN) {
            eprintln!("  again: {entry:?}");
        }
        sum
    }

    /// In each partition a message is begun only when all before it were handled, whoever did it: an order that steps back is one of
    /// messages that come again, and one that skips forward is a lost message.
    #[track_caller]
    pub(crate) fn assert_ordered(&self) {
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        for entry in self.entries() {
            let next = next.entry(entry.partition).or_default();
            assert!(entry.offset <= *next, "{entry:?} came when {next} was the next of its partition");
            *next = (*next).max(entry.offset + 1);
        }
    }

    /// The same by key, for one member alone or one that hands over to the other.
    #[track_caller]
    pub(crate) fn assert_ordered_by_key(&self, keys: u64) {
        let mut next: HashMap<u64, u64> = HashMap::new();
        for entry in self.entries() {
            let next = next.entry(entry.number % keys).or_insert(entry.number % keys);
            assert!(entry.number <= *next, "{entry:?} came when {next} was the next of its key");
            *next = (*next).max(entry.number + keys);
        }
    }
}

/// Publishes numbers, each in the partition of its remainder and with the remainder by `keys` as its key.
pub(crate) async fn publish(bootstrap: &str, topic: &str, numbers: std::ops::Range<u64>, partitions: i32, keys: u64) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("linger.ms", "5").set("enable.idempotence", "true");
    let topic = topic.to_owned();
    let publishing = spawn_blocking(move || {
        let producer: BaseProducer = config.create().expect("a producer");
        for number in numbers {
            let (key, body) = ((number % keys).to_string(), number.to_string());
            let partition = i32::try_from(number % u64::from(partitions.unsigned_abs())).expect("a partition");
            let mut record = BaseRecord::to(&topic).key(&key).payload(&body).partition(partition);
            while let Err((_, again)) = producer.send(record) {
                producer.poll(Duration::from_millis(10));
                record = again;
            }
            if number % 100 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(Timeout::After(PATIENCE)).expect("everything is confirmed");
    });
    publishing.await.expect("everything is published");
}

/// Publishes bodies one after the other, in all partitions.
pub(crate) async fn publish_bodies(bootstrap: &str, topic: &str, bodies: &[String]) {
    let kafka = connect(bootstrap).await;
    let publisher = kafka.publisher().without_telemetry();
    publisher.publish_batch(topic.to_owned(), bodies.iter().cloned()).await.expect("everything is published");
}

/// Reads the first records of a topic with one partition.
pub(crate) async fn read(bootstrap: &str, topic: &str, count: usize) -> Vec<String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "none").set("enable.auto.commit", "false");
    let consumer: StreamConsumer = config.create().expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).expect("a position");
    consumer.assign(&partitions).expect("the partition");
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let received = timeout(PATIENCE, consumer.recv()).await.expect("a record in time").expect("a record");
        bodies.push(String::from_utf8_lossy(received.payload().unwrap_or_default()).into_owned());
    }
    bodies
}

/// Returns the offsets of a group, -1 where it has none.
pub(crate) async fn committed(bootstrap: &str, group: &str, topic: &str, partitions: i32) -> Vec<i64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", group);
    let topic = topic.to_owned();
    let asked = spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&topic, 0, partitions - 1);
        let found = consumer.committed_offsets(list, Duration::from_secs(20)).expect("the offsets of the group");
        let offset = |number| match found.find_partition(&topic, number).map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => offset,
            _ => -1,
        };
        (0..partitions).map(offset).collect()
    });
    asked.await.expect("the question does not panic")
}

pub(crate) async fn connect(bootstrap: &str) -> Kafka {
    Kafka::connect(bootstrap).await.expect("a connection to Kafka")
}

/// Starts an app on a connection of its own.
pub(crate) async fn start(bootstrap: &str, app: App) -> Running {
    serve(connect(bootstrap).await, app.without_telemetry()).start().await.expect("the app starts")
}

/// Waits for a condition that changes by itself.
pub(crate) async fn wait_until(what: impl Display, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
        sleep(Duration::from_millis(5)).await;
    }
}
