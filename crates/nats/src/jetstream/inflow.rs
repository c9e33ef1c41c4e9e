use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{BatchConfig, Config};
use async_nats::jetstream::consumer::{Consumer, FromConsumer, Info};
use async_nats::{Message, StatusCode, Subject};
use futures_util::{FutureExt, StreamExt};
use throughline_core::BrokerError;
use throughline_core::broker::{Observe, Seldom};
use tokio::task::unconstrained;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout_at};
use tracing::{error, warn};

use super::caution::Caution;
use super::prefetch::Prefetch;
use super::supervision::{Forgotten, Supervision};
use crate::carrier::server_header;
use crate::connection::Connection;
use crate::delivery::{AckSubject, is_from_stream};
use crate::error;
use crate::link::Link;
use crate::status::Statuses;

/// How long a request for messages stays open at the server.
const EXPIRES: Duration = Duration::from_secs(30);

/// How often the server says that such a request is still open.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(5);

/// How often it is looked at whether all is well while no message comes.
const LOOK: Duration = Duration::from_millis(500);

/// How long a closing subscription waits for what is under way.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// How often a closing subscription asks at most what the server has counted, and after how often without a message it stops.
const MOST_ROUNDS: u32 = 20;
const QUIET_ROUNDS: u32 = 3;

/// The messages of a consumer on their way from the server to `receive`.
///
/// The client's own stream of messages is not used: it drops what it buffered when it is recreated or closed, so that a
/// restart would have to wait until the server delivers again.
pub(super) struct Inflow {
    connection: Arc<Connection>,
    info: Info,
    prefetch: Prefetch,
    binding: Binding,
    ready: VecDeque<Message>,
    supervision: Supervision,
    caution: Caution,
    look: Interval,
    statuses: Statuses,
    strangers: Seldom,
    /// How often the server delivers a message; it has no limit unless the number is positive.
    max_deliver: Arc<AtomicI64>,
    fatal: Option<BrokerError>,
    /// Whoever hears that the server does not deliver; known before the first message is asked for.
    observer: Arc<OnceLock<Arc<dyn Observe>>>,
    is_degraded: bool,
}

/// How a consumer is bound to one link of the connection.
struct Binding {
    link: Arc<Link>,
    /// Where the server delivers.
    subject: Subject,
    subscriber: async_nats::Subscriber,
    /// The side of a pull consumer; a push consumer has none.
    pull: Option<Pull>,
}

/// What a pull consumer was asked for.
struct Pull {
    consumer: Consumer<Config>,
    inbox: Subject,
    /// How many messages were asked for and did not come yet.
    outstanding: usize,
}

impl Binding {
    async fn open(connection: &Connection, link: Arc<Link>, info: &Info) -> Result<Self, BrokerError> {
        let client = &link.client;
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
                let consumer = Consumer::new(config, info.clone(), link.jetstream.clone());
                (inbox.clone(), subscriber, Some(Pull { consumer, inbox, outstanding: 0 }))
            }
        };
        Ok(Self { link, subject, subscriber, pull })
    }
}

impl Inflow {
    pub(super) async fn open(
        connection: &Arc<Connection>,
        info: Info,
        prefetch: RangeInclusive<usize>,
    ) -> Result<Self, BrokerError> {
        let binding = Binding::open(connection, connection.link(), &info).await?;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        binding.link.round_trip().await?;
        let max_deliver = Arc::new(AtomicI64::new(info.config.max_deliver));
        Ok(Self {
            supervision: Supervision::new(&binding.link, &info, IDLE_HEARTBEAT),
            caution: Caution::new(&info, &binding.link.client.server_info()),
            connection: Arc::clone(connection),
            prefetch: Prefetch::new(prefetch, info.config.max_batch),
            info,
            binding,
            ready: VecDeque::new(),
            look,
            statuses: Statuses::default(),
            strangers: Seldom::default(),
            max_deliver,
            fatal: None,
            observer: Arc::default(),
            is_degraded: false,
        })
    }

    pub(super) fn observer(&self) -> Arc<OnceLock<Arc<dyn Observe>>> {
        Arc::clone(&self.observer)
    }

    /// Binds to the link that comes after a lost one. Cancel safe.
    async fn bind_again(&mut self) -> Result<(), BrokerError> {
        let ended = || error::connection_ended(&self.info.name);
        let link = self.connection.links.after(&self.binding.link).await.ok_or_else(ended)?;
        let bound = Binding::open(&self.connection, Arc::clone(&link), &self.info).await;
        match bound {
            Ok(binding) => self.binding = binding,
            // Lost again; the subscription that is still held has ended, so this is called again.
            Err(_) if link.is_gone() => {
                self.binding.link = link;
                return Ok(());
            }
            Err(failed) => return Err(failed),
        }
        self.supervision = Supervision::new(&self.binding.link, &self.info, IDLE_HEARTBEAT);
        self.caution.lost(&self.binding.link.client.server_info());
        Ok(())
    }

