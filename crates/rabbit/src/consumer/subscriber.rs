use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use lapin::options::BasicCancelOptions;
use throughline_core::BrokerError;
use throughline_core::broker::{BrokerErrorKind, Received, Reception, Subscriber, Subscription};
use throughline_core::message::Source;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::info;

use super::caution::Caution;
use super::opening::{Active, Declared, Opening, is_final};
use crate::carrier::number;
use crate::connection::Connection;
use crate::error;
use crate::subscription::{Queue, StreamOffset};

/// How many messages are asked for at least, where the user does not say.
const LEAST_PREFETCH: usize = 16;

/// How many are asked for at most, where the user does not say.
const MOST_PREFETCH: usize = 2_000;

/// Receives from one queue, over one channel at a time. When it is lost, another one is opened, and all is declared again.
pub(super) struct RabbitSubscriber {
    opening: Opening,
    source: Arc<Source>,
    began: SystemTime,
    state: State,
    /// Messages of the last delivery the server allows, which are not handed back.
    kept: VecDeque<Received>,
}

enum State {
    /// Nobody has asked for messages; none where one who asked has gone.
    Declared(Option<Declared>),
    Opening(Task),
    Active(Box<Active>),
    Closed(Option<Box<Active>>),
}

/// A consumer in the making; it ends with the subscription.
struct Task(JoinHandle<Result<Active, BrokerError>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RabbitSubscriber {
    pub(super) async fn open(connection: &Arc<Connection>, subscription: &Subscription) -> Result<Self, BrokerError> {
        let Some(queue) = subscription.native::<Queue>() else {
            return Err(BrokerError::configuration("subscribe with `Queue`"));
        };
        let opening = Opening {
            connection: Arc::clone(connection),
            queue: Arc::new(queue.clone()),
            prefetch: prefetch(queue, 1),
            observer: None,
            goes_on: None,
            caution: Caution::default(),
        };
        let began = SystemTime::now();
        let declared = opening.declare().await?;
        queue.warn_of_losses();
        let source = Arc::new(queue.source(&connection.system, &declared.name));
        Ok(Self { opening, source, began, state: State::Declared(Some(declared)), kept: VecDeque::new() })
    }

    /// Makes the consumer again that delivers no more.
    fn renew(&mut self, ended: Option<lapin::Result<lapin::message::Delivery>>) {
        if let State::Active(active) = &self.state {
            active.session.end();
        }
        // A queue that goes with its connection takes the message along.
        let stays = !self.opening.queue.goes_with_connection();
        let is_unreadable = matches!(&ended, Some(Err(failed)) if error::is_unreadable(failed));
        self.opening.caution.lost(is_unreadable && stays);
        self.make_again(why_ended(ended));
    }

    /// Makes the consumer again, in a task of its own.
    fn make_again(&mut self, why: String) {
        self.note_place();
        self.state = State::Opening(Task(tokio::spawn(self.opening.clone().again(why))));
    }

    /// Notes where a stream goes on: at the first message that is not settled, or, where none has come, at the time of the start.
    fn note_place(&mut self) {
        let Some(from) = self.opening.queue.stream_offset() else { return };
        let next = match &self.state {
            State::Active(active) => active.session.next_offset(),
            _ => None,
        };
        self.opening.goes_on = next.map(StreamOffset::At).or(self.opening.goes_on).or(Some(from.since(self.began)));
    }

    /// Takes a message that came. One may be handed back instead, and come again on the connection of all.
    fn arrived(&mut self, message: lapin::message::Delivery) -> Option<Received> {
        let State::Active(active) = &mut self.state else { return None };
        let received = active.hand_out(message, self.opening.queue.acks_on_receipt());
        if !self.opening.caution.is_apart() {
            return Some(received);
        }
        if self.opening.caution.losses() > 0 {
            self.opening.tell(None);
        }
        // The server would not deliver one again that is at its last attempt.
        let must_stay = received.needs_settlement() && received.delivery.is_last_attempt();
        if !self.opening.caution.arrived(self.opening.prefetch) || must_stay {
            return Some(received);
        }
        self.note_place();
        let settled = Some(received).filter(|received| !received.needs_settlement());
        self.rejoin();
        settled
    }

    /// Goes on over the connection of all where no message is under way.
    fn rejoin_when_idle(&mut self) {
        match &self.state {
            State::Active(active) if active.session.is_idle() => {
                self.opening.tell(None);
                self.note_place();
                self.rejoin();
            }
            // It is looked at again later.
            _ => self.opening.caution.opened(),
        }
    }

    /// Goes on over the connection of all.
    fn rejoin(&mut self) {
        self.opening.caution = Caution::default();
        let State::Active(active) = std::mem::replace(&mut self.state, State::Closed(None)) else { return };
        info!(destination = %self.opening.queue, "a subscription returns to the connection of all");
        let opening = self.opening.clone();
        let left_until = Instant::now() + opening.connection.limits.answer;
        self.state = State::Opening(Task(tokio::spawn(async move {
            // What it has not settled comes again, however that ends.
            let _ = active.session.finish(left_until).await;
            drop(active);
            opening.make().await
        })));
    }

    /// Hands back what has come and nobody has begun with, and keeps what the server would not deliver again.
    fn hand_back_rest(&mut self) {
        let State::Closed(Some(active)) = &mut self.state else { return };
        while let Some(Some(Ok(message))) = active.consumer.next().now_or_never() {
            let received = active.hand_out(message, false);
            // One that is dropped is handed back.
            if received.delivery.is_last_attempt() {
                self.kept.push_back(received);
            }
        }
    }

    /// Returns a message that has waited for its next attempt.
    fn again(&self) -> Option<Received> {
        let State::Active(active) = &self.state else { return None };
        let again = active.session.take_again()?;
        Some(Received::new(again.delivery).with_settle(Arc::clone(&active.session) as _, again.tag))
    }
}

fn ended() -> BrokerError {
    BrokerError::new(BrokerErrorKind::Ended, error::OTHER, "the subscription has ended")
}

/// Says why a consumer delivers no more.
fn why_ended(ended: Option<lapin::Result<lapin::message::Delivery>>) -> String {
    match ended {
        Some(Err(failed)) => error::told(&failed),
        _ => "the server has cancelled it: the queue was deleted or moved, or its channel closed".to_owned(),
    }
}

/// Returns the place of a message in a stream.
fn offset(message: &lapin::message::Delivery) -> Option<u64> {
    message.properties.headers().as_ref()?.inner().get("x-stream-offset").and_then(number)
}

impl Active {
    /// Hands a message out.
    fn hand_out(&mut self, message: lapin::message::Delivery, is_settled: bool) -> Received {
        let (tag, offset) = (message.delivery_tag, offset(&message));
        let received = Received::new(self.reading.read(message));
        self.session.deliver(tag, offset);
        if is_settled {
            self.session.note_ack(tag);
            return received;
        }
        received.with_settle(Arc::clone(&self.session) as _, tag)
    }
}

/// How many messages the server may hand over before they are settled: what the user says, else enough for the handlers.
fn prefetch(queue: &Queue, at_once: usize) -> u16 {
    let own = || u16::try_from((at_once * 2).clamp(LEAST_PREFETCH, MOST_PREFETCH)).unwrap_or(u16::MAX);
    queue.chosen_prefetch().unwrap_or_else(own)
}

#[async_trait]
impl Subscriber for RabbitSubscriber {
    fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    fn redelivers(&self) -> bool {
        !self.opening.queue.acks_on_receipt() && !self.opening.queue.is_stream()
    }

    fn prepare(&mut self, reception: Reception) {
        let at_once = reception.messages_at_once().max(reception.requests_at_once());
        self.opening.prefetch = prefetch(&self.opening.queue, at_once);
        self.opening.observer = Some(Arc::clone(reception.observer()));
    }

    async fn begin(&mut self) -> Result<(), BrokerError> {
        let State::Declared(declared) = &mut self.state else { return Ok(()) };
        let Some(declared) = declared.take().filter(|declared| declared.channel.status().connected()) else {
            self.make_again("the connection was lost before it began".to_owned());
            return Ok(());
        };
        match self.opening.consume(declared).await {
            Ok(active) => self.state = State::Active(Box::new(active)),
            Err(failed) if is_final(&failed) => return Err(failed),
            Err(failed) => self.make_again(failed.to_string()),
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        self.begin().await?;
        loop {
            if let Some(again) = self.again() {
                return Ok(again);
            }
            match &mut self.state {
                State::Declared(_) | State::Closed(_) => {
                    return Err(ended());
                }
                State::Opening(task) => {
                    let opened = (&mut task.0).await;
                    let no_runtime =
                        |_| BrokerError::new(BrokerErrorKind::Ended, error::OTHER, "the runtime has ended");
                    match opened.map_err(no_runtime).and_then(std::convert::identity) {
                        Ok(active) => {
                            self.opening.caution.opened();
                            self.state = State::Active(Box::new(active));
                        }
                        Err(failed) => {
                            self.state = State::Closed(None);
                            return Err(failed);
                        }
                    }
                }
                State::Active(active) => {
                    let quiet_at = self.opening.caution.quiet_at().unwrap_or_else(Instant::now);
                    let next = tokio::select! {
                        biased;
                        () = active.session.again.notified() => continue,
                        next = active.consumer.next() => next,
                        () = self.opening.connection.consuming.closed(), if self.opening.caution.is_apart() => return Err(ended()),
                        () = sleep_until(quiet_at), if self.opening.caution.is_apart() => {
                            self.rejoin_when_idle();
                            continue;
                        }
                    };
                    match next {
                        Some(Ok(message)) => {
                            if let Some(received) = self.arrived(message) {
                                return Ok(received);
                            }
                        }
                        ended => self.renew(ended),
                    }
                }
            }
        }
    }

    fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        if let Some(again) = self.again() {
            return Some(Ok(again));
        }
        let State::Active(active) = &mut self.state else { return None };
        // An end is `receive`'s to heal: what says so is not lost, since the channel tells it again.
        if active.session.is_over() {
            return None;
        }
        match active.consumer.next().now_or_never()? {
            Some(Ok(message)) => self.arrived(message).map(Ok),
            ended => {
                self.renew(ended);
                None
            }
        }
    }

    async fn close(&mut self, deadline: Instant) {
        let State::Active(active) = std::mem::replace(&mut self.state, State::Closed(None)) else { return };
        if self.opening.queue.is_single_active() {
            // The server would go on with the next consumer at once, and with what is handed back after that.
            active.session.give_back_at_end();
        } else if !active.session.is_over() {
            let cancelling = active.session.channel.basic_cancel(active.consumer.tag(), BasicCancelOptions::default());
            let _ = timeout_at(deadline, cancelling).await;
        }
        let session = Arc::clone(&active.session);
        self.state = State::Closed(Some(active));
        self.hand_back_rest();
        session.hand_back_held();
    }

    async fn drain(&mut self) -> Option<Received> {
        if self.kept.is_empty() {
            self.hand_back_rest();
        }
        self.kept.pop_front()
    }

    async fn finish(&mut self, deadline: Instant) -> Result<(), BrokerError> {
        match std::mem::replace(&mut self.state, State::Closed(None)) {
            State::Closed(Some(active)) | State::Active(active) => active.session.finish(deadline).await,
            _ => Ok(()),
        }
    }
}
