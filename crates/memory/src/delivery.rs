use std::future::ready;
use std::time::Duration;

use throughline_core::broker::{BoxFuture, BrokerErrorKind, Received, Settle, done};
use throughline_core::{BrokerError, Settlement};

use crate::server::{Held, Message, Queue};

/// Makes the message ready for its next delivery, to the same place.
fn again(message: &Received) -> Held {
    let attempt = message.delivery.attempt().saturating_add(1);
    let delivery = message.delivery.clone().with_attempt(attempt);
    Held { message: Message::Delivery(delivery), place: message.tag }
}

/// Does what `settlement` says.
fn finish(queue: &Queue, message: &Received, settlement: &Settlement) -> Result<(), BrokerError> {
    let after = match settlement {
        Settlement::Ack | Settlement::Reject { .. } => None,
        Settlement::Retry { after } => Some(after.unwrap_or_default()),
        other => {
            queue.put_back(again(message), Duration::ZERO);
            return Err(unknown(other));
        }
    };
    queue.ledger().record(&message.delivery, settlement);
    match after {
        None => queue.ledger().closed(1),
        // As brokers with a limit do: without a word.
        Some(_) if queue.is_last(message.delivery.attempt()) => queue.ledger().closed(1),
        Some(delay) => queue.put_back(again(message), delay),
    }
    Ok(())
}

fn unknown(settlement: &Settlement) -> BrokerError {
    let message = format!("the in-memory broker does not know {settlement:?}: acknowledge, reject or retry");
    BrokerError::new(BrokerErrorKind::Unsupported, "unsupported", message)
}

/// A queue settles what was taken from it; the tag is the message's place.
impl Settle for Queue {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        match finish(self, message, settlement) {
            Ok(()) => done(),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn abandon(&self, message: &Received) {
        if self.is_last(message.delivery.attempt()) {
            return self.ledger().closed(1);
        }
        self.put_back(again(message), Duration::ZERO);
    }
}
