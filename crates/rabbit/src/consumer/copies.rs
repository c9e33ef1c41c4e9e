use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use throughline_core::broker::{BrokerErrorKind, ConnectionState};
use throughline_core::{BrokerError, Delivery};
use tokio::time::Instant;

use crate::connection::Connection;
use crate::copy::to_copy;
use crate::death::DELAY_MARK;
use crate::delivery::NativeMessage;
use crate::destination::Address;
use crate::error::CONNECTION_LOST;
use crate::publish::Outgoing;
use crate::topology;

/// The delays for which there are queues, in seconds. A delay is rounded up to one of them, so that their number is bounded.
const LADDER: [u64; 17] =
    [1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 86_400];

/// How long a delay queue that nobody uses is kept beyond its delay.
const KEPT: Duration = Duration::from_secs(3_600);

/// After which time one is declared again. For the server only that is use, and not a message that is put in: one that comes later would go
/// with its queue before it is due.
const DECLARED_AGAIN: Duration = Duration::from_secs(1_800);

/// Puts copies of messages into queues where they wait for their next attempt: one for each delay, which the server makes to pass.
///
/// The time is the queue's and not the message's, since a queue looks at its first message only.
pub(super) struct Copies {
    connection: Arc<Connection>,
    queue: Arc<str>,
    is_quorum: bool,
    /// When the queue of each delay was declared last.
    declared: tokio::sync::Mutex<HashMap<u64, Instant>>,
}

impl Copies {
    pub(super) fn new(connection: &Arc<Connection>, queue: &Arc<str>, is_quorum: bool) -> Self {
        let declared = tokio::sync::Mutex::default();
        Self { connection: Arc::clone(connection), queue: Arc::clone(queue), is_quorum, declared }
    }

    /// Publishes a copy that comes back after the delay; the original may be acknowledged then. Fails at once in an outage: the message has
    /// another place to wait.
    pub(super) async fn send(
        &self,
        message: &Delivery,
        delay: Duration,
        cause: Option<&str>,
    ) -> Result<(), BrokerError> {
        if self.connection.publishing.state() != ConnectionState::Connected {
            return Err(BrokerError::new(
                BrokerErrorKind::Disconnected,
                CONNECTION_LOST,
                "RabbitMQ takes no messages now",
            ));
        }
        let seconds = rounded(delay);
        let name = format!("{}{DELAY_MARK}{}", self.queue, shown(seconds));
        self.declare(&name, seconds).await?;
        let Some(native) = message.native::<NativeMessage>() else {
            return Err(BrokerError::configuration("only a message of RabbitMQ can wait in a delay queue"));
        };
        let properties = to_copy(native.properties(), native.way(), message.attempt().saturating_add(1), cause);
        let to = Address { exchange: "", key: &name };
        let copy = Outgoing::new(to, properties, message.payload().clone())?;
        match self.connection.publishing.publish(copy).await {
            Ok(()) => Ok(()),
            Err(problem) => {
                // It may have been removed.
                self.declared.lock().await.remove(&seconds);
                let failed = problem.into_error(to);
                Err(BrokerError::new(BrokerErrorKind::Other, failed.error_type().to_owned(), failed.to_string()))
            }
        }
    }

    /// Makes sure of the queue for a delay.
    async fn declare(&self, name: &str, seconds: u64) -> Result<(), BrokerError> {
        let mut declared = self.declared.lock().await;
        if declared.get(&seconds).is_some_and(|at| at.elapsed() < DECLARED_AGAIN) {
            return Ok(());
        }
        topology::declare_delay(&self.connection, name, self.arguments(seconds)).await?;
        declared.insert(seconds, Instant::now());
        Ok(())
    }

    fn arguments(&self, seconds: u64) -> FieldTable {
        let millis = |time: Duration| AMQPValue::LongLongInt(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        let text = |text: &str| AMQPValue::LongString(text.into());
        let delay = Duration::from_secs(seconds);
        let mut arguments = FieldTable::default();
        if self.is_quorum {
            arguments.insert("x-queue-type".into(), text("quorum"));
            // A copy stays until its queue has it again, which needs both of these.
            arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
            arguments.insert("x-overflow".into(), text("reject-publish"));
        }
        arguments.insert("x-message-ttl".into(), millis(delay));
        arguments.insert("x-expires".into(), millis(delay + KEPT));
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(&self.queue));
        arguments
    }
}

/// Rounds a delay up to one of the ladder, a day at most.
fn rounded(delay: Duration) -> u64 {
    let seconds = delay.as_millis().div_ceil(1_000);
    LADDER.into_iter().find(|step| u128::from(*step) >= seconds).unwrap_or(86_400)
}

/// Returns a delay as the name of its queue shows it.
fn shown(seconds: u64) -> String {
    match seconds {
        hours if hours.is_multiple_of(3_600) => format!("{}h", hours / 3_600),
        minutes if minutes.is_multiple_of(60) => format!("{}m", minutes / 60),
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_few_delays_and_none_is_shorter_than_asked_for() {
        let rounded = |millis| shown(rounded(Duration::from_millis(millis)));
        assert_eq!([rounded(1), rounded(1_001), rounded(31_000), rounded(3_600_000)], ["1s", "2s", "1m", "1h"]);
        assert_eq!(shown(super::rounded(Duration::MAX)), "24h");
    }
}
