//! The server: the shared one of the suite.

use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use throughline_rabbit::{Rabbit, RabbitOptions};

/// The name under which the suite connects: `messaging.client.id` (ATTR-R-13).
pub(crate) const CLIENT: &str = "conformance";

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long a queue of a test that failed is kept.
pub(crate) const KEPT: Duration = Duration::from_secs(300);

/// Returns the address of the shared server; a missing one is a failure, never a skip.
pub(crate) fn url() -> String {
    match std::env::var("THROUGHLINE_RABBIT_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => panic!("THROUGHLINE_RABBIT_URL names no server: run `cargo xtask test --broker rabbit`, which starts one"),
    }
}

/// Returns host and port as they are configured (ATTR-C-17).
pub(crate) fn host_and_port(url: &str) -> (String, u16) {
    let address: lapin::uri::AMQPUri =
        url.parse().expect("THROUGHLINE_RABBIT_URL is an address such as amqp://127.0.0.1:5672");
    (address.authority.host, address.authority.port)
}

pub(crate) fn unique(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    format!("{name}-{:x}-{}", since.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn connect() -> Rabbit {
    let options = RabbitOptions::new().name(CLIENT);
    Rabbit::connect_with(url(), options).await.expect("a connection to THROUGHLINE_RABBIT_URL")
}

/// The plain client, with a channel.
pub(crate) struct Plain {
    // Closed when it is dropped.
    _connection: Connection,
    pub(crate) channel: Channel,
}

impl Plain {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a plain connection");
        let channel = connection.create_channel().await.expect("a channel");
        Self { _connection: connection, channel }
    }

    pub(crate) async fn declare(&self, queue: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        table.insert("x-expires".into(), AMQPValue::LongLongInt(300_000));
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, table).await.expect("a queue");
    }

    pub(crate) async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("the queue is deleted");
    }

    /// Returns how many messages wait in a queue and how many consumers it has.
    pub(crate) async fn count(&self, queue: &str) -> (u32, u32) {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared =
            self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("the queue");
        (declared.message_count(), declared.consumer_count())
    }
}
