use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry::KeyValue;
use throughline_core::broker::{BoxFuture, Publish};
use throughline_core::message::{System, Target};
use throughline_core::{Destination, Envelope, PublishError, Receipt};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};
use tracing::warn;

use super::units::{Units, Unopened};
use crate::error;
use crate::publisher::KafkaPublisher;

/// Publishes within the transaction of the unit that is being handled.
pub(super) struct TransactionPublisher {
    pub(super) inner: KafkaPublisher,
    pub(super) units: Arc<Units>,
    pub(super) singly: Singly,
}

/// How long messages are sent one by one after a request was refused.
const SINGLY_FOR: Duration = Duration::from_secs(60);

/// Lets messages out one by one for a while. A request that is refused ends its transaction, and says nothing of a message that came with
/// others: when they are tried again, each answer is to one message.
#[derive(Default)]
pub(super) struct Singly {
    until: Mutex<Option<Instant>>,
    turn: AsyncMutex<()>,
}

impl Singly {
    /// Waits for its turn where messages are sent one by one.
    async fn turn(&self) -> Option<AsyncMutexGuard<'_, ()>> {
        let is_on = self.until().is_some_and(|until| Instant::now() < until);
        if is_on { Some(self.turn.lock().await) } else { None }
    }

    /// Takes the answer to a message that came, perhaps, with others.
    fn judge(&self, answer: Result<Receipt, PublishError>) -> Result<Receipt, PublishError> {
        let failed = match answer {
            Err(failed) if error::may_be_of_request(&failed) => failed,
            answer => return answer,
        };
        *self.until() = Some(Instant::now() + SINGLY_FOR);
        Err(error::of_request(failed))
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(unopened: &Unopened, envelope: &Envelope) -> PublishError {
    let topic = envelope.destination().name();
    match unopened {
        Unopened::Failed(failed) => error::publish(failed, topic),
        Unopened::NoUnit => error::no_transaction(topic),
    }
}

#[async_trait]
impl Publish for TransactionPublisher {
    fn system(&self) -> Arc<System> {
        self.inner.system()
    }

    fn target<'a>(&self, destination: &'a Destination) -> Target<'a> {
        self.inner.target(destination)
    }

    fn check(&self, destination: &Destination) -> Result<(), PublishError> {
        self.inner.check(destination)
    }

    fn attributes(&self, envelope: &Envelope, attributes: &mut Vec<KeyValue>) {
        self.inner.attributes(envelope, attributes);
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move {
            self.units.begin().map_err(|unopened| refused(&unopened, &envelope))?;
            let turn = self.singly.turn().await;
            let answer = self.inner.publish(envelope).await;
            if turn.is_some() { answer } else { self.singly.judge(answer) }
        })
    }

    async fn publish_batch(&self, messages: Vec<Envelope>) -> Vec<Result<Receipt, PublishError>> {
        if let Err(unopened) = self.units.begin() {
            return messages.iter().map(|message| Err(refused(&unopened, message))).collect();
        }
        if self.singly.turn().await.is_none() {
            let answers = self.inner.publish_batch(messages).await;
            return answers.into_iter().map(|answer| self.singly.judge(answer)).collect();
        }
        let mut answers = Vec::with_capacity(messages.len());
        for message in messages {
            answers.push(self.publish(message).await);
        }
        answers
    }

    fn is_atomic(&self) -> bool {
        true
    }

    async fn discard(&self) {
        // Settling fails then, and the subscription ends.
        if let Err(error) = self.units.perform(Units::abort).await {
            warn!(%error, "what a failed attempt published could not be taken back");
        }
    }
}
