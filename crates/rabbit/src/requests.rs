use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Consumer;
use lapin::options::BasicConsumeOptions;
use lapin::types::{FieldTable, ShortString};
use throughline_core::broker::{PublishErrorKind, Seldom};
use throughline_core::{BrokerError, Delivery, PublishError};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::delivery::{ReadFrom, Reading};
use crate::destination::Address;
use crate::error::{self, CONNECTION_LOST};
use crate::names::short;
use crate::options::LONGEST;
use crate::publish::{ConfirmChannel, Outgoing, Problem, Publishing};
use crate::semconv::{DIRECT_REPLY, target_name};

/// How many requests at a time may each have a channel of their own.
const MOST_ALONE: usize = 16;

/// How many requests are remembered that were given up, for the log.
const MOST_GIVEN_UP: usize = 64;

/// Sends requests and receives their replies, on one channel of the connection that publishes: the server takes the address of a direct
/// reply only on the channel that the replies come on.
///
/// The server answers a request that it refuses by closing the channel. So one that it may refuse has a channel of its own.
pub(crate) struct Requests {
    publishing: Arc<Publishing>,
    open: tokio::sync::Mutex<Option<Arc<Desk>>>,
    /// Held by the first request to an exchange until it is confirmed.
    proving: tokio::sync::Mutex<()>,
    /// For those that may be refused wherever they go.
    alone: Semaphore,
    /// What tells the correlation ids of this process from others.
    prefix: u64,
    count: AtomicU64,
}

/// The channel with its replies.
struct Desk {
    channel: ConfirmChannel,
    waiting: Arc<Waiting>,
    /// Receives the replies.
    receiving: JoinHandle<()>,
}

/// `None` when no more replies will come.
struct Waiting(Mutex<Option<Asked>>);

