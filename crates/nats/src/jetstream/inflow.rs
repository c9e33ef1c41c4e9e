use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{BatchConfig, Config};
use async_nats::jetstream::consumer::{Consumer, FromConsumer, Info};
use async_nats::{Message, StatusCode, Subject};
use futures_util::{FutureExt, StreamExt};
use throughline_core::broker::BrokerError;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use super::supervision::Supervision;
use crate::broker::Connection;
use crate::carrier::server_header;
use crate::delivery::is_from_stream;
use crate::error;

/// How long a request for messages stays open at the server.
const EXPIRES: Duration = Duration::from_secs(30);

/// How often the server says that such a request is still open.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(5);

/// How often it is looked at whether all is well while no message comes.
const LOOK: Duration = Duration::from_millis(500);

/// How long a closing subscription waits for what is under way.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// The messages of a consumer on their way from the server to `receive`.
///
/// The client's own stream of messages is not used: it drops what it buffered when it is recreated or closed, so that a
/// restart would have to wait until the server delivers again.
pub(super) struct Inflow {
    connection: Arc<Connection>,
    /// Where the server delivers.
    subject: Subject,
    subscriber: async_nats::Subscriber,
    /// The side of a pull consumer; a push consumer has none.
    pull: Option<Pull>,
    ready: VecDeque<Message>,
    supervision: Supervision,
    look: Interval,
    fatal: Option<BrokerError>,
}

/// What a pull consumer was asked for.
struct Pull {
    consumer: Consumer<Config>,
    inbox: Subject,
    prefetch: usize,
    /// How many messages were asked for and did not come yet.
    outstanding: usize,
}

impl Inflow {
    pub(super) async fn open(connection: &Arc<Connection>, info: Info, prefetch: usize) -> Result<Self, BrokerError> {
        let client = &connection.client;
        let refused = |failed| error::subscribe(failed, &info.name);
        let (subject, subscriber, pull) = match info.config.deliver_subject.clone() {
            Some(subject) => {
                let subject = Subject::from(subject);
                connection.denied.forget(&subject);
                let subscriber = match info.config.deliver_group.clone() {
                    Some(group) => client.queue_subscribe(subject.clone(), group).await,
                    None => client.subscribe(subject.clone()).await,
                };
                (subject, subscriber.map_err(refused)?, None)
            }
            None => {
                let inbox = Subject::from(client.new_inbox());
                let config = Config::try_from_consumer_config(info.config.clone()).map_err(|failed| {
                    BrokerError::configuration("the consumer is not one to pull from").with_source(failed)
                })?;
                let subscriber = client.subscribe(inbox.clone()).await.map_err(refused)?;
                let prefetch = bounded(prefetch, info.config.max_batch);
                let consumer = Consumer::new(config, info.clone(), connection.jetstream.clone());
                (inbox.clone(), subscriber, Some(Pull { consumer, inbox, prefetch, outstanding: 0 }))
            }
        };
        let heartbeat = if pull.is_some() { IDLE_HEARTBEAT } else { info.config.idle_heartbeat };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        connection.round_trip().await?;
        Ok(Self {
            supervision: Supervision::new(connection, &info, heartbeat),
            connection: Arc::clone(connection),
            subject,
            subscriber,
            pull,
            ready: VecDeque::new(),
            look,
            fatal: None,
        })
    }

    /// Waits for the next message. Cancel safe: nothing is taken off the subscription and then awaited upon.
    pub(super) async fn next(&mut self) -> Result<Message, BrokerError> {
        loop {
            self.ask().await?;
            if let Some(message) = self.ready.pop_front() {
                return Ok(message);
            }
            if let Some(fatal) = self.fatal.take() {
                return Err(fatal);
            }
            tokio::select! {
                biased;
                arrived = self.subscriber.next() => match arrived {
                    Some(arrived) => self.take(arrived),
                    None => return Err(error::connection_ended(self.supervision.consumer())),
                },
                _ = self.look.tick() => self.supervise().await?,
            }
        }
    }

    /// Asks for more messages when half of what may be held is gone.
    async fn ask(&mut self) -> Result<(), BrokerError> {
        let Some(pull) = &mut self.pull else { return Ok(()) };
        let coming = pull.outstanding + self.ready.len();
        if coming > pull.prefetch / 2 || self.supervision.is_waiting() {
            return Ok(());
        }
        let wanted = pull.prefetch - coming;
        pull.request(wanted)
            .await
            .map_err(|failed| error::connection_ended(self.supervision.consumer()).with_source(failed))?;
        pull.outstanding += wanted;
        self.supervision.asked();
        Ok(())
    }

