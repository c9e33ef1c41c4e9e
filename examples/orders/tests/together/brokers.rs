//! The brokers of these tests, which all services find under the same names.

use throughline::kafka::Kafka;
use throughline::nats::Nats;
use throughline::rabbit::Rabbit;
use tokio::sync::{Mutex, MutexGuard};

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

/// Waits until no other test has a shop open: two would take each other's orders.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static OPEN: Mutex<()> = Mutex::const_new(());
    OPEN.lock().await
}
