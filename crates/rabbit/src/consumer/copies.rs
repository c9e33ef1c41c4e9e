use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use throughline_core::broker::BrokerErrorKind;
use throughline_core::{BrokerError, Delivery};
use tokio::time::{Instant, timeout};

use crate::connection::Connection;
use crate::copy::to_copy;
use crate::death::DELAY_MARK;
use crate::delivery::NativeMessage;
use crate::error;
use crate::names::short;
use crate::publish::Outgoing;

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
    /// When the queue of each delay was declared last, and the link on which it was.
    declared: tokio::sync::Mutex<(u64, HashMap<u64, Instant>)>,
}

impl Copies {
    pub(super) fn new(connection: &Arc<Connection>, queue: &Arc<str>, is_quorum: bool) -> Self {
        let declared = tokio::sync::Mutex::default();
        Self { connection: Arc::clone(connection), queue: Arc::clone(queue), is_quorum, declared }
    }

    /// Publishes a copy that comes back after the delay; the original may be acknowledged then.
    pub(super) async fn send(
        &self,
        message: &Delivery,
        delay: Duration,
        cause: Option<&str>,
    ) -> Result<(), BrokerError> {
        let seconds = rounded(delay);
        let waiting = self.declare(seconds).await?;
        let copy = self.copy(message, waiting.as_str(), cause)?;
        let published = self.connection.publishing.publish(copy).await;
        if published.is_err() {
            // It may have been removed.
            self.declared.lock().await.1.remove(&seconds);
        }
        published.map_err(|failed| {
            BrokerError::new(BrokerErrorKind::Other, failed.error_type().to_owned(), failed.to_string())
        })
    }

    /// Makes sure of the queue for a delay.
    async fn declare(&self, seconds: u64) -> Result<ShortString, BrokerError> {
        let name = short("queue", &format!("{}{DELAY_MARK}{}", self.queue, shown(seconds)))?;
        let mut declared = self.declared.lock().await;
        let link = self.connection.consuming.connected().await?;
        if declared.0 != link.number {
            *declared = (link.number, HashMap::new());
        }
        if declared.1.get(&seconds).is_some_and(|at| at.elapsed() < DECLARED_AGAIN) {
            return Ok(name);
        }
        let doing = format!("declare delay queue `{name}`");
        let declaring = async {
            let channel = link.client.create_channel().await?;
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name.clone(), options, self.arguments(seconds)).await?;
            channel.close(200, "declared".into()).await
        };
        match timeout(self.connection.limits.answer, declaring).await {
            Ok(Ok(())) => {
                declared.1.insert(seconds, Instant::now());
                Ok(name)
            }
            Ok(Err(failed)) => Err(error::broker(&failed, &doing)),
            Err(_) => Err(error::timed_out(&doing, self.connection.limits.answer)),
        }
    }

    fn arguments(&self, seconds: u64) -> FieldTable {
        let millis = |time: Duration| AMQPValue::LongLongInt(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        let delay = Duration::from_secs(seconds);
        let mut arguments = FieldTable::default();
        if self.is_quorum {
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        }
        arguments.insert("x-message-ttl".into(), millis(delay));
        arguments.insert("x-expires".into(), millis(delay + KEPT));
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
        arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString((*self.queue).into()));
        arguments
    }

    /// Copies a message as it came: with the attempt in one header of ours, and without what the server wrote.
    // R11, R13.
    fn copy(&self, message: &Delivery, waiting: &str, cause: Option<&str>) -> Result<Outgoing, BrokerError> {
        let Some(native) = message.native::<NativeMessage>() else {
            return Err(BrokerError::configuration(
                "a message that did not come from RabbitMQ cannot wait in a delay queue",
            ));
        };
        let properties = to_copy(native, message.attempt().saturating_add(1), cause);
        let (exchange, key, body) = (String::new(), waiting.to_owned(), message.payload().clone());
        Ok(Outgoing { exchange, key, mandatory: true, properties, body })
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
