mod channel;
mod confirms;
mod failure;
mod fingerprint;
mod open;
mod problem;
mod proof;
mod publisher;
mod silence;
mod written;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::ShortString;
use throughline_core::BrokerError;
use throughline_core::broker::{BoxFuture, BrokerErrorKind, ConnectionState, Existence, Outbound};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub(crate) use self::channel::ConfirmChannel;
use self::confirms::Answered;
pub use self::failure::PublishFailure;
use self::open::Answer;
pub(crate) use self::problem::{Problem, return_type};
use self::proof::Proof;
pub(crate) use self::publisher::{RabbitPublisher, target};
use crate::destination::Address;
use crate::error;
use crate::link::{Link, Links};
use crate::names::{TooLong, short};
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
    pub(crate) exchange: ShortString,
    pub(crate) key: ShortString,
    /// Whether it comes back when no queue takes it.
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

impl Outgoing {
    pub(crate) fn new(to: Address<'_>, properties: BasicProperties, body: Bytes) -> Result<Self, TooLong> {
        let (exchange, key) = (short("exchange", to.exchange)?, short("routing key", to.key)?);
        Ok(Self { exchange, key, mandatory: true, properties, body })
    }

    /// Tells whether the server may refuse it wherever it goes: it is too large, or for another user.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.body.len() > LARGE || self.properties.user_id().is_some()
    }
}

/// What came of handing a message over.
enum Handed {
    /// It went alone, and the server has answered.
    Answered(Result<(), Problem>),
    /// It goes with others.
    Sent { answered: Answered, channel: Arc<ConfirmChannel> },
}

/// What came of one attempt to hand a message over.
enum Tried {
    Handed(Handed),
    /// Nothing was sent: it is tried again, after a pause where a channel could not be opened.
    Again(Box<Outgoing>, OwnedSemaphorePermit, Option<BrokerError>),
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

