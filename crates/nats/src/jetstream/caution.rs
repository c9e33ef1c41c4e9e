use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use tokio::time::Instant;
use tracing::warn;

/// How long the server waits for a settlement when its answer does not say.
const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);

/// What a redelivery may take beyond the wait.
const SLACK: Duration = Duration::from_secs(10);

/// Asks for messages one by one when the connection is lost time and again.
///
/// A message that the client cannot read ends the connection with every delivery, and takes those behind it along. Their
/// time runs out together with its own, so that it is before them again the next time, and they would never arrive. One
/// by one, it takes none along.
pub(super) struct Caution {
    stream: String,
    consumer: String,
    /// Within which the same message may come again.
    window: Duration,
    last_loss: Option<Instant>,
    until: Option<Instant>,
}

impl Caution {
    pub(super) fn new(info: &Info) -> Self {
        let waits = info.config.backoff.iter().copied().chain([info.config.ack_wait]);
        let longest = waits.max().filter(|wait| !wait.is_zero()).unwrap_or(DEFAULT_ACK_WAIT);
        Self {
            stream: info.stream_name.clone(),
            consumer: info.name.clone(),
            window: longest.saturating_mul(2).saturating_add(SLACK),
            last_loss: None,
            until: None,
        }
    }

    /// Notes that the connection was lost. The first loss may be anything.
    pub(super) fn lost(&mut self) {
        let now = Instant::now();
        let is_repeated = self.last_loss.is_some_and(|last| now.duration_since(last) < self.window);
        self.last_loss = Some(now);
        if !is_repeated {
            return;
        }
        if self.until.is_none() {
            warn!(
                stream = self.stream,
                consumer = self.consumer,
                "the connection is lost time and again: a message of this stream may have headers that the client cannot \
                 read. Asking for one message at a time; delete that message, or let `max_deliver` end it"
            );
        }
        self.until = now.checked_add(self.window);
    }

    /// Returns how many messages may be under way.
    pub(super) fn bounded(&mut self, prefetch: usize) -> usize {
        match self.until {
            Some(until) if Instant::now() < until => 1,
            Some(_) => {
                self.until = None;
                prefetch
            }
            None => prefetch,
        }
    }
}

#[cfg(test)]
mod tests {
    use async_nats::datetime;
    use async_nats::jetstream::consumer::{Config, SequenceInfo};
    use tokio::time::advance;

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn caution() -> Caution {
        let sequence = SequenceInfo { consumer_sequence: 0, stream_sequence: 0, last_active: None };
        Caution::new(&Info {
            stream_name: "ORDERS".to_owned(),
            name: "stock".to_owned(),
            created: datetime::now(),
            config: Config { ack_wait: WAIT, ..Config::default() },
            delivered: sequence,
            ack_floor: sequence,
            num_ack_pending: 0,
            num_redelivered: 0,
            num_waiting: 0,
            num_pending: 0,
            cluster: None,
            push_bound: false,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn one_loss_changes_nothing() {
        let mut caution = caution();
        caution.lost();
        assert_eq!(caution.bounded(200), 200);
        advance(WAIT * 3).await;
        caution.lost();
        assert_eq!(caution.bounded(200), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_at_every_redelivery_takes_no_other_message_along() {
        let mut caution = caution();
        for _ in 0..4 {
            caution.lost();
            advance(WAIT).await;
        }
        assert_eq!(caution.bounded(200), 1);
        advance(WAIT * 2).await;
        assert_eq!(caution.bounded(200), 200, "no loss for as long as a redelivery takes");
    }
}
