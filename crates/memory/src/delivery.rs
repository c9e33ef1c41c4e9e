use std::future::{Future, ready};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use throughline_core::broker::{BrokerError, BrokerErrorKind, Received, Settle};
use throughline_core::{Delivery, Envelope, Headers, Settlement};

use crate::done::Done;
use crate::server::Queue;

/// Carries the media type of the body, for which a delivery has no place of its own.
const CONTENT_TYPE: &str = "content-type";

/// Is one message on its way to one subscription: first in its queue, then, handed out, the handle that settles it.
///
/// It is the only thing stored per message and subscription. It keeps the message until that is settled, because who received
/// it may take it apart.
pub(crate) struct Held {
    delivery: Delivery,
    /// Where in the order of the queue the message belongs.
    place: u64,
    /// The queue to go back to, while the message is handed out.
    origin: Option<Arc<Queue>>,
    settled: AtomicBool,
}

impl Held {
    pub(crate) fn new(delivery: Delivery) -> Box<Self> {
        Box::new(Self { delivery, place: 0, origin: None, settled: AtomicBool::new(false) })
    }

    pub(crate) const fn set_place(&mut self, place: u64) {
        self.place = place;
    }

    /// Marks the message as handed out: from now on it goes back to `origin` unless it is settled.
    pub(crate) fn hand_out(&mut self, origin: Arc<Queue>) {
        self.origin = Some(origin);
    }

    pub(crate) fn into_received(self: Box<Self>) -> Received {
        Received { delivery: self.delivery.clone(), settle: Some(self) }
    }

    pub(crate) const fn place(&self) -> u64 {
        self.place
    }

    /// Copies the message for another queue; the payload is shared.
    pub(crate) fn copy(&self) -> Box<Self> {
        Self::new(self.delivery.clone())
    }

    /// Copies the message for its next delivery, to the same place.
    fn again(&self) -> Box<Self> {
        let attempt = self.delivery.attempt().saturating_add(1);
        let mut held = Self::new(self.delivery.clone().with_attempt(attempt));
        held.set_place(self.place);
        held
    }

    /// Does what `settlement` says. Only the first settlement of a message counts.
    fn finish(&self, settlement: &Settlement) -> Result<(), BrokerError> {
        let Some(queue) = &self.origin else { return Ok(()) };
        let after = match settlement {
            Settlement::Ack | Settlement::Reject { .. } => None,
            Settlement::Retry { after } => Some(after.unwrap_or_default()),
            other => return Err(unknown(other)),
        };
        if self.settled.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        queue.ledger().record(&self.delivery, settlement);
        match after {
            None => queue.ledger().closed(1),
            Some(delay) => queue.put_back(self.again(), delay),
        }
        Ok(())
    }
}

fn unknown(settlement: &Settlement) -> BrokerError {
    let message = format!("the in-memory broker does not know {settlement:?}: acknowledge, reject or retry");
    BrokerError::new(BrokerErrorKind::Unsupported, "unsupported", message)
}

impl Settle for Held {
    // Written out instead of `async fn`: see `Done`.
    fn settle<'a, 's, 'f>(
        &'a self,
        settlement: &'s Settlement,
    ) -> Pin<Box<dyn Future<Output = Result<(), BrokerError>> + Send + 'f>>
    where
        'a: 'f,
        's: 'f,
    {
        match self.finish(settlement) {
            Ok(()) => Box::pin(Done::new()),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(queue) = self.origin.take()
            && !*self.settled.get_mut()
        {
            queue.put_back(self.again(), Default::default());
        }
    }
}

/// Turns what is published into what arrives; the headers move, everything else is shared.
pub(crate) fn from_envelope(name: Arc<str>, envelope: &mut Envelope) -> Delivery {
    let mut headers = mem::take(envelope.headers_mut());
    add_content_type(&mut headers, envelope);
    let mut delivery = Delivery::new(name, envelope.payload().clone()).with_sent_at(SystemTime::now());
    // Each of these moves the whole delivery, so what is not there is not set.
    if !headers.is_empty() {
        delivery = delivery.with_headers(headers);
    }
    if let Some(key) = envelope.key() {
        delivery = delivery.with_key(key.clone());
    }
    if let Some(id) = envelope.id() {
        delivery = delivery.with_id(id);
    }
    if let Some(id) = envelope.correlation_id() {
        delivery = delivery.with_correlation_id(id);
    }
    if let Some(destination) = envelope.reply_to() {
        delivery = delivery.with_reply_to(destination.clone());
    }
    delivery
}

fn add_content_type(headers: &mut Headers, envelope: &Envelope) {
    if let Some(content_type) = envelope.content_type()
        && !headers.contains(CONTENT_TYPE)
    {
        headers.append(CONTENT_TYPE, Bytes::copy_from_slice(content_type.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
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

        let delivery = from_envelope("orders".into(), &mut envelope);

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
        let mut envelope = Envelope::new("a", "x").with_header("Content-Type", "a/b").with_content_type("c/d");
        let delivery = from_envelope("a".into(), &mut envelope);
        assert_eq!((delivery.headers().len(), delivery.headers().get("content-type")), (1, Some("a/b")));
    }

    #[test]
    fn the_payload_is_shared() {
        let payload = Bytes::from(vec![7; 64]);
        let delivery = from_envelope("a".into(), &mut Envelope::new("a", payload.clone()));
        assert_eq!(delivery.payload().as_ptr(), payload.as_ptr());
    }
}
