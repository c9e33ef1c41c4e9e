//! Topics of this run: made, filled and deleted.

use std::error::Error;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::clients;
use crate::hand::traceparent;
use crate::load;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

const PATIENCE: Duration = Duration::from_secs(60);
/// How long to leave a producer alone whose queue is full, or that does not know a new topic yet.
const AGAIN: Duration = Duration::from_millis(20);

/// What an earlier run left is counted wrongly: each run has names of its own.
static RUN: LazyLock<u128> = LazyLock::new(|| SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis());

static CREATED: Mutex<Vec<&str>> = Mutex::new(Vec::new());

/// Returns the name of this run's topic, or of its group.
pub(super) fn name(what: &str) -> &'static str {
    format!("bench.{what}.{}", *RUN).leak()
}

pub(super) async fn create(url: &str, topic: &'static str, partitions: i32) -> Result<(), Box<dyn Error>> {
    let admin: AdminClient<DefaultClientContext> = clients::config(url).create()?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for result in admin.create_topics([&new], &options()).await? {
        result.map_err(|(topic, code)| format!("topic {topic} was not created: {code}"))?;
    }
    CREATED.lock().unwrap_or_else(PoisonError::into_inner).push(topic);
    Ok(())
}

/// Deletes what this run created.
pub(super) async fn delete_all(url: &str) -> Result<(), Box<dyn Error>> {
    let topics = std::mem::take(&mut *CREATED.lock().unwrap_or_else(PoisonError::into_inner));
    let admin: AdminClient<DefaultClientContext> = clients::config(url).create()?;
    admin.delete_topics(&topics, &options()).await?;
    Ok(())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// Publishes messages with a `traceparent`, each partition getting as many as the others, and waits until they are stored.
pub(super) async fn fill(url: &str, topic: &str, partitions: i32, messages: usize) -> Result<(), Box<dyn Error>> {
    let producer: FutureProducer = clients::config(url).set("enable.idempotence", "true").create()?;
    let body = load::body();
    for partition in (0..partitions).cycle().take(messages) {
        let headers = OwnedHeaders::new().insert(Header { key: traceparent::NAME, value: Some(TRACEPARENT) });
        let mut record =
            FutureRecord::<(), [u8]>::to(topic).partition(partition).payload(body.as_ref()).headers(headers);
        while let Err((failed, same)) = producer.send_result(record) {
            if failed.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(failed.into());
            }
            record = same;
            sleep(AGAIN).await;
        }
    }
    spawn_blocking(move || producer.flush(PATIENCE)).await??;
    Ok(())
}

/// Sends one message, so that the client is connected and knows the topic: a new one may not be known at once.
pub(super) async fn reach(producer: &FutureProducer, topic: &str) -> Result<(), KafkaError> {
    producer
        .send(FutureRecord::<(), [u8]>::to(topic).payload(load::body().as_ref()), PATIENCE)
        .await
        .map(drop)
        .map_err(|(failed, _)| failed)
}