#[derive(Default)]
struct Asked {
    /// Who waits for the reply with which correlation id.
    open: HashMap<String, oneshot::Sender<Delivery>>,
    /// The last ones who wait no more: id, and where the request went.
    given_up: VecDeque<(String, String)>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Requests {
    pub(crate) fn new(publishing: &Arc<Publishing>) -> Self {
        let count = AtomicU64::new(0);
        Self {
            publishing: Arc::clone(publishing),
            open: tokio::sync::Mutex::default(),
            proving: tokio::sync::Mutex::default(),
            alone: Semaphore::new(MOST_ALONE),
            prefix: fastrand::u64(..),
            count,
        }
    }

    /// Publishes a request and waits for its reply.
    ///
    /// # Cancel safety
    ///
    /// A dropped call waits no more; a reply that comes later is dropped.
    pub(crate) async fn request(&self, mut message: Outgoing, wait: Duration) -> Result<Delivery, PublishError> {
        let until = Instant::now() + wait.min(LONGEST);
        let place = message.key.clone();
        message.mandatory = true;
        let asked = async {
            if message.is_doubtful() {
                let _alone = self.alone.acquire().await;
                let desk = self.new_desk(until).await.map_err(|failed| not_sent(&message, failed))?;
                return self.send(&desk, message, true).await?.answered().await;
            }
            // The channel is there until the reply has come.
            let (_desk, reply) = self.ask(message, until).await?;
            reply.answered().await
        };
        match timeout_at(until, Box::pin(asked)).await {
            Ok(result) => result,
            Err(_) => Err(PublishError::new(
                PublishErrorKind::Timeout,
                "timeout",
                format!("no reply from queue `{place}` within {wait:?}: is a service running that answers?"),
            )),
        }
    }

    /// Sends a request over the channel of all; the first one to an exchange alone, while others to such wait.
    async fn ask(&self, message: Outgoing, until: Instant) -> Result<(Arc<Desk>, Place), PublishError> {
        let is_proved = || self.publishing.is_proved(&message.exchange);
        let mut proving = if is_proved() { None } else { Some(self.proving.lock().await) };
        // Another one has done it meanwhile.
        proving.take_if(|_| is_proved());
        let is_alone = proving.is_some();
        let desk = if is_alone { self.new_desk(until).await.map(Arc::new) } else { self.desk(until).await };
        let desk = desk.map_err(|failed| not_sent(&message, failed))?;
        let place = self.send(&desk, message, is_alone).await?;
        Ok((desk, place))
    }

    /// Returns the channel for requests, a new one where the last one has ended.
    async fn desk(&self, deadline: Instant) -> Result<Arc<Desk>, BrokerError> {
        let mut open = self.open.lock().await;
        if let Some(desk) = open.as_ref().filter(|desk| desk.is_usable()) {
            return Ok(Arc::clone(desk));
        }
        Ok(Arc::clone(open.insert(Arc::new(self.new_desk(deadline).await?))))
    }

    async fn new_desk(&self, deadline: Instant) -> Result<Desk, BrokerError> {
        let channel = self.publishing.own_channel(deadline).await?;
        let replies = consume(&channel, self.publishing.limits.answer).await?;
        let waiting = Arc::new(Waiting(Mutex::new(Some(Asked::default()))));
        let receiving = tokio::spawn(hand_out(replies, Arc::clone(&waiting)));
        Ok(Desk { channel, waiting, receiving })
    }

    /// Sends a request, and returns the place for its reply.
    async fn send(&self, desk: &Desk, mut message: Outgoing, is_alone: bool) -> Result<Place, PublishError> {
        let (exchange, key) = (message.exchange.clone(), message.key.clone());
        let (id, place) = self.place(desk, &message)?;
        let properties = std::mem::take(&mut message.properties);
        message.properties = properties
            .with_reply_to(short("reply address", DIRECT_REPLY)?)
            .with_correlation_id(short("correlation id", &id)?);
        match self.publishing.publish_on(&desk.channel, message, is_alone).await {
            Ok(()) => Ok(place),
            Err(problem) => Err(problem.into_error(Address { exchange: exchange.as_str(), key: key.as_str() })),
        }
    }

    /// Notes who waits for a reply: under the caller's correlation id, or, where it has none or another request has it, under one of our
    /// own.
    fn place(&self, desk: &Desk, message: &Outgoing) -> Result<(String, Place), PublishError> {
        let chosen = message.properties.correlation_id().as_ref().map(ShortString::as_str);
        let (answer, answered) = oneshot::channel();
        let to = target_name(message.exchange.as_str(), message.key.as_str()).into_owned();
        let mut waiting = desk.waiting.lock();
        let Some(asked) = waiting.as_mut() else { return Err(lost(&to)) };
        let id = match chosen.filter(|id| !id.is_empty() && !asked.open.contains_key(*id)) {
            Some(id) => id.to_owned(),
            None => {
                let number = self.count.fetch_add(1, Ordering::Relaxed);
                format!("{:016x}-{number}", self.prefix)
            }
        };
        asked.open.insert(id.clone(), answer);
        let place = Place { waiting: Arc::clone(&desk.waiting), id: id.clone(), to, answer: answered };
        Ok((id, place))
    }
}

impl Desk {
    fn is_usable(&self) -> bool {
        self.channel.is_usable() && self.waiting.lock().is_some()
    }
}

/// What receives the replies would keep the channel open.
impl Drop for Desk {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

/// One who waits for a reply, and no more once it is dropped.
struct Place {
    waiting: Arc<Waiting>,
    id: String,
    to: String,
    answer: oneshot::Receiver<Delivery>,
}

impl Place {
    async fn answered(mut self) -> Result<Delivery, PublishError> {
        (&mut self.answer).await.map_err(|_| lost(&self.to))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(asked) = self.waiting.lock().as_mut()
            && asked.open.remove(&self.id).is_some()
        {
            asked.given_up.truncate(MOST_GIVEN_UP - 1);
            asked.given_up.push_front((std::mem::take(&mut self.id), std::mem::take(&mut self.to)));
        }
    }
}

fn not_sent(message: &Outgoing, failed: BrokerError) -> PublishError {
    let to = Address { exchange: message.exchange.as_str(), key: message.key.as_str() };
    Problem::NoChannel(failed).into_error(to)
}

fn lost(place: &str) -> PublishError {
    let message = format!("the reply from queue `{place}` is lost: the connection ended while it was waited for");
    PublishError::new(PublishErrorKind::Disconnected, CONNECTION_LOST, message)
}

async fn consume(channel: &ConfirmChannel, wait: Duration) -> Result<Consumer, BrokerError> {
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let queue = short("queue", DIRECT_REPLY)?;
    let consuming = channel.channel.basic_consume(queue, ShortString::default(), options, FieldTable::default());
    match timeout(wait, consuming).await {
        Ok(Ok(replies)) => Ok(replies),
        Ok(Err(failed)) => Err(error::broker(&failed, "receive replies")),
        Err(_) => Err(error::timed_out("receive replies", wait)),
    }
}

/// Hands replies to who waits for them, until the channel ends; then nobody gets one any more.
async fn hand_out(mut replies: Consumer, waiting: Arc<Waiting>) {
    let from = ReadFrom { queue: DIRECT_REPLY.into(), counts: false, most_deliveries: None, is_stream: false };
    let mut reading = Reading::new(Arc::new(from));
    let mut late = Seldom::default();
    while let Some(Ok(reply)) = replies.next().await {
        let id = reply.properties.correlation_id().as_ref().map_or("", ShortString::as_str);
        let asked = waiting.lock().as_mut().and_then(|asked| asked.open.remove(id));
        match asked {
            // Whoever asked may have gone right now.
            Some(asked) => drop(asked.send(reading.read(reply))),
            None => report_late(&mut late, &waiting, id),
        }
    }
    waiting.lock().take();
}

/// Tells of a reply that nobody waits for any more.
fn report_late(late: &mut Seldom, waiting: &Waiting, id: &str) {
    let Some(count) = late.note(1) else { return };
    let waiting = waiting.lock();
    let given_up = waiting.as_ref().and_then(|asked| asked.given_up.iter().find(|(known, _)| known == id));
    warn!(
        destination = given_up.map(|(_, to)| to.as_str()),
        count, "a reply came when nobody waited for it any more, or twice: it is dropped"
    );
}
