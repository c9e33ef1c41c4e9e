use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::settle::extend_all;
use super::work::Work;
use crate::broker::{BatchPolicy, BrokerError, Received, Subscriber};
use crate::later::later;
use crate::log::SubscriptionLog;

/// Collects messages until a batch is full or its first message has waited long enough. Without a policy every message is one unit.
pub(super) struct Batcher {
    policy: Option<BatchPolicy>,
    log: Arc<SubscriptionLog>,
    pending: Vec<Received>,
    deadline: Option<Instant>,
    /// When the broker wants to hear of what is collected, where it does.
    beat: Option<Instant>,
    /// Whether the log says that the broker could not be told.
    is_reported: bool,
}

impl Batcher {
    pub(super) const fn new(policy: Option<BatchPolicy>, log: Arc<SubscriptionLog>) -> Self {
        Self { policy, log, pending: Vec::new(), deadline: None, beat: None, is_reported: false }
    }

    /// Returns the next unit of work if it is complete with what is here already.
    #[inline]
    pub(super) fn try_next(&mut self, subscriber: &mut dyn Subscriber) -> Option<Result<Work, BrokerError>> {
        if self.policy.is_none() {
            return subscriber.try_receive().map(|received| received.map(Work::Single));
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return self.take().map(Ok);
        }
        loop {
            match subscriber.try_receive()? {
                Ok(received) => {
                    if let Some(work) = self.push(received) {
                        return Some(Ok(work));
                    }
                }
                Err(ended) => return Some(Err(ended)),
            }
        }
    }

    /// Waits for the next unit of work, and meanwhile tells the broker that what is collected is still wanted: a batch may be collected
    /// for longer than the broker waits for a settlement. Cancel safe: what is collected stays here.
    // SPAN-34.
    pub(super) async fn next(&mut self, subscriber: &mut dyn Subscriber) -> Result<Work, BrokerError> {
        loop {
            let now = Instant::now();
            if self.beat.is_some_and(|beat| beat <= now) {
                self.keep().await;
            }
            let received = match self.deadline {
                None => subscriber.receive().await?,
                Some(deadline) => {
                    let until = self.beat.map_or(deadline, |beat| beat.min(deadline));
                    match timeout_at(until, subscriber.receive()).await {
                        Ok(received) => received?,
                        Err(_) if until < deadline => continue,
                        Err(_) => return Ok(Work::Batch(self.take_pending())),
                    }
                }
            };
            if let Some(work) = self.push(received) {
                return Ok(work);
            }
            if let Some(work) = self.try_next(subscriber) {
                return work;
            }
        }
    }

    /// Adds a message and returns the unit of work it completes, if it does.
    pub(super) fn push(&mut self, received: Received) -> Option<Work> {
        let Some(policy) = self.policy else { return Some(Work::Single(received)) };
        let is_last = received.ends_batch() || self.pending.len() + 1 >= policy.max_messages;
        if self.pending.is_empty() {
            self.deadline = Some(later(policy.max_wait));
            self.beat = received.heartbeat().map(later);
        }
        self.pending.push(received);
        is_last.then(|| Work::Batch(self.take_pending()))
    }

    /// Returns what is collected so far.
    pub(super) fn take(&mut self) -> Option<Work> {
        (!self.pending.is_empty()).then(|| Work::Batch(self.take_pending()))
    }

    /// The first message says for all how often: they are of one subscription.
    async fn keep(&mut self) {
        self.beat = self.pending.first().and_then(Received::heartbeat).map(later);
        extend_all(&self.log, &self.pending, &mut self.is_reported).await;
    }

    fn take_pending(&mut self) -> Vec<Received> {
        (self.deadline, self.beat) = (None, None);
        std::mem::take(&mut self.pending)
    }
}
