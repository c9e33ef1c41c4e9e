use std::time::Duration;

use async_nats::ServerInfo;
use async_nats::jetstream::consumer::Info;
use tokio::time::Instant;
use tracing::{info, warn};

/// How long the server waits for a settlement when its answer does not say.
const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);

/// What a redelivery may take beyond the wait.
const SLACK: Duration = Duration::from_secs(10);

/// Asks for messages one by one when the same message may end the connection time and again.
///
/// A message that the client cannot read ends the connection with every delivery, and takes those behind it along. Their
/// time runs out together with its own, so that it is before them again the next time, and they would never arrive. One
/// by one, it takes none along.
///
/// Connections are lost for other reasons too, which need no caution. A message can only be at fault while it is delivered and
/// not settled; one that ends the connection is never settled. So a loss counts when the consumer waits for a settlement
/// afterwards, and is the second one when something that was delivered before the first is still not settled. A server that was
/// started again was not ended by a message.
pub(super) struct Caution {
    stream: String,
    consumer: String,
    /// Within which the same message may come again.
    window: Duration,
    server: Server,
    /// A loss whose reason is not known yet.
    unjudged: Option<Instant>,
    /// The last loss that a message may have caused.
    suspect: Option<Suspect>,
    until: Option<Instant>,
}

/// One start of a server.
#[derive(Debug, Eq, PartialEq)]
struct Server {
    id: String,
    name: String,
}

impl Server {
    fn new(info: &ServerInfo) -> Self {
        Self { id: info.server_id.clone(), name: info.server_name.clone() }
    }

    /// Tells whether the other one is this one, started again: each start has an id, which is the name where there is none. Of
    /// two servers of a cluster each has a name of its own.
    fn is_started_again_as(&self, other: &Self) -> bool {
        self.id != other.id && (self.name == other.name || self.name == self.id)
    }
}

struct Suspect {
    at: Instant,
    /// How far the stream had been delivered.
    delivered: u64,
}

impl Caution {
    pub(super) fn new(info: &Info, server: &ServerInfo) -> Self {
        let waits = info.config.backoff.iter().copied().chain([info.config.ack_wait]);
        let longest = waits.max().filter(|wait| !wait.is_zero()).unwrap_or(DEFAULT_ACK_WAIT);
        Self {
            stream: info.stream_name.clone(),
            consumer: info.name.clone(),
            window: longest.saturating_mul(2).saturating_add(SLACK),
            server: Server::new(server),
            unjudged: None,
            suspect: None,
            until: None,
        }
    }

    /// Notes that the connection was lost and is there again, with this server.
    pub(super) fn lost(&mut self, server: &ServerInfo) {
        let server = Server::new(server);
        let is_restart = self.server.is_started_again_as(&server);
        self.server = server;
        if !is_restart {
            self.unjudged = Some(Instant::now());
        }
    }

    /// Tells whether the state of the consumer is to be looked at.
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.unjudged.is_some()
    }

    /// Judges the last loss by the state of the consumer after it. The client may have said later than that it was connected to which
    /// server that is.
    pub(super) fn judge(&mut self, info: &Info, server: &ServerInfo) {
        let Some(at) = self.unjudged.take() else { return };
        let server = Server::new(server);
        if self.server.is_started_again_as(&server) {
            self.server = server;
            return;
        }
        if info.num_ack_pending == 0 {
            if self.until.take().is_some() {
                info!(
                    stream = self.stream,
                    consumer = self.consumer,
                    "all messages are settled: asking for many at a time again"
                );
            }
            self.suspect = None;
            return;
        }
        let before = self.suspect.replace(Suspect { at, delivered: info.delivered.stream_sequence });
        let is_repeated = before.is_some_and(|before| {
            at.duration_since(before.at) < self.window && info.ack_floor.stream_sequence < before.delivered
        });
        if !is_repeated {
            return;
        }
        if self.until.is_none() {
            warn!(
                stream = self.stream,
                consumer = self.consumer,
                unsettled = info.ack_floor.stream_sequence.saturating_add(1),
                "the connection is lost time and again while a message of this stream is delivered: it may have headers that the \
                 client cannot read. Asking for one message at a time; delete that message, or let `max_deliver` end it"
            );
        }
        self.until = at.checked_add(self.window);
    }

    /// Returns how many messages may be under way.
    pub(super) fn bounded(&mut self, prefetch: usize) -> usize {
        let now = Instant::now();
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
        let is_recent = |suspect: &Suspect| now.duration_since(suspect.at) < self.window;
        // Until a second loss is judged it may be the message.
        let may_be_repeated = self.unjudged.is_some() && self.suspect.as_ref().is_some_and(is_recent);
        if self.until.is_some() || may_be_repeated { 1 } else { prefetch }
    }
}

