use std::future::{Future, ready};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use throughline_core::broker::{BrokerError, BrokerErrorKind, Received, Settle};
use throughline_core::{Delivery, Envelope, Settlement};

use crate::done::Done;
use crate::server::{Held, Queue};

/// Turns what is published into what arrives; nothing is copied.
pub(crate) fn arrive(envelope: Envelope) -> Delivery {
    Delivery::from_envelope(envelope, Some(SystemTime::now()), None)
}

/// Makes the message ready for its next delivery, to the same place.
fn again(message: &Received) -> Held {
    let attempt = message.delivery.attempt().saturating_add(1);
    Held { delivery: message.delivery.clone().with_attempt(attempt), place: message.tag }
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
    // Written out instead of `async fn`: see `Done`.
    fn settle<'a, 'm, 's, 'f>(
        &'a self,
        message: &'m Received,
        settlement: &'s Settlement,
    ) -> Pin<Box<dyn Future<Output = Result<(), BrokerError>> + Send + 'f>>
    where
        'a: 'f,
        'm: 'f,
        's: 'f,
    {
        match finish(self, message, settlement) {
            Ok(()) => Box::pin(Done::new()),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn abandon(&self, message: &Received) {
        self.put_back(again(message), Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn everything_in_an_envelope_arrives() {
        let mut envelope = Envelope::new("orders", "body")
            .with_header("Tenant", "acme")
            .with_key("42")
            .with_id("m1")
            .with_correlation_id("c1")
            .with_content_type("text/plain")
            .with_reply_to("answers");
        envelope.headers_mut().append("tenant", "twice");

        let delivery = arrive(envelope);

        assert_eq!((delivery.destination(), delivery.payload().as_ref()), ("orders", &b"body"[..]));
        let headers: Vec<_> = delivery.headers().iter().map(|(name, value)| (name, value.as_ref())).collect();
        assert_eq!(headers, [("Tenant", &b"acme"[..]), ("tenant", b"twice"), ("content-type", b"text/plain")]);
        assert_eq!(delivery.key().map(AsRef::as_ref), Some(&b"42"[..]));
        assert_eq!((delivery.id(), delivery.correlation_id()), (Some("m1"), Some("c1")));
        assert_eq!(delivery.reply_to().map(|to| to.name()), Some("answers"));
        assert!(delivery.sent_at().is_some());
        assert_eq!(delivery.attempt(), 1);
    }

    #[test]
    fn a_content_type_header_of_the_user_stays() {
        let envelope = Envelope::new("a", "x").with_header("Content-Type", "a/b").with_content_type("c/d");
        let delivery = arrive(envelope);
        assert_eq!((delivery.headers().len(), delivery.headers().get("content-type")), (1, Some("a/b")));
    }

    #[test]
    fn the_payload_is_shared() {
        let payload = Bytes::from(vec![7; 64]);
        let delivery = arrive(Envelope::new("a", payload.clone()));
        assert_eq!(delivery.payload().as_ptr(), payload.as_ptr());
    }
}