    /// Waits for the next message. Cancel safe: nothing is taken off the subscription and then awaited upon.
    ///
    /// What is rare is boxed: each message moves this future, and all that it may ever wait for would be moved along.
    pub(super) async fn next(&mut self) -> Result<Message, BrokerError> {
        loop {
            if let Some(wanted) = self.wanted() {
                Box::pin(self.ask(wanted)).await;
            }
            if let Some(message) = self.ready.pop_front() {
                return Ok(message);
            }
            if let Some(fatal) = self.fatal.take() {
                return Err(fatal);
            }
            tokio::select! {
                biased;
                arrived = self.binding.subscriber.next() => match arrived {
                    Some(arrived) => self.take(arrived),
                    None => Box::pin(self.bind_again()).await?,
                },
                _ = self.look.tick() => Box::pin(self.supervise()).await?,
            }
        }
    }

    /// Returns how many messages to ask for, when half of what may be held is gone.
    fn wanted(&mut self) -> Option<usize> {
        let coming = self.binding.pull.as_ref()?.outstanding + self.ready.len();
        if coming > self.prefetch.now() / 2 || self.supervision.is_waiting() {
            return None;
        }
        self.caution.bounded(self.prefetch.now()).checked_sub(coming).filter(|wanted| *wanted > 0)
    }

    async fn ask(&mut self, wanted: usize) {
        let Some(pull) = &mut self.binding.pull else { return };
        // Fails when the connection task is lost, which the end of the subscription says after what has arrived before.
        if pull.request(wanted).await.is_ok() {
            pull.outstanding += wanted;
            self.prefetch.half_is_taken();
            self.supervision.asked();
        }
    }