    /// Publishes one message: the call hands it to the client, where it need not wait, and the future ends when the server has confirmed
    /// that a queue has it.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have published.
    pub(crate) fn publish(&self, message: Outgoing) -> impl Future<Output = Result<(), Problem>> + Send + use<'_> {
        // What waits does not hold the message: it would be twice the size, and the client has it by then.
        let handed = self.hand_over_at_once(message);
        async move {
            let handed = match handed {
                Ok(handed) => handed,
                Err(message) => self.hand_over_boxed(message, self.deadline()).await?,
            };
            self.outcome(handed).await
        }
    }

    /// Publishes messages in their order, all under way at the same time. One is handed over after the other: calls that wait side by side
    /// for the proof of an exchange, or for the channel, overtake each other. Each may wait; once one has waited in vain, the others do not.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have published any of them.
    pub(crate) async fn publish_in_order(
        &self,
        messages: impl Iterator<Item = Result<Outgoing, Problem>>,
    ) -> Vec<Result<(), Problem>> {
        let mut deadline = None;
        let mut all = Vec::with_capacity(messages.size_hint().0);
        for message in messages {
            let handed = match message {
                Ok(message) => self.hand_over(message, &mut deadline).await,
                Err(wrong) => Err(wrong),
            };
            if handed.is_ok() {
                deadline = None;
            }
            all.push(handed);
        }
        let mut results = Vec::with_capacity(all.len());
        for handed in all {
            results.push(match handed {
                Ok(handed) => self.outcome(handed).await,
                Err(problem) => Err(problem),
            });
        }
        results
    }

    /// Returns until when a message that is published now may wait.
    fn deadline(&self) -> Instant {
        Instant::now() + self.limits.publish_wait
    }

    /// Waits for what the server says of a message.
    async fn outcome(&self, handed: Handed) -> Result<(), Problem> {
        let (answered, channel) = match handed {
            Handed::Answered(result) => return result,
            Handed::Sent { answered, channel } => (answered, channel),
        };
        let result = self.answer(answered, &channel).await;
        if let Err(Problem::Unknown(_)) = &result {
            self.proof.forget_if_closed(&channel);
        }
        result
    }

    /// Gives a message to the client. Where it has to wait, it does so until the deadline, which is set then.
    async fn hand_over(&self, message: Outgoing, deadline: &mut Option<Instant>) -> Result<Handed, Problem> {
        match self.hand_over_at_once(message) {
            Ok(handed) => Ok(handed),
            Err(message) => {
                let deadline = *deadline.get_or_insert_with(|| self.deadline());
                self.hand_over_boxed(message, deadline).await
            }
        }
    }

    /// Gives a message to the client if there is room for it and a channel that takes it, as nearly always; else gives it back.
    fn hand_over_at_once(&self, message: Outgoing) -> Result<Handed, Box<Outgoing>> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let takes_it = |channel: &Arc<ConfirmChannel>| {
            self.links.is_usable(&channel.link) && self.proof.has(&channel.link, message.exchange.as_str())
        };
        let Some(channel) = shared.filter(takes_it) else { return Err(Box::new(message)) };
        let frame_max = channel.link.client.configuration().frame_max();
        if message.is_doubtful() || size::check(&message.properties, frame_max).is_err() {
            return Err(Box::new(message));
        }
        let Ok(room) = self.room.try_acquire() else { return Err(Box::new(message)) };
        let answered = channel.send(message)?;
        room.forget();
        Ok(Handed::Sent { answered, channel })
    }

    /// As [`hand_over_later`](Self::hand_over_later), in a box: what calls it would have its size each time.
    fn hand_over_boxed(&self, message: Box<Outgoing>, deadline: Instant) -> BoxFuture<'_, Result<Handed, Problem>> {
        Box::pin(self.hand_over_later(*message, deadline))
    }

    /// Gives a message to the client, once there is room for it and a channel that may take it.
    async fn hand_over_later(&self, mut message: Outgoing, deadline: Instant) -> Result<Handed, Problem> {
        const PAUSE: Duration = Duration::from_millis(50);
        let is_doubtful = message.is_doubtful();
        let mut room = self.room(deadline).await?;
        loop {
            let link = self.link(deadline).await?;
            size::check(&message.properties, link.client.configuration().frame_max())?;
            let tried = if is_doubtful || !self.proof.has(&link, message.exchange.as_str()) {
                self.prove(&link, message, room, is_doubtful).await?
            } else {
                self.share(&link, message, room).await
            };
            let failed = match tried {
                Tried::Handed(handed) => return Ok(handed),
                Tried::Again(kept, kept_room, failed) => {
                    (message, room) = (*kept, kept_room);
                    failed
                }
            };
            if let Some(failed) = failed {
                // That there is no channel left does not pass by itself.
                if failed.kind() == BrokerErrorKind::Configuration || Instant::now() + PAUSE >= deadline {
                    return Err(Problem::NoChannel(failed));
                }
                sleep(PAUSE).await;
            }
        }
    }

    /// Waits for room among the publishes that are not confirmed.
    async fn room(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Problem> {
        if let Ok(room) = Arc::clone(&self.room).try_acquire_owned() {
            return Ok(room);
        }
        match timeout_at(deadline, Arc::clone(&self.room).acquire_owned()).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(Problem::NoRoom(self.limits.unconfirmed, self.limits.publish_wait)),
        }
    }

    async fn open(&self, link: &Arc<Link>) -> Result<ConfirmChannel, BrokerError> {
        ConfirmChannel::open(link, &self.limits, &self.room).await
    }

    /// Waits for a connection that takes messages.
    async fn link(&self, deadline: Instant) -> Result<Arc<Link>, Problem> {
        let wait = self.limits.publish_wait;
        if let Some(link) = self.links.current().filter(|_| !self.links.is_blocked()) {
            return Ok(link);
        }
        let link = match timeout_at(deadline, self.links.connected()).await {
            Ok(Ok(link)) => link,
            Ok(Err(_)) => return Err(Problem::Closed),
            Err(_) => return Err(Problem::NoConnection(wait)),
        };
        match timeout_at(deadline, self.links.unblocked()).await {
            Ok(()) => Ok(link),
            Err(_) => Err(Problem::Blocked(wait)),
        }
    }

    /// Sends a message over the channel of all.
    async fn share(&self, link: &Arc<Link>, message: Outgoing, room: OwnedSemaphorePermit) -> Tried {
        let channel = match self.shared_channel(link).await {
            Ok(channel) => channel,
            Err(failed) => return Tried::Again(Box::new(message), room, Some(failed)),
        };
        match channel.send(message) {
            Ok(answered) => {
                room.forget();
                Tried::Handed(Handed::Sent { answered, channel })
            }
            Err(message) => Tried::Again(message, room, None),
        }
    }

    async fn shared_channel(&self, link: &Arc<Link>) -> Result<Arc<ConfirmChannel>, BrokerError> {
        let current = || {
            let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.as_ref().filter(|channel| channel.is_usable_on(link)).cloned()
        };
        if let Some(channel) = current() {
            return Ok(channel);
        }
        let _opening = self.opening.lock().await;
        if let Some(channel) = current() {
            return Ok(channel);
        }
        let channel = Arc::new(self.open(link).await?);
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&channel));
        Ok(channel)
    }

    /// Publishes a message alone, where it is not known that the server takes it. What another one has proved meanwhile is not.
    async fn prove(
        &self,
        link: &Arc<Link>,
        message: Outgoing,
        room: OwnedSemaphorePermit,
        is_doubtful: bool,
    ) -> Result<Tried, Problem> {
        // Each before it waits for its own confirmation.
        let wait = self.limits.publish_wait.max(self.limits.confirm);
        let mut alone = timeout(wait, self.proof.alone.lock()).await.map_err(|_| Problem::NoTurn(wait))?;
        if !is_doubtful && self.proof.has(link, message.exchange.as_str()) {
            return Ok(Tried::Again(Box::new(message), room, None));
        }
        let channel = match alone.take().filter(|channel| channel.is_usable_on(link)) {
            Some(channel) => channel,
            None => match self.open(link).await {
                Ok(channel) => channel,
                Err(failed) => return Ok(Tried::Again(Box::new(message), room, Some(failed))),
            },
        };
        let exchange = message.exchange.clone();
        let answered = match channel.send(message) {
            Ok(answered) => answered,
            Err(message) => return Ok(Tried::Again(message, room, None)),
        };
        room.forget();
        let result = self.answer_alone(answered, &channel, &exchange).await;
        *alone = Some(channel).filter(ConfirmChannel::is_usable);
        Ok(Tried::Handed(Handed::Answered(result)))
    }

    /// Waits for the answer to a message that went alone, and notes what it proves.
    async fn answer_alone(
        &self,
        answered: Answered,
        channel: &ConfirmChannel,
        exchange: &ShortString,
    ) -> Result<(), Problem> {
        let result = self.answer(answered, channel).await.map_err(Problem::alone);
        if matches!(&result, Ok(()) | Err(Problem::Returned { .. } | Problem::Nacked)) {
            self.proof.note(&channel.link, exchange.as_str());
        }
        result
    }

    /// Waits for the answer to one message that was sent on a channel.
    async fn answer(&self, answered: Answered, channel: &ConfirmChannel) -> Result<(), Problem> {
        match answered.await {
            Ok(Answer::Stored) => Ok(()),
            Ok(Answer::Returned { code, text }) => Err(Problem::Returned { code, text }),
            Ok(Answer::Refused) => Err(Problem::Nacked),
            Ok(Answer::Unknown(failed)) => Err(Problem::Unknown(failed)),
            Err(late) => {
                if late.is_silent {
                    silence::leave(channel, &self.links, self.limits);
                }
                Err(Problem::Unconfirmed(self.limits.confirm))
            }
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
        self.open(&link).await
    }

    /// Publishes on such a channel, which the server closes where it refuses the message.
    pub(crate) async fn publish_on(
        &self,
        channel: &ConfirmChannel,
        message: Outgoing,
        is_alone: bool,
    ) -> Result<(), Problem> {
        size::check(&message.properties, channel.link.client.configuration().frame_max())?;
        let room = self.room(self.deadline()).await?;
        let exchange = message.exchange.clone();
        let answered = channel.send(message).map_err(|_| Problem::ChannelEnded)?;
        room.forget();
        if is_alone {
            return self.answer_alone(answered, channel, &exchange).await;
        }
        let result = self.answer(answered, channel).await;
        if let Err(Problem::Unknown(_)) = &result {
            self.proof.forget_if_closed(channel);
        }
        result
    }

    /// Tells whether the server is known to take messages for an exchange.
    pub(crate) fn is_proved(&self, exchange: &ShortString) -> bool {
        self.links.current().is_some_and(|link| self.proof.has(&link, exchange.as_str()))
    }

    /// Asks whether what an app will publish to is there: the exchange, or the queue of the default exchange.
    pub(crate) async fn check_destination(&self, outbound: &Outbound<'_>) -> Result<Existence, BrokerError> {
        proof::ask(&self.links, &self.limits, outbound).await
    }
}
