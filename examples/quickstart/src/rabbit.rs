//! RabbitMQ: a queue for each kind of message, declared by the service that reads it.

use std::error::Error;
use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use throughline::rabbit::{Queue, Rabbit};

use crate::services::Subscriptions;

const QUEUES: [&str; 4] = ["orders.placed", "orders.dead", "stock.reserved", "invoices.created"];

/// After which time without a reader the server removes a queue that a killed run has left.
const LEFT_FOR: Duration = Duration::from_secs(60);

/// Replies of the server.
const NOT_FOUND: u16 = 404;
const LOCKED: u16 = 405;

/// What one run has on the server: queues that nobody else had.
pub struct Run {
    connection: Connection,
}

impl Run {
    /// Makes sure that none of the queues is there: its messages would be somebody else's.
    ///
    /// # Errors
    ///
    /// Fails when the server does not answer, or a queue is there.
    pub async fn prepare(url: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let run = Self { connection: Connection::connect(url, ConnectionProperties::default()).await? };
        for name in QUEUES {
            if run.is_there(name).await? {
                let advice = format!(
                    "a queue `{name}` is there already. A run that was killed leaves its queues for {LEFT_FOR:?}; one of somebody else \
                     stays, so name another virtual host in THROUGHLINE_RABBIT_URL"
                );
                return Err(advice.into());
            }
        }
        Ok(run)
    }

    /// Removes the queues.
    ///
    /// # Errors
    ///
    /// Fails when the server does not answer, or refuses.
    pub async fn clean_up(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let channel = self.connection.create_channel().await?;
        for name in QUEUES {
            channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?;
        }
        self.connection.close(200, "done".into()).await?;
        Ok(())
    }

    /// Asks on a channel of its own, since the server closes it where the answer is no.
    async fn is_there(&self, name: &str) -> Result<bool, lapin::Error> {
        let channel = self.connection.create_channel().await?;
        let asking = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let Err(failed) = channel.queue_declare(name.into(), asking, FieldTable::default()).await else {
            return Ok(true);
        };
        match failed.kind() {
            ErrorKind::ProtocolError(reply) if reply.get_id() == NOT_FOUND => Ok(false),
            // Another connection has it for itself.
            ErrorKind::ProtocolError(reply) if reply.get_id() == LOCKED => Ok(true),
            _ => Err(failed),
        }
    }
}

/// Returns what the services subscribe to.
#[must_use]
pub fn subscriptions() -> Subscriptions {
    let queue = |name: &'static str| Queue::new(name).expires(LEFT_FOR);
    Subscriptions {
        placed: queue("orders.placed").into(),
        reserved: queue("stock.reserved").batch(2, Duration::from_secs(10)).into(),
        invoiced: queue("invoices.created").into(),
        dead: queue("orders.dead").into(),
    }
}

/// Connects one service. Plain destinations are names of queues: a publish returns when the server has confirmed that the queue has the
/// message.
///
/// # Errors
///
/// Fails when no server answers at the address.
pub async fn connect(url: &str) -> Result<Rabbit, Box<dyn Error + Send + Sync>> {
    Ok(Rabbit::connect(url).await?)
}
