use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use throughline_core::broker::{BoxFuture, Received, Settle};
use throughline_core::{BrokerError, Settlement};
use tracing::error;

use crate::NativeMessage;
use crate::connection::Connection;
use crate::error;
use crate::link::Link;

/// How long a message can be kept back. The server counts the nanoseconds since 1970 in 63 bits: with a delay that passes their end
/// it would deliver at once, and again and again.
const LONGEST_DELAY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Holds what all settlements of one consumer share.
#[derive(Clone, Debug)]
pub(crate) struct Acks {
    pub(crate) connection: Arc<Connection>,
    /// How often the server wants to hear of a message that is being worked on.
    pub(crate) heartbeat: Duration,
    /// Whether an acknowledgement waits for the server's answer.
    pub(crate) confirmed: bool,
}

impl Acks {
    /// Asks for the message again at once.
    pub(crate) async fn give_back(&self, ack: &async_nats::Subject) -> Result<(), BrokerError> {
        self.tell(&self.connection.link(), ack, Bytes::from_static(b"-NAK")).await
    }

    /// Tells the server that the message is still wanted.
    pub(crate) async fn keep(&self, ack: &async_nats::Subject) -> Result<(), BrokerError> {
        self.tell(&self.connection.link(), ack, Bytes::from_static(b"+WPI")).await
    }

    /// Settles a message, on the next connection where that of the message is lost: it is settled at the same place.
    async fn told(&self, ack: &async_nats::Subject, what: Bytes) -> Result<(), BrokerError> {
        let link = self.connection.link();
        let told = self.tell(&link, ack, what.clone()).await;
        if told.is_ok() || !link.is_gone() {
            return told;
        }
        // Boxed, as it is rare: each settlement moves this future.
        match Box::pin(self.connection.renewed(&link)).await {
            Some(link) => Box::pin(self.tell(&link, ack, what)).await,
            None => told,
        }
    }

    async fn acknowledge(&self, ack: &async_nats::Subject) -> Result<(), BrokerError> {
        let what = Bytes::from_static(b"+ACK");
        if !self.confirmed {
            return self.told(ack, what).await;
        }
        let link = self.connection.link();
        Box::pin(link.client.request(ack.clone(), what)).await.map_err(error::settle_unconfirmed)?;
        Ok(())
    }

    async fn tell(&self, link: &Link, ack: &async_nats::Subject, what: Bytes) -> Result<(), BrokerError> {
        link.client.publish(ack.clone(), what).await.map_err(error::settle)
    }
}

/// Settles the messages of one subscription; what is to be told goes to the address that came with the message.
#[async_trait]
impl Settle for Acks {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let Some(ack) = ack_of(message) else { return Ok(()) };
            match settlement {
                Settlement::Ack => self.acknowledge(ack).await,
                Settlement::Reject { .. } => self.told(ack, Bytes::from_static(b"+TERM")).await,
                Settlement::Retry { after } => self.told(ack, nak(*after)).await,
                _ => self.told(ack, nak(None)).await,
            }
        })
    }

    /// The server delivers it again after its wait, unless this was the last delivery.
    fn abandon(&self, message: &Received) {
        let delivery = &message.delivery;
        if delivery.is_last_attempt() {
            error!(
                destination = delivery.destination(),
                position = delivery.position(),
                attempt = delivery.attempt(),
                "a message was dropped without a settlement at its last delivery: the server delivers it no more \
                 (`max_deliver`), it still lies in the stream"
            );
        }
    }

    fn heartbeat(&self) -> Option<Duration> {
        Some(self.heartbeat)
    }

    async fn extend(&self, message: &Received) -> Result<(), BrokerError> {
        match ack_of(message) {
            Some(ack) => self.keep(ack).await,
            None => Ok(()),
        }
    }
}

fn ack_of(message: &Received) -> Option<&async_nats::Subject> {
    message.delivery.native::<NativeMessage>()?.message()?.reply.as_ref()
}

fn nak(after: Option<Duration>) -> Bytes {
    match after {
        Some(delay) if !delay.is_zero() => format!("-NAK {{\"delay\":{}}}", within_reach(delay).as_nanos()).into(),
        _ => Bytes::from_static(b"-NAK"),
    }
}

/// Returns a delay that the server can count.
pub(crate) const fn within_reach(delay: Duration) -> Duration {
    if delay.as_nanos() > LONGEST_DELAY.as_nanos() { LONGEST_DELAY } else { delay }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_retry_without_a_delay_is_at_once() {
        assert_eq!(nak(None), "-NAK");
        assert_eq!(nak(Some(Duration::ZERO)), "-NAK");
        assert_eq!(nak(Some(Duration::from_millis(2))), "-NAK {\"delay\":2000000}");
    }

    #[test]
    fn a_retry_in_the_farthest_future_is_one_that_the_server_can_count() {
        let told = nak(Some(Duration::MAX));
        let digits: String = String::from_utf8_lossy(&told).chars().filter(char::is_ascii_digit).collect();
        let until = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        assert!(until + digits.parse::<u128>().unwrap() < u128::try_from(i64::MAX).unwrap(), "{digits}");
    }
}
