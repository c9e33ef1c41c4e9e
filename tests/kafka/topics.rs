//! Topics: made by the test that needs them, since no server here makes one by itself.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::server::PATIENCE;

/// How long one question to the server may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Returns a name for a topic or a group that no other test has, on a server that several runs share.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let started = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_micros();
    format!("{name}-{started}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a topic; returns when each partition has a leader, so that it can be written and read.
pub(crate) async fn create(bootstrap: &str, name: &str, partitions: i32) {
    let admin = admin(bootstrap);
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    done(admin.create_topics([&topic], &options()).await, format_args!("topic {name} is created"));
    let usable = move |topic: Option<&MetadataTopic>| {
        let all = topic.map(MetadataTopic::partitions).unwrap_or_default();
        all.len() == partitions as usize && all.iter().all(|one| one.error().is_none() && one.leader() >= 0)
    };
    until(&admin, name, usable, "usable").await;
}

/// Creates topics of one partition by one call; returns when all can be written and read.
pub(crate) async fn create_all(bootstrap: &str, names: &[String]) {
    let admin = admin(bootstrap);
    let topics: Vec<_> = names.iter().map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1))).collect();
    done(admin.create_topics(&topics, &options()).await, format_args!("the topics {names:?} are created"));
    for name in names {
        until(&admin, name, is_usable, "usable").await;
    }
}

/// Whether the only partition has a leader.
fn is_usable(topic: Option<&MetadataTopic>) -> bool {
    let partitions = topic.map(MetadataTopic::partitions).unwrap_or_default();
    partitions.len() == 1 && partitions.iter().all(|one| one.error().is_none() && one.leader() >= 0)
}

/// Creates a topic of one partition that takes messages up to so many bytes.
pub(crate) async fn create_small(bootstrap: &str, name: &str, bytes: u32) {
    create_with(bootstrap, name, "max.message.bytes", &bytes.to_string()).await;
}

/// Creates a topic of one partition with a setting.
pub(crate) async fn create_with(bootstrap: &str, name: &str, setting: &str, value: &str) {
    let admin = admin(bootstrap);
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1)).set(setting, value);
    done(admin.create_topics([&topic], &options()).await, format_args!("topic {name} is created"));
    until(&admin, name, is_usable, "usable").await;
}

/// Adds partitions to a topic, so that it has so many; returns when all can be written and read.
pub(crate) async fn grow(bootstrap: &str, name: &str, partitions: usize) {
    let admin = admin(bootstrap);
    let more = NewPartitions::new(name, partitions);
    done(admin.create_partitions([&more], &options()).await, format_args!("topic {name} has more partitions"));
    let usable = move |topic: Option<&MetadataTopic>| {
        let all = topic.map(MetadataTopic::partitions).unwrap_or_default();
        all.len() == partitions && all.iter().all(|one| one.error().is_none() && one.leader() >= 0)
    };
    until(&admin, name, usable, "usable").await;
}

/// Deletes what is before an offset in the first partition of a topic, as the end of its retention does.
pub(crate) async fn truncate(bootstrap: &str, name: &str, offset: i64) {
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(name, 0, Offset::Offset(offset)).expect("a position");
    let deleted = admin(bootstrap).delete_records(&before, &options()).await.expect("an answer");
    for element in deleted.elements() {
        element.error().expect("the records are deleted");
    }
}

/// Deletes topics, and does not wait until they are gone.
pub(crate) async fn delete_all(bootstrap: &str, names: &[String]) {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    done(admin(bootstrap).delete_topics(&names, &options()).await, format_args!("the topics {names:?} are deleted"));
}

/// Deletes a topic; returns when the server does not know it any more.
pub(crate) async fn delete(bootstrap: &str, name: &str) {
    let admin = admin(bootstrap);
    done(admin.delete_topics(&[name], &options()).await, format_args!("topic {name} is deleted"));
    until(&admin, name, |topic| topic.is_none(), "gone").await;
}

/// Returns how many partitions a topic has; `None` where there is none. To ask creates none.
pub(crate) async fn partitions(bootstrap: &str, name: &str) -> Option<usize> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("allow.auto.create.topics", "false");
    let client: BaseConsumer = config.create().expect("a client");
    let asked = name.to_owned();
    let metadata = spawn_blocking(move || client.fetch_metadata(Some(&asked), ANSWER_WITHIN)).await;
    let metadata = metadata.expect("the question does not panic").expect("an answer");
    let found = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
    found.map(|topic| topic.partitions().len())
}

/// Returns the ids of the brokers that the server lists, or why it does not answer.
pub(crate) async fn brokers(bootstrap: &str) -> Result<Vec<i32>, KafkaError> {
    let admin = admin(bootstrap);
    let asked = spawn_blocking(move || admin.inner().fetch_metadata(None, ANSWER_WITHIN)).await;
    let metadata = asked.expect("the question does not panic")?;
    Ok(metadata.brokers().iter().map(|broker| broker.id()).collect())
}

fn admin(bootstrap: &str) -> Arc<AdminClient<DefaultClientContext>> {
    let mut config = ClientConfig::new();
    // A server that starts is asked again soon; the client would wait longer after each failure.
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "100");
    Arc::new(config.create().expect("an admin client"))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

fn done(result: Result<Vec<TopicResult>, KafkaError>, what: impl Display) {
    let topics = result.unwrap_or_else(|error| panic!("{what}: {error}"));
    for topic in topics {
        topic.unwrap_or_else(|(_, code)| panic!("{what}: {code}"));
    }
}

/// Asks for the topic until `is_so`. One that the server does not know is none.
async fn until(
    admin: &Arc<AdminClient<DefaultClientContext>>,
    name: &str,
    is_so: impl Fn(Option<&MetadataTopic>) -> bool,
    what: &str,
) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (client, topic) = (admin.clone(), name.to_owned());
        let asked = spawn_blocking(move || client.inner().fetch_metadata(Some(&topic), ANSWER_WITHIN)).await;
        let metadata = asked.expect("the question does not panic");
        let known = metadata.as_ref().ok().map(|metadata| {
            let unknown = RDKafkaErrorCode::UnknownTopicOrPartition;
            metadata.topics().iter().find(|topic| topic.error().map(RDKafkaErrorCode::from) != Some(unknown))
        });
        if known.is_some_and(&is_so) {
            return;
        }
        assert!(Instant::now() < deadline, "topic {name} is not {what} after {PATIENCE:?}: {:?}", metadata.err());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_topic_exists_from_its_creation_to_its_deletion() {
    let (bootstrap, topic) = (crate::server::url(), unique("topics"));
    for _ in 0..2 {
        create(&bootstrap, &topic, 3).await;
        delete(&bootstrap, &topic).await;
    }
}
