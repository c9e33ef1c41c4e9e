mod channel;
mod confirms;
mod failure;
mod fingerprint;
mod problem;
mod proof;
mod publisher;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use throughline_core::broker::{ConnectionState, Existence, Outbound};
use throughline_core::{BrokerError, PublishError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use self::channel::ConfirmChannel;
use self::channel::Parts;
use self::confirms::Answer;
pub use self::failure::PublishFailure;
use self::problem::Problem;
pub(crate) use self::problem::return_type;
use self::proof::Proof;
pub(crate) use self::publisher::{RabbitPublisher, target};
use crate::error;
use crate::link::{Link, Links};
use crate::names::short;
use crate::options::Limits;
use crate::size;

/// From which size on a message goes alone over the channel for what may be refused: the server's limit is not known.
const LARGE: usize = 8 * 1024 * 1024;

/// Publishes on a connection of its own: with confirms, many at a time, in order.
///
/// Messages share one channel. What the server may answer by closing the channel goes alone over another one ([`Proof`]), so that it takes
/// no other message with it.
pub(crate) struct Publishing {
    pub(crate) links: Arc<Links>,
    pub(crate) limits: Limits,
    room: Arc<Semaphore>,
    shared: Mutex<Option<Arc<ConfirmChannel>>>,
    opening: tokio::sync::Mutex<()>,
    proof: Proof,
}

/// One message as it goes to the server.
pub(crate) struct Outgoing {
    pub(crate) exchange: String,
    pub(crate) key: String,
    /// Whether it comes back when no queue takes it.
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

impl Outgoing {
    fn into_parts(self) -> Result<Parts, PublishError> {
        let Self { exchange, key, mandatory, properties, body } = self;
        let (exchange, key) = (short("exchange", &exchange)?, short("routing key", &key)?);
        Ok(Parts { exchange, key, mandatory, properties, body })
    }
}

impl Publishing {
    pub(crate) fn new(links: Arc<Links>, limits: Limits) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(limits.unconfirmed));
        Arc::new(Self {
            links,
            limits,
            room,
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            proof: Proof::default(),
        })
    }

    pub(crate) fn state(&self) -> ConnectionState {
        self.links.state()
    }

    /// Publishes one message and waits until the server has confirmed that a queue has it.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have published.
    pub(crate) async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let handed = self.hand_over(message, Instant::now() + self.limits.publish_wait).await?;
        self.outcome(handed).await
    }

    /// Publishes messages in their order, all under way at the same time. One is handed over after the other: calls that wait side by side
    /// for the proof of an exchange, or for the channel, overtake each other.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have published any of them.
    pub(crate) async fn publish_in_order(
        &self,
        messages: impl Iterator<Item = Result<Outgoing, PublishError>>,
    ) -> Vec<Result<(), PublishError>> {
        let deadline = Instant::now() + self.limits.publish_wait;
        let mut all = Vec::with_capacity(messages.size_hint().0);
        for message in messages {
            all.push(match message {
                Ok(message) => self.hand_over(message, deadline).await,
                Err(failed) => Err(failed),
            });
        }
        let mut results = Vec::with_capacity(all.len());
        for handed in all {
            results.push(match handed {
                Ok(handed) => self.outcome(handed).await,
                Err(failed) => Err(failed),
            });
        }
        results
    }

    /// Waits for what the server says of a message.
    async fn outcome(&self, handed: Handed) -> Result<(), PublishError> {
        let Handed::Sent { answered, channel, place, sent } = handed else { return Ok(()) };
        let result = self.answer(answered, sent).await;
        if let Err(Problem::Unknown { .. }) = &result {
            self.proof.forget_if_closed(&channel);
        }
        result.map_err(|problem| problem.into_error(&place))
    }

    /// Gives a message to the client, once there is room for it and a channel that may take it.
    async fn hand_over(&self, message: Outgoing, deadline: Instant) -> Result<Handed, PublishError> {
        let mut parts = message.into_parts()?;
        let is_doubtful = parts.body.len() > LARGE || parts.properties.user_id().is_some();
        let mut room = self.room(&parts, deadline).await?;
        loop {
            let link = self.link(&parts, deadline).await?;
            size::check(&parts.properties, link.client.configuration().frame_max())?;
            if is_doubtful || !self.proof.has(&link, parts.exchange.as_str()) {
                match self.prove(&link, parts, room, is_doubtful, deadline).await {
                    Proved::Answered(result) => return result.map(|()| Handed::Stored),
                    Proved::Shared(again, kept) => (parts, room) = (*again, kept),
                }
            }
            let channel = match self.shared_channel(&link).await {
                Ok(channel) => channel,
                Err(failed) => {
                    self.wait_after(&parts, &failed, deadline).await?;
                    continue;
                }
            };
            let place = Problem::place(&parts);
            match channel.send(parts, room) {
                Ok(answered) => return Ok(Handed::Sent { answered, channel, place, sent: Instant::now() }),
                // The channel has just ended; nothing was sent.
                Err(kept) => {
                    parts = kept.1;
                    room = self.room(&parts, deadline).await?;
                    if Instant::now() >= deadline && !self.limits.publish_wait.is_zero() {
                        return Err(Problem::NoConnection(self.limits.publish_wait).into_error(&place));
                    }
                }
            }
        }
    }

    /// Waits for room among the publishes that are not confirmed.
    async fn room(&self, parts: &Parts, deadline: Instant) -> Result<OwnedSemaphorePermit, PublishError> {
        if let Ok(room) = Arc::clone(&self.room).try_acquire_owned() {
            return Ok(room);
        }
        match timeout_at(deadline, Arc::clone(&self.room).acquire_owned()).await {
            Ok(Ok(room)) => Ok(room),
            _ => {
                Err(Problem::NoRoom(self.limits.unconfirmed, self.limits.publish_wait)
                    .into_error(&Problem::place(parts)))
            }
        }
    }

    /// Waits for a connection that takes messages.
    async fn link(&self, parts: &Parts, deadline: Instant) -> Result<Arc<Link>, PublishError> {
        let wait = self.limits.publish_wait;
        if let Some(link) = self.links.current().filter(|_| self.links.blocked().is_none()) {
            return Ok(link);
        }
        let link = match timeout_at(deadline, self.links.connected()).await {
            Ok(Ok(link)) => link,
            Ok(Err(_)) => return Err(Problem::Closed.into_error(&Problem::place(parts))),
            Err(_) => return Err(Problem::NoConnection(wait).into_error(&Problem::place(parts))),
        };
        match timeout_at(deadline, self.links.unblocked()).await {
            Ok(()) => Ok(link),
            Err(_) => Err(Problem::Blocked(wait).into_error(&Problem::place(parts))),
        }
    }

    /// Waits a moment after a channel could not be opened; fails when the time is up.
    async fn wait_after(&self, parts: &Parts, failed: &BrokerError, deadline: Instant) -> Result<(), PublishError> {
        const PAUSE: Duration = Duration::from_millis(50);
        if Instant::now() + PAUSE >= deadline {
            return Err(Problem::NoChannel(failed.to_string()).into_error(&Problem::place(parts)));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    async fn shared_channel(&self, link: &Arc<Link>) -> Result<Arc<ConfirmChannel>, BrokerError> {
        let current = || {
            let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.as_ref().filter(|channel| channel.link.number == link.number && channel.is_usable()).cloned()
        };
        if let Some(channel) = current() {
            return Ok(channel);
        }
        let _opening = self.opening.lock().await;
        if let Some(channel) = current() {
            return Ok(channel);
        }
        let channel = Arc::new(ConfirmChannel::open(link, &self.limits).await?);
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&channel));
        Ok(channel)
    }

    /// Publishes a message alone, where it is not known that the server takes it. What another one has proved meanwhile is not.
    async fn prove(
        &self,
        link: &Arc<Link>,
        parts: Parts,
        room: OwnedSemaphorePermit,
        is_doubtful: bool,
        deadline: Instant,
    ) -> Proved {
        let place = Problem::place(&parts);
        let Ok(mut alone) = timeout_at(deadline, self.proof.alone.lock()).await else {
            return Proved::Answered(Err(Problem::NoConnection(self.limits.publish_wait).into_error(&place)));
        };
        if !is_doubtful && self.proof.has(link, parts.exchange.as_str()) {
            return Proved::Shared(Box::new(parts), room);
        }
        let channel = match alone.take().filter(|channel| channel.link.number == link.number && channel.is_usable()) {
            Some(channel) => channel,
            None => match ConfirmChannel::open(link, &self.limits).await {
                Ok(channel) => channel,
                Err(failed) => {
                    return Proved::Answered(Err(Problem::NoChannel(failed.to_string()).into_error(&place)));
                }
            },
        };
        let exchange = parts.exchange.clone();
        let result = match channel.send(parts, room) {
            Ok(answered) => self.answer(answered, Instant::now()).await.map_err(Problem::alone),
            Err(kept) => Err(Problem::NoChannel(error::told(&kept.0))),
        };
        if matches!(&result, Ok(()) | Err(Problem::Returned { .. } | Problem::Nacked)) {
            self.proof.note(link, exchange.as_str());
        }
        *alone = Some(channel).filter(ConfirmChannel::is_usable);
        Proved::Answered(result.map_err(|problem| problem.into_error(&place)))
    }

    /// Waits for the answer to one message.
    async fn answer(&self, answered: oneshot::Receiver<Answer>, sent: Instant) -> Result<(), Problem> {
        match timeout_at(sent + self.limits.confirm, answered).await {
            Ok(Ok(Answer::Stored)) => Ok(()),
            Ok(Ok(Answer::Returned { code, text })) => Err(Problem::Returned { code, text }),
            Ok(Ok(Answer::Refused)) => Err(Problem::Nacked),
            Ok(Ok(Answer::Unknown(failed))) => Err(Problem::Unknown(Some(failed))),
            Ok(Err(_)) => Err(Problem::Unknown(None)),
            Err(_) => Err(Problem::Unconfirmed(self.limits.confirm)),
        }
    }

    /// Waits until all that was published is confirmed or has failed, then closes the connection.
    pub(crate) async fn close(&self, deadline: Instant) -> Result<(), BrokerError> {
        let all = u32::try_from(self.limits.unconfirmed).unwrap_or(u32::MAX);
        let is_quiet = timeout_at(deadline, self.room.acquire_many(all)).await.is_ok();
        let closed = self.links.close(deadline).await;
        if is_quiet { closed } else { Err(error::unanswered("confirm what was published before the end")) }
    }

    /// Opens a channel with confirms, for one who also receives on it. Waits for the connection as a publish does.
    pub(crate) async fn own_channel(&self, deadline: Instant) -> Result<ConfirmChannel, BrokerError> {
        let connected = timeout_at(deadline, self.links.connected()).await;
        let link = connected.map_err(|_| error::timed_out("reach RabbitMQ", self.limits.publish_wait))??;
        ConfirmChannel::open(&link, &self.limits).await
    }

    /// Publishes on such a channel. The exchange has to be there: one that is not ends the channel.
    pub(crate) async fn publish_on(&self, channel: &ConfirmChannel, message: Outgoing) -> Result<(), PublishError> {
        let parts = message.into_parts()?;
        let deadline = Instant::now() + self.limits.publish_wait;
        size::check(&parts.properties, channel.link.client.configuration().frame_max())?;
        let (place, room) = (Problem::place(&parts), self.room(&parts, deadline).await?);
        let result = match channel.send(parts, room) {
            Ok(answered) => self.answer(answered, Instant::now()).await,
            Err(kept) => Err(Problem::NoChannel(error::told(&kept.0))),
        };
        result.map_err(|problem| problem.into_error(&place))
    }

    /// Fails where an exchange is known to be missing: a message to it would end its channel. The server is asked once for each.
    pub(crate) async fn require_exchange(&self, exchange: &str, key: &str) -> Result<(), PublishError> {
        let Some(link) = self.links.current().filter(|link| !exchange.is_empty() && !self.proof.has(link, exchange))
        else {
            return Ok(());
        };
        match timeout(self.limits.answer, proof::look(&link, exchange)).await {
            Ok(Ok(())) => {
                self.proof.note(&link, exchange);
                Ok(())
            }
            Ok(Err(failed)) if error::reply_code(&failed) == Some(404) => {
                let place = format!("exchange `{exchange}` with key `{key}`");
                Err(Problem::Refused(failed).into_error(&place))
            }
            // Whoever publishes hears of it.
            _ => Ok(()),
        }
    }

    /// Asks whether what an app will publish to is there: the exchange, or the queue of the default exchange.
    pub(crate) async fn check_destination(&self, outbound: &Outbound<'_>) -> Result<Existence, BrokerError> {
        proof::ask(&self.links, &self.limits, outbound).await
    }
}

/// A message that the client has.
enum Handed {
    /// The server has said already that it has it, too.
    Stored,
    Sent {
        answered: oneshot::Receiver<Answer>,
        channel: Arc<ConfirmChannel>,
        place: String,
        sent: Instant,
    },
}

/// What came of a publish that was to prove something.
enum Proved {
    Answered(Result<(), PublishError>),
    /// It is proved already: the message goes the shared way.
    Shared(Box<Parts>, OwnedSemaphorePermit),
}
