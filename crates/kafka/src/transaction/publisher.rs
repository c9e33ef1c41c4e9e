use std::sync::Arc;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use throughline_core::broker::{Publish, PublishError};
use throughline_core::message::{Destination, Envelope, Receipt, System, Target};
use tracing::warn;

use super::units::{Units, Unopened};
use crate::error;
use crate::publisher::KafkaPublisher;

/// Publishes within the transaction of the unit that is being handled.
pub(super) struct TransactionPublisher {
    pub(super) inner: KafkaPublisher,
    pub(super) units: Arc<Units>,
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

    async fn publish(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        self.units.begin().map_err(|unopened| refused(&unopened, &envelope))?;
        self.inner.publish(envelope).await
    }

    async fn publish_batch(&self, messages: Vec<Envelope>) -> Vec<Result<Receipt, PublishError>> {
        match self.units.begin() {
            Ok(()) => self.inner.publish_batch(messages).await,
            Err(unopened) => messages.iter().map(|message| Err(refused(&unopened, message))).collect(),
        }
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
