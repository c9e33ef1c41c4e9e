use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Mutex;
use tokio::task::unconstrained;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::losses::Losses;
use crate::status::{Statuses, is_status};

/// How often what has arrived is looked through while the handlers are busy. The client holds 65,536 messages meanwhile, and drops
/// what is more without a word to the subscription.
const LOOK: Duration = Duration::from_millis(20);

/// The messages of a subscription to core NATS that have arrived and that nobody took yet, up to a limit of its own.
pub(crate) struct Backlog {
    subscriber: async_nats::Subscriber,
    ready: VecDeque<Message>,
    limit: usize,
    losses: Arc<Losses>,
    statuses: Statuses,
}

impl Backlog {
    pub(crate) fn new(subscriber: async_nats::Subscriber, limit: usize, losses: Arc<Losses>) -> Self {
        Self { subscriber, ready: VecDeque::new(), limit: limit.max(1), losses, statuses: Statuses::default() }
    }

    /// Goes on with another subscription, after what has arrived on the one before.
    pub(crate) fn replace(&mut self, subscriber: async_nats::Subscriber) {
        self.take_arrived();
        self.subscriber = subscriber;
    }

    /// Waits for the next message; `None` when the client's subscription has ended. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.ready.pop_front() {
            return Some(message);
        }
        loop {
            let arrived = self.subscriber.next().await?;
            if !is_status(&arrived) {
                return Some(arrived);
            }
            self.statuses.note(&arrived);
        }
    }

    /// Tells the server that no more is wanted. What was sent before still arrives.
    pub(crate) async fn stop(&mut self) {
        // Fails only when the connection is gone, and the subscription with it.
        let _ = self.subscriber.drain().await;
    }

    /// Waits for the next message until a time.
    pub(crate) async fn next_until(&mut self, deadline: Instant) -> Option<Message> {
        if let Some(message) = self.ready.pop_front() {
            return Some(message);
        }
        timeout(deadline.saturating_duration_since(Instant::now()), self.next()).await.ok().flatten()
    }

    /// Takes in what has arrived without waiting. What is over the limit is dropped, and told of.
    fn take_arrived(&mut self) {
        let mut dropped = 0;
        // Unconstrained: else tokio lets a task take 128 messages and then says that there are none.
        while let Some(Some(arrived)) = unconstrained(self.subscriber.next()).now_or_never() {
            if is_status(&arrived) {
                self.statuses.note(&arrived);
            } else if self.ready.len() < self.limit {
                self.ready.push_back(arrived);
            } else {
                dropped += 1;
            }
        }
        self.losses.no_room(dropped);
    }
}

impl Drop for Backlog {
    /// What nobody took is lost, and the end of the subscription is where one would not look for it.
    fn drop(&mut self) {
        self.take_arrived();
        self.losses.ended(self.ready.len() as u64);
    }
}

/// Empties the client's own buffer while nobody receives, for as long as the subscription lives.
pub(crate) async fn keep(backlog: Arc<Mutex<Backlog>>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        // When `receive` has it, it waits, and nothing is there.
        if let Ok(mut backlog) = backlog.try_lock() {
            backlog.take_arrived();
        }
    }
}
