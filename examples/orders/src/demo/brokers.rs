//! The brokers of the demo.

use tokio::task::{JoinError, spawn_blocking};
use xtask::servers::{Server, ServerError, ServerErrorKind, kafka, nats, rabbit};

/// Kafka, NATS and RabbitMQ, ready. Dropped, those that were started for it are stopped, and their data removed.
#[derive(Debug)]
pub struct Brokers {
    servers: [(&'static str, Server); 3],
}

impl Brokers {
    /// Finds the brokers or starts them, as `cargo xtask` does, and says on the standard output which they are.
    ///
    /// # Errors
    ///
    /// Fails when one cannot be had, or at Ctrl-C.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped before it is done, the rest goes on in the background until the end of the program.
    pub async fn find_or_start() -> Result<Self, BrokersError> {
        let started = spawn_blocking(|| {
            Ok::<_, ServerError>([
                ("KAFKA_BROKERS", say(kafka::find_or_start()?)),
                ("RABBIT_URL", say(rabbit::find_or_start()?)),
                ("NATS_URL", say(nats::find_or_start()?)),
            ])
        });
        Ok(Self { servers: started.await?? })
    }

    /// Returns the environment variables that say the services where the brokers are.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.servers.iter().map(|(variable, server)| (*variable, server.url().to_owned()))
    }
}

fn say(server: Server) -> Server {
    println!("using {server}");
    server
}

/// Brokers that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BrokersError {
    /// One of them, for this reason.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// What starts them panicked.
    #[error(transparent)]
    Panicked(#[from] JoinError),
}

impl BrokersError {
    /// Whether it is Ctrl-C.
    #[must_use]
    pub fn is_interrupt(&self) -> bool {
        matches!(self, Self::Server(error) if error.kind() == ServerErrorKind::Interrupted)
    }
}
