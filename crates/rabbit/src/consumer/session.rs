use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use throughline_core::broker::{BoxFuture, BrokerErrorKind, Received, Seldom, Settle, done};
use throughline_core::{BrokerError, Delivery, Failure, Settlement};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;

use super::copies::Copies;
use super::held::{Again, Held};
use super::tags::{Ack, Tags};
use crate::error::{self, CONNECTION_LOST};

/// Up to which delay a message waits in the service and not in a queue.
pub(super) const SHORT: Duration = Duration::from_secs(10);

/// How long a message waits in the service at most: a server gives up a channel where a message is not settled for half an hour.
const LONGEST_HOLD: Duration = Duration::from_secs(15 * 60);

/// How long a message waits at least that its handler asks for again at once, and how long at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One channel with a consumer, until it ends: what it has delivered, and what the server is told of it.
///
/// Messages are settled over the channel, in order. The client's handle on a message settles in a task of its own, so that one
/// acknowledgement of many would overtake a rejection, which ends the channel.
pub(super) struct Session {
    pub(super) channel: Channel,
    pub(super) place: Place,
    state: Mutex<State>,
    /// Something is to be sent, or is due earlier, or nobody needs the session any more.
    changed: Arc<Notify>,
    /// A message is ready to be handed out again.
    pub(super) again: Notify,
    has_ended: AtomicBool,
    /// Whether what is not settled goes back with the channel, and not before.
    goes_back_at_end: AtomicBool,
    /// How many settlements came too late.
    late: AtomicU64,
}

/// What is the same for all channels of a subscription.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) queue: Arc<str>,
    pub(super) copies: Option<Arc<Copies>>,
    /// Whether the server counts how often it delivers.
    pub(super) counts: bool,
    /// How many messages may wait here for their next attempt.
    pub(super) most_held: usize,
}

#[derive(Default)]
struct State {
    tags: Tags,
    held: Held,
    /// Of a stream, the places of the messages that are not settled, by their tags.
    offsets: BTreeMap<u64, u64>,
    /// Of a stream, the place behind the last message.
    next_offset: Option<u64>,
    /// Why the attempt failed that is to be tried again.
    causes: HashMap<u64, Arc<str>>,
    /// Copies that could not be published.
    no_copies: Seldom,
}

impl State {
    /// Settles a message, and forgets what was known of it; false where it was settled before.
    fn forget(&mut self, tag: u64, settle: impl FnOnce(&mut Tags, u64) -> bool) -> bool {
        self.offsets.remove(&tag);
        self.causes.remove(&tag);
        settle(&mut self.tags, tag)
    }
}

impl Session {
    pub(super) fn start(channel: Channel, place: Place) -> Arc<Self> {
        let (changed, again) = (Arc::new(Notify::new()), Notify::new());
        let (has_ended, goes_back_at_end) = <(AtomicBool, AtomicBool)>::default();
        let (state, late, woken) = (Mutex::default(), AtomicU64::new(0), Arc::clone(&changed));
        let session =
            Arc::new(Self { channel, place, state, changed: woken, again, has_ended, goes_back_at_end, late });
        tokio::spawn(keep(Arc::downgrade(&session), changed));
        session
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a message that came, with its place in a stream.
    pub(super) fn deliver(&self, tag: u64, offset: Option<u64>) {
        let mut state = self.lock();
        state.tags.deliver(tag);
        if let Some(offset) = offset {
            state.offsets.insert(tag, offset);
            state.next_offset = Some(offset.saturating_add(1));
        }
    }

    /// Returns where a stream goes on: with the first message that is not settled. What is behind it comes again.
    pub(super) fn next_offset(&self) -> Option<u64> {
        let state = self.lock();
        state.offsets.values().min().copied().or(state.next_offset)
    }

    /// Tells whether all messages are settled that came.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().tags.is_empty()
    }

    pub(super) fn is_over(&self) -> bool {
        self.has_ended.load(Ordering::Acquire) || !self.channel.status().connected()
    }

