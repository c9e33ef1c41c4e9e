use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Consumer;
use lapin::options::BasicConsumeOptions;
use lapin::types::{FieldTable, ShortString};
use throughline_core::broker::PublishErrorKind;
use throughline_core::{BrokerError, Delivery, PublishError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use crate::delivery::{ReadFrom, Reading};
use crate::destination::Address;
use crate::error::{self, CONNECTION_LOST};
use crate::names::short;
use crate::options::LONGEST;
use crate::publish::{ConfirmChannel, Outgoing, Publishing};
use crate::semconv::DIRECT_REPLY;

/// Sends requests and receives their replies, on one channel of the connection that publishes: the server takes the address of a direct
/// reply only on the channel that the replies come on.
pub(crate) struct Requests {
    publishing: Arc<Publishing>,
    open: tokio::sync::Mutex<Option<Arc<Desk>>>,
    /// What tells the correlation ids of this process from others.
    prefix: u64,
    count: AtomicU64,
}

/// The channel with its replies.
struct Desk {
    channel: ConfirmChannel,
    waiting: Arc<Waiting>,
}

/// Who waits for the reply with which correlation id; `None` when no more replies will come.
struct Waiting(Mutex<Option<HashMap<String, oneshot::Sender<Delivery>>>>);

impl Requests {
    pub(crate) fn new(publishing: &Arc<Publishing>) -> Self {
        let count = AtomicU64::new(0);
        Self {
            publishing: Arc::clone(publishing),
            open: tokio::sync::Mutex::default(),
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
        let (exchange, place) = (message.exchange.clone(), message.key.clone());
        let to = Address { exchange: exchange.as_str(), key: place.as_str() };
        let asked = async {
            let required = self.publishing.require_exchange(&exchange).await;
            required.map_err(|problem| problem.into_error(to))?;
            let desk = self.desk(until).await?;
            let (id, mut reply) = self.place(&desk, &message)?;
            let properties = std::mem::take(&mut message.properties);
            message.properties = properties
                .with_reply_to(short("reply address", DIRECT_REPLY)?)
                .with_correlation_id(short("correlation id", &id)?);
            message.mandatory = true;
            let sent = self.publishing.publish_on(&desk.channel, message).await;
            sent.map_err(|problem| problem.into_error(to))?;
            (&mut reply.answer).await.map_err(|_| lost(to.key))
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

    /// Returns the channel for requests, a new one where the last one has ended.
    async fn desk(&self, deadline: Instant) -> Result<Arc<Desk>, PublishError> {
        let mut open = self.open.lock().await;
        if let Some(desk) = open.as_ref().filter(|desk| desk.is_usable()) {
            return Ok(Arc::clone(desk));
        }
        let opened = async {
            let channel = self.publishing.own_channel(deadline).await?;
            let replies = consume(&channel, self.publishing.limits.answer).await?;
            let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
            tokio::spawn(hand_out(replies, Arc::clone(&waiting)));
            Ok::<_, BrokerError>(Desk { channel, waiting })
        };
        let desk = opened.await.map_err(|failed| {
            let message = format!("the request was not sent: {failed}");
            PublishError::new(PublishErrorKind::Disconnected, CONNECTION_LOST, message)
        })?;
        Ok(Arc::clone(open.insert(Arc::new(desk))))
    }

    /// Notes who waits for a reply: under the caller's correlation id, or, where it has none or another request has it, under one of our
    /// own.
    fn place(&self, desk: &Arc<Desk>, message: &Outgoing) -> Result<(String, Place), PublishError> {
        let chosen = message.properties.correlation_id().as_ref().map(ShortString::as_str);
        let (answer, answered) = oneshot::channel();
        let mut waiting = desk.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = waiting.as_mut() else { return Err(lost(message.key.as_str())) };
        let id = match chosen.filter(|id| !id.is_empty() && !known.contains_key(*id)) {
            Some(id) => id.to_owned(),
            None => {
                let number = self.count.fetch_add(1, Ordering::Relaxed);
                format!("{:016x}-{number}", self.prefix)
            }
        };
        known.insert(id.clone(), answer);
        let place = Place { waiting: Arc::clone(&desk.waiting), id: id.clone(), answer: answered };
        Ok((id, place))
    }
}

impl Desk {
    fn is_usable(&self) -> bool {
        self.channel.is_usable() && self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// One who waits for a reply, and no more once it is dropped.
struct Place {
    waiting: Arc<Waiting>,
    id: String,
    answer: oneshot::Receiver<Delivery>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            waiting.remove(&self.id);
        }
    }
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
    while let Some(Ok(reply)) = replies.next().await {
        let id = reply.properties.correlation_id().as_ref().map(|id| id.as_str().to_owned());
        let asked = id.and_then(|id| {
            let mut waiting = waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.as_mut()?.remove(&id)
        });
        match asked {
            // Whoever asked may have gone right now.
            Some(asked) => drop(asked.send(reading.read(reply))),
            None => debug!("a reply came for which nobody waits any more: it is dropped"),
        }
    }
    waiting.0.lock().unwrap_or_else(PoisonError::into_inner).take();
}
