use tokio::time::{Instant, timeout_at};

use crate::broker::{BatchPolicy, BrokerError, Received, Subscriber};

/// Collects messages until a batch is full or its first message has waited long enough. Without a policy every message is one unit.
pub(super) struct Batcher {
    policy: Option<BatchPolicy>,
    pending: Vec<Received>,
    deadline: Option<Instant>,
}

impl Batcher {
    pub(super) const fn new(policy: Option<BatchPolicy>) -> Self {
        Self { policy, pending: Vec::new(), deadline: None }
    }

    pub(super) const fn is_batch(&self) -> bool {
        self.policy.is_some()
    }

    /// Waits for the next unit of work. Cancel safe: what is collected stays here.
    pub(super) async fn next(&mut self, subscriber: &mut dyn Subscriber) -> Result<Vec<Received>, BrokerError> {
        loop {
            let received = match self.deadline {
                None => subscriber.receive().await?,
                Some(deadline) => match timeout_at(deadline, subscriber.receive()).await {
                    Ok(received) => received?,
                    Err(_) => return Ok(self.take()),
                },
            };
            if let Some(full) = self.push(received) {
                return Ok(full);
            }
        }
    }

    /// Adds a message and returns the unit of work it completes, if it does.
    pub(super) fn push(&mut self, received: Received) -> Option<Vec<Received>> {
        self.pending.push(received);
        let Some(policy) = self.policy else { return Some(self.take()) };
        self.deadline.get_or_insert_with(|| Instant::now() + policy.max_wait);
        (self.pending.len() >= policy.max_messages).then(|| self.take())
    }

    /// Returns what is collected so far.
    pub(super) fn take(&mut self) -> Vec<Received> {
        self.deadline = None;
        std::mem::take(&mut self.pending)
    }
}