    /// Notes that the channel is not used any more. What is not settled comes again.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    pub(super) fn take_again(&self) -> Option<Again> {
        self.lock().held.take_ready()
    }

    /// Returns whether one more may wait here.
    fn has_place(&self) -> bool {
        self.lock().held.len() < self.place.most_held
    }

    /// Writes what was noted. The frames of the client are in the order of the calls, which the lock keeps.
    fn flush(&self, state: &mut State) {
        for Ack { tag, multiple } in state.tags.take_acks() {
            write(self.channel.basic_ack(tag, BasicAckOptions { multiple }));
        }
    }

    /// Gives a message up, or lets the server count a failed attempt and deliver it again.
    fn reject(&self, tag: u64, requeue: bool) {
        self.tell(tag, || write(self.channel.basic_reject(tag, BasicRejectOptions { requeue })));
    }

    /// Hands a message back that nobody has begun with.
    pub(super) fn hand_back(&self, tag: u64) {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        self.tell(tag, || write(self.channel.basic_nack(tag, options)));
    }

    /// Tells the server of a message once, after what was noted before.
    fn tell(&self, tag: u64, frame: impl FnOnce()) {
        let mut state = self.lock();
        if state.forget(tag, Tags::tell) {
            self.flush(&mut state);
            frame();
        }
    }

    /// Keeps what is not settled until the channel ends: the server gives it back in its order then, before it goes on with the next consumer.
    pub(super) fn give_back_at_end(&self) {
        self.goes_back_at_end.store(true, Ordering::Release);
    }

    /// Hands back what waits for its next attempt: the server is to count that of a quorum queue.
    pub(super) fn hand_back_held(&self) {
        let (counted, others) = self.lock().held.take_all();
        if self.goes_back_at_end.load(Ordering::Acquire) {
            return;
        }
        counted.into_iter().for_each(|tag| self.reject(tag, true));
        others.into_iter().for_each(|tag| self.hand_back(tag));
    }

    /// Holds a message until its next attempt.
    fn hold(&self, message: &Received, delay: Duration, cause: Option<Arc<str>>) {
        let again = (!self.place.counts).then(|| {
            let attempt = message.delivery.attempt().saturating_add(1);
            let again = message.delivery.clone().with_attempt(attempt);
            match cause {
                Some(cause) => again.with_retry_cause(cause),
                None => again,
            }
        });
        self.lock().held.hold(message.tag, Instant::now() + delay, again);
        self.changed.notify_one();
    }

    async fn retry(&self, message: &Received, after: Option<Duration>) -> Result<(), BrokerError> {
        let cause = self.lock().causes.remove(&message.tag);
        let mut delay = after.filter(|delay| !delay.is_zero()).unwrap_or_else(|| pause(&message.delivery));
        if let Some(copies) = self.place.copies.as_ref().filter(|_| delay > SHORT || !self.has_place()) {
            match copies.send(&message.delivery, delay, cause.as_deref()).await {
                Ok(()) if self.is_over() => return Err(self.too_late(message)),
                Ok(()) => {
                    self.note_ack(message.tag);
                    return Ok(());
                }
                Err(failed) => self.report_no_copy(message, &failed),
            }
            delay = delay.min(SHORT);
        }
        self.hold(message, delay.min(LONGEST_HOLD), cause);
        Ok(())
    }

    /// Notes an acknowledgement, which is written with all others that are there.
    pub(super) fn note_ack(&self, tag: u64) {
        if self.lock().forget(tag, Tags::ack) {
            self.changed.notify_one();
        }
    }

    /// Tells that a copy could not be published: in an outage, which many messages share, not of each.
    fn report_no_copy(&self, message: &Received, failed: &BrokerError) {
        let Some(count) = self.lock().no_copies.note(1) else { return };
        warn!(
            destination = message.delivery.destination(),
            group = &*self.place.queue,
            attempt = message.delivery.attempt(),
            cause = %failed,
            count,
            "a message could not be put into its delay queue: it waits in the service"
        );
    }

    /// Writes what was noted, and passes on what is due.
    fn catch_up(&self) {
        let of_server = {
            let mut state = self.lock();
            self.flush(&mut state);
            let of_server = state.held.pass(Instant::now());
            if state.held.has_ready() {
                self.again.notify_one();
            }
            of_server
        };
        of_server.into_iter().for_each(|tag| self.reject(tag, true));
    }

    fn too_late(&self, message: &Received) -> BrokerError {
        if self.late.fetch_add(1, Ordering::Relaxed) == 0 {
            warn!(
                destination = message.delivery.destination(),
                group = &*self.place.queue,
                attempt = message.delivery.attempt(),
                "a message was settled after its channel had ended: it is delivered again"
            );
        }
        BrokerError::new(
            BrokerErrorKind::Disconnected,
            CONNECTION_LOST,
            format!(
                "the channel of queue `{}` has ended before the message was settled: it is delivered again",
                self.place.queue
            ),
        )
    }

    /// Writes all that was noted, and waits until the server has read it.
    pub(super) async fn finish(&self, deadline: Instant) -> Result<(), BrokerError> {
        let is_over = self.is_over();
        self.flush(&mut self.lock());
        self.end();
        if is_over {
            return Ok(());
        }
        let doing = || format!("settle the last messages of queue `{}`", self.place.queue);
        match timeout_at(deadline, self.channel.close(200, "the subscription ends".into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failed)) => Err(error::broker(&failed, &doing())),
            Err(_) => Err(error::unanswered(&doing())),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.changed.notify_one();
        let late = *self.late.get_mut();
        if late > 1 {
            warn!(
                group = &*self.place.queue,
                late, "messages were settled after their channel had ended: they are delivered again"
            );
        }
    }
}

