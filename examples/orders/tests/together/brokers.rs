//! The brokers of these tests, which all services find under the same names.

use orders::messages::{DEAD_ORDERS, ORDERS};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use throughline::kafka::Kafka;
use throughline::nats::Nats;
use throughline::rabbit::Rabbit;
use tokio::sync::{Mutex, MutexGuard};

use crate::api::PATIENCE;

/// Returns the address of a server; a missing one is a failure, never a skip.
pub(crate) fn url(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} names no server: run `cargo xtask test`, which starts one"))
}

pub(crate) async fn kafka() -> Kafka {
    Kafka::connect(url("THROUGHLINE_KAFKA_URL")).await.unwrap()
}

pub(crate) async fn rabbit() -> Rabbit {
    Rabbit::connect(url("THROUGHLINE_RABBIT_URL")).await.unwrap()
}

pub(crate) async fn nats() -> Nats {
    Nats::connect(url("THROUGHLINE_NATS_URL")).await.unwrap()
}

/// Waits until no other test has a shop open: two would take each other's orders. What another one left under way is gone.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static OPEN: Mutex<()> = Mutex::const_new(());
    let alone = OPEN.lock().await;
    empty([ORDERS, DEAD_ORDERS]).await;
    alone
}

/// Deletes all messages of topics that exist.
async fn empty(topics: [&str; 2]) {
    let mut config = ClientConfig::new();
    let admin: AdminClient<_> = config.set("bootstrap.servers", url("THROUGHLINE_KAFKA_URL")).create().unwrap();
    let all = admin.inner().fetch_metadata(None, PATIENCE).unwrap();
    let mut ends = TopicPartitionList::new();
    for topic in all.topics().iter().filter(|topic| topics.contains(&topic.name())) {
        for partition in topic.partitions() {
            ends.add_partition_offset(topic.name(), partition.id(), Offset::End).unwrap();
        }
    }
    if ends.count() > 0 {
        admin.delete_records(&ends, &AdminOptions::new()).await.unwrap();
    }
}