#[cfg(test)]
mod tests {
    use async_nats::datetime;
    use async_nats::jetstream::consumer::{Config, SequenceInfo};
    use tokio::time::advance;

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    /// A consumer that has delivered up to a sequence and has all settled up to another.
    fn state(delivered: u64, settled: u64) -> Info {
        let at = |stream_sequence| SequenceInfo { consumer_sequence: 0, stream_sequence, last_active: None };
        Info {
            stream_name: "ORDERS".to_owned(),
            name: "stock".to_owned(),
            created: datetime::now(),
            config: Config { ack_wait: WAIT, ..Config::default() },
            delivered: at(delivered),
            ack_floor: at(settled),
            num_ack_pending: usize::try_from(delivered - settled).unwrap(),
            num_redelivered: 0,
            num_waiting: 0,
            num_pending: 0,
            cluster: None,
            push_bound: false,
        }
    }

    fn server(id: &str, name: &str) -> ServerInfo {
        ServerInfo { server_id: id.to_owned(), server_name: name.to_owned(), ..ServerInfo::default() }
    }

    fn caution() -> Caution {
        Caution::new(&state(0, 0), &server("A", "A"))
    }

    #[tokio::test(start_paused = true)]
    async fn one_loss_changes_nothing() {
        let mut caution = caution();
        caution.lost(&server("A", "A"));
        assert_eq!(caution.bounded(200), 200);
        caution.judge(&state(20, 10), &server("A", "A"));
        advance(WAIT * 3).await;
        caution.lost(&server("A", "A"));
        caution.judge(&state(20, 10), &server("A", "A"));
        assert_eq!(caution.bounded(200), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_at_every_redelivery_takes_no_other_message_along() {
        let mut caution = caution();
        for _ in 0..4 {
            caution.lost(&server("A", "A"));
            caution.judge(&state(20, 10), &server("A", "A"));
            advance(WAIT).await;
        }
        assert_eq!(caution.bounded(200), 1);
        advance(WAIT * 2).await;
        assert_eq!(caution.bounded(200), 200, "no loss for as long as a redelivery takes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_loss_counts_until_it_is_judged() {
        let mut caution = caution();
        caution.lost(&server("A", "A"));
        caution.judge(&state(20, 10), &server("A", "A"));
        advance(WAIT).await;
        caution.lost(&server("A", "A"));
        assert!(caution.is_in_doubt());
        assert_eq!(caution.bounded(200), 1);
        caution.judge(&state(30, 25), &server("A", "A"));
        assert_eq!(caution.bounded(200), 200, "what was under way at the first loss is settled");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_started_again_and_again_is_no_message() {
        let (mut unnamed, mut named) = (caution(), Caution::new(&state(0, 0), &server("A", "n1")));
        for id in ["B", "C", "D"] {
            unnamed.lost(&server(id, id));
            named.lost(&server(id, "n1"));
            assert!(!unnamed.is_in_doubt() && !named.is_in_doubt());
            assert_eq!((unnamed.bounded(200), named.bounded(200)), (200, 200));
        }
        // The client is late to say which server it is.
        for _ in 0..2 {
            unnamed.lost(&server("D", "D"));
            unnamed.judge(&state(20, 10), &server("E", "E"));
            unnamed.lost(&server("E", "E"));
            unnamed.judge(&state(20, 10), &server("D", "D"));
        }
        assert_eq!(unnamed.bounded(200), 200);
        named.lost(&server("E", "n2"));
        assert!(named.is_in_doubt(), "another server of a cluster says nothing about the reason");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_consumer_has_no_message_that_could_be_at_fault() {
        let mut caution = caution();
        for _ in 0..4 {
            caution.lost(&server("A", "A"));
            caution.judge(&state(20, 20), &server("A", "A"));
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(caution.bounded(200), 200);
    }
}