/// Gives a frame to the client, which takes it with the first poll.
fn write(frame: impl Future) {
    let _ = pin!(frame).poll(&mut Context::from_waker(Waker::noop()));
}

/// Returns how long a message waits that is asked for again without a delay, so that nothing spins.
fn pause(delivery: &Delivery) -> Duration {
    let doublings = delivery.attempt().saturating_sub(1).min(8);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// Writes acknowledgements, many at a time, and makes ready what has waited, as long as somebody has the session.
async fn keep(session: Weak<Session>, changed: Arc<Notify>) {
    loop {
        let Some(due) = session.upgrade().map(|session| session.lock().held.next_due()) else { return };
        tokio::select! {
            () = changed.notified() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        let Some(session) = session.upgrade() else { return };
        session.catch_up();
    }
}

#[async_trait]
impl Settle for Session {
    /// Notes an acknowledgement, which is written at once with all others that are there; the rest is written in the call.
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        if self.is_over() {
            return Box::pin(std::future::ready(Err(self.too_late(message))));
        }
        match settlement {
            Settlement::Ack => {
                self.note_ack(message.tag);
                done()
            }
            Settlement::Reject { .. } => {
                self.reject(message.tag, false);
                done()
            }
            Settlement::Retry { after } => Box::pin(self.retry(message, *after)),
            other => {
                self.reject(message.tag, true);
                let text = format!("RabbitMQ does not know {other:?}: acknowledge, reject or retry");
                let failed = BrokerError::new(BrokerErrorKind::Unsupported, "unsupported", text);
                Box::pin(std::future::ready(Err(failed)))
            }
        }
    }

    fn is_withdrawn(&self, _message: &Received) -> bool {
        self.is_over()
    }

    fn abandon(&self, message: &Received) {
        if !self.is_over() && !self.goes_back_at_end.load(Ordering::Acquire) {
            self.hand_back(message.tag);
        }
    }

    fn failed(&self, message: &Received, failure: &Failure, next: &Settlement) {
        if matches!(next, Settlement::Retry { .. }) {
            self.lock().causes.insert(message.tag, failure.error_type().into());
        }
    }
}
