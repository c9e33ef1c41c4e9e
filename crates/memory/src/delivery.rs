use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::{BoxFuture, BrokerErrorKind, Received, Settle, done};
use throughline_core::{BrokerError, Failure, Settlement};

use crate::server::{Connection, Held, Message, Queue};

/// Makes the message ready for its next delivery, to the same place.
fn again(message: &Received) -> Held {
    let attempt = message.delivery.attempt().saturating_add(1);
    let delivery = message.delivery.clone().with_attempt(attempt);
    Held { message: Message::Delivery(delivery), place: message.tag }
}

/// Settles what one subscription took from its queue; the tag is the message's place.
pub(crate) struct Settler {
    pub(crate) queue: Arc<Queue>,
    pub(crate) connection: Arc<Connection>,
}

impl Settler {
    /// Does what `settlement` says.
    fn finish(&self, message: &Received, settlement: &Settlement) -> Result<(), BrokerError> {
        let queue = &*self.queue;
        if let Some(error) = self.connection.settle_error(message.delivery.destination()) {
            self.abandon(message);
            return Err(error);
        }
        let after = match settlement {
            Settlement::Ack | Settlement::Reject { .. } => None,
            Settlement::Retry { after } => Some(after.unwrap_or_default()),
            other => {
                queue.put_back(again(message), Duration::ZERO);
                return Err(unknown(other));
            }
        };
        self.connection.record(&message.delivery, settlement);
        match after {
            None => queue.done(message.tag),
            // As brokers with a limit do: without a word.
            Some(_) if queue.is_last(message.delivery.attempt()) => queue.done(message.tag),
            Some(delay) => queue.put_back(again(message), delay),
        }
        Ok(())
    }
}

fn unknown(settlement: &Settlement) -> BrokerError {
    let message = format!("the in-memory broker does not know {settlement:?}: acknowledge, reject or retry");
    BrokerError::new(BrokerErrorKind::Unsupported, "unsupported", message)
}

impl Settle for Settler {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        match self.finish(message, settlement) {
            Ok(()) => done(),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn abandon(&self, message: &Received) {
        if self.queue.is_last(message.delivery.attempt()) {
            return self.queue.done(message.tag);
        }
        self.queue.put_back(again(message), Duration::ZERO);
    }

    fn failed(&self, message: &Received, failure: &Failure, next: &Settlement) {
        self.queue.failed(message, failure, next);
    }
}