    /// Sorts what arrived: a message, or a word of the server about the delivery.
    fn take(&mut self, arrived: Message) {
        if is_from_stream(&arrived) {
            self.supervision.heard();
            if self.is_degraded {
                self.show();
            }
            if let Some(pull) = &mut self.binding.pull {
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
        if arrived.status.is_none() {
            // Nobody but the server publishes here, unless somebody guesses the subject.
            if let Some(count) = self.strangers.note(1) {
                let consumer = &self.info.name;
                warn!(consumer, count, "a message that is none of the stream arrived for the consumer: it is left out");
            }
            return;
        }
        let description = arrived.description.as_deref().unwrap_or_default();
        if description == "Consumer is push based" {
            self.fatal = Some(BrokerError::configuration(
                "the consumer was replaced by one that pushes: start the service again",
            ));
        }
        if let Some(pull) = &mut self.binding.pull {
            // A request that ended says how much of it is left; one that failed says nothing and is over.
            let left =
                server_header(arrived.headers.as_ref(), "Nats-Pending-Messages").and_then(|left| left.parse().ok());
            pull.outstanding = left.map_or(0, |left: usize| pull.outstanding.saturating_sub(left));
            let is_over = arrived.status == Some(StatusCode::TIMEOUT) || description == "Batch Completed";
            if is_over && left.is_some() {
                self.supervision.heard();
            } else {
                self.statuses.note(&arrived);
                self.supervision.pause();
            }
        } else {
            self.statuses.note(&arrived);
        }
    }

    /// Answers the flow control of a push consumer that has it.
    fn answer(&self, heartbeat: &Message) {
        let stalled = || server_header(heartbeat.headers.as_ref(), "Nats-Consumer-Stalled").map(Subject::from);
        if let Some(subject) = heartbeat.reply.clone().or_else(stalled) {
            let client = self.binding.link.client.clone();
            tokio::spawn(async move { client.publish(subject, bytes::Bytes::new()).await });
        }
    }

    /// Looks whether the consumer is still there and whether what was asked for is still known to the server.
    async fn supervise(&mut self) -> Result<(), BrokerError> {
        self.connection.denied.check(&self.binding.subject)?;
        let is_forgotten = self.supervision.look(&self.binding.link).await?;
        self.show();
        if is_forgotten == Some(Forgotten::WithTheConnection) {
            self.caution.lost(&self.binding.link.client.server_info());
        }
        if let Some(pull) = self.binding.pull.as_mut().filter(|_| is_forgotten.is_some()) {
            pull.outstanding = 0;
        }
        if self.caution.is_in_doubt()
            && let Some(info) = self.supervision.ask().await
        {
            self.caution.judge(&info, &self.binding.link.client.server_info());
            self.note_limit(&info);
        }
        Ok(())
    }

    /// Shows in the health of the app that the server does not deliver, and that it does again.
    fn show(&mut self) {
        let is_degraded = self.supervision.is_waiting();
        if let Some(observer) = self.observer.get().filter(|_| is_degraded != self.is_degraded) {
            let why = "the server does not deliver what it is asked for: it is asked again, and the log says why";
            observer.degraded(is_degraded.then(|| why.into()));
            self.is_degraded = is_degraded;
        }
    }

    /// Notes how often the server delivers, which may be changed while the consumer is in use.
    fn note_limit(&self, info: &Info) {
        self.max_deliver.store(info.config.max_deliver, Ordering::Relaxed);
    }

    /// Takes in what has arrived without waiting, and returns where all that is held is acknowledged.
    pub(super) fn held(&mut self) -> Vec<Subject> {
        self.take_arrived();
        self.ready.iter().filter_map(|message| message.reply.clone()).collect()
    }

    fn take_arrived(&mut self) {
        // Unconstrained: else tokio lets a task take 128 messages and then says that there are none.
        while let Some(Some(arrived)) = unconstrained(self.binding.subscriber.next()).now_or_never() {
            self.take(arrived);
        }
    }

    /// Stops receiving and returns what arrived and was not handed out. What the server would not deliver again stays, for
    /// [`left`](Self::left).
    pub(super) async fn drain(&mut self, deadline: Instant) -> VecDeque<Message> {
        // A server that does not answer gets no more time than all that ends together.
        let _ = timeout_at(deadline, self.stop()).await;
        self.take_arrived();
        let (kept, given_back) = std::mem::take(&mut self.ready).into_iter().partition(|message| self.is_last(message));
        self.ready = kept;
        given_back
    }

    async fn stop(&mut self) {
        self.settle_down().await;
        if self.binding.subscriber.drain().await.is_ok() {
            let deadline = Instant::now() + DRAIN_WAIT;
            while let Ok(Some(arrived)) = timeout_at(deadline, self.binding.subscriber.next()).await {
                self.take(arrived);
            }
        }
    }

    /// Waits until what the server has sent is here, as it is after a round trip.
    ///
    /// The server counts a delivery before it sends the message, and counts it too where nobody is there any more. With a limit of
    /// deliveries that may be the last one, so the end waits until nothing comes and all that is counted is here. Of what went to
    /// other services nothing comes here, so it is asked for a few times only.
    async fn settle_down(&mut self) {
        let mut quiet = 0;
        for _ in 0..MOST_ROUNDS {
            let counted = self.counted().await;
            let before = self.ready.len();
            let _ = self.binding.link.round_trip().await;
            self.take_arrived();
            let Some(counted) = counted else { return };
            quiet = if self.ready.len() == before { quiet + 1 } else { 0 };
            let last = self.ready.back().and_then(|message| AckSubject::parse(message.reply.as_deref()?));
            let all_are_here = last.is_some_and(|last| last.consumer_sequence >= counted);
            if quiet >= QUIET_ROUNDS || (quiet > 0 && all_are_here) {
                return;
            }
        }
    }

    /// Returns how many deliveries the server has counted, for a consumer with a limit.
    async fn counted(&self) -> Option<u64> {
        if self.max_deliver.load(Ordering::Relaxed) <= 0 {
            return None;
        }
        Some(self.supervision.ask().await?.delivered.consumer_sequence)
    }

    /// Returns the next message that could not be given back.
    pub(super) fn left(&mut self) -> Option<Message> {
        self.ready.pop_front()
    }

    /// Tells whether the server will not deliver a message again, whatever it is told.
    fn is_last(&self, message: &Message) -> bool {
        let delivered = message.reply.as_deref().and_then(AckSubject::parse).map_or(0, |ack| ack.delivered);
        is_limit(self.max_deliver.load(Ordering::Relaxed), delivered)
    }

    pub(super) fn max_deliver(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.max_deliver)
    }
}

/// Tells whether a delivery is the last one that a limit of the consumer allows.
pub(super) fn is_limit(max_deliver: i64, delivered: u64) -> bool {
    u64::try_from(max_deliver).is_ok_and(|limit| limit > 0 && delivered >= limit)
}

impl Drop for Inflow {
    /// What is still here has no other delivery to come: it is in the stream, and the consumer is done with it.
    fn drop(&mut self) {
        let lost = self.ready.iter().filter(|message| self.is_last(message));
        for ack in lost.filter_map(|message| AckSubject::parse(message.reply.as_deref()?)) {
            error!(
                stream = ack.stream,
                consumer = ack.consumer,
                sequence = ack.stream_sequence,
                attempt = ack.delivered,
                "a message was not handled before the end, and the server delivers it no more (`max_deliver`): it still lies in \
                 the stream"
            );
        }
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