    /// Sorts what arrived: a message, or a word of the server about the delivery.
    fn take(&mut self, arrived: Message) {
        if is_from_stream(&arrived) {
            self.supervision.heard();
            if let Some(pull) = &mut self.pull {
                pull.outstanding = pull.outstanding.saturating_sub(1);
            }
            self.ready.push_back(arrived);
            return;
        }
        if arrived.status == Some(StatusCode::IDLE_HEARTBEAT) {
            self.supervision.heard();
            self.answer(&arrived);
            return;
        }
        let description = arrived.description.as_deref().unwrap_or_default();
        if description == "Consumer is push based" {
            self.fatal = Some(BrokerError::configuration(
                "the consumer was replaced by one that pushes: start the service again",
            ));
        }
        if let Some(pull) = &mut self.pull {
            // A request that ended says how much of it is left; one that failed says nothing and is over.
            let left =
                server_header(arrived.headers.as_ref(), "Nats-Pending-Messages").and_then(|left| left.parse().ok());
            pull.outstanding = left.map_or(0, |left: usize| pull.outstanding.saturating_sub(left));
            let is_over = arrived.status == Some(StatusCode::TIMEOUT) || description == "Batch Completed";
            if is_over && left.is_some() {
                self.supervision.heard();
            } else {
                self.supervision.pause();
            }
        }
    }

    /// Answers the flow control of a push consumer that has it.
    fn answer(&self, heartbeat: &Message) {
        let stalled = || server_header(heartbeat.headers.as_ref(), "Nats-Consumer-Stalled").map(Subject::from);
        if let Some(subject) = heartbeat.reply.clone().or_else(stalled) {
            let client = self.connection.client.clone();
            tokio::spawn(async move { client.publish(subject, bytes::Bytes::new()).await });
        }
    }

    /// Looks whether the consumer is still there and whether what was asked for is still known to the server.
    async fn supervise(&mut self) -> Result<(), BrokerError> {
        self.connection.denied.check(&self.subject)?;
        let is_forgotten = self.supervision.look(&self.connection).await?;
        if let Some(pull) = self.pull.as_mut().filter(|_| is_forgotten) {
            pull.outstanding = 0;
        }
        Ok(())
    }

    /// Takes in what has arrived without waiting, and returns where all that is held is acknowledged.
    pub(super) fn held(&mut self) -> Vec<Subject> {
        self.take_arrived();
        self.ready.iter().filter_map(|message| message.reply.clone()).collect()
    }

    fn take_arrived(&mut self) {
        while let Some(Some(arrived)) = self.subscriber.next().now_or_never() {
            self.take(arrived);
        }
    }

    /// Stops receiving and returns what arrived and was not handed out.
    pub(super) async fn drain(&mut self) -> VecDeque<Message> {
        // What the server has sent is here after a round trip, what it sends before it knows of the end after another
        // one.
        let _ = self.connection.round_trip().await;
        self.take_arrived();
        if self.subscriber.drain().await.is_ok() {
            let deadline = Instant::now() + DRAIN_WAIT;
            while let Ok(Some(arrived)) =
                timeout(deadline.saturating_duration_since(Instant::now()), self.subscriber.next()).await
            {
                self.take(arrived);
            }
        }
        std::mem::take(&mut self.ready)
    }
}

impl Pull {
    async fn request(&self, messages: usize) -> Result<(), async_nats::jetstream::consumer::pull::BatchRequestError> {
        let expires = match self.consumer.cached_info().config.max_expires {
            limit if limit.is_zero() => EXPIRES,
            limit => EXPIRES.min(limit),
        };
        let request = BatchConfig {
            batch: messages,
            expires: Some(expires),
            idle_heartbeat: IDLE_HEARTBEAT.min(expires / 2),
            ..BatchConfig::default()
        };
        self.consumer.request_batch(request, self.inbox.clone()).await
    }
}

/// Keeps a prefetch within the limit of a consumer that has one.
fn bounded(prefetch: usize, max_batch: i64) -> usize {
    match usize::try_from(max_batch) {
        Ok(limit) if limit > 0 => prefetch.min(limit),
        _ => prefetch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_reused_consumer_is_kept() {
        assert_eq!((bounded(64, 0), bounded(64, -1), bounded(64, 10)), (64, 64, 10));
    }
}
