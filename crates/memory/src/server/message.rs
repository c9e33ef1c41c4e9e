use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use throughline_core::broker::{RETRY_ATTEMPT, RETRY_ERROR};
use throughline_core::{Delivery, Destination, Envelope};

use super::inbox::is_inbox;
use crate::retry::{Waited, Waits};

/// A message on its way to those who take it.
#[derive(Clone)]
pub(crate) enum Message {
    /// As it was published, and when. It becomes a delivery when it is taken: what that allocates is then freed again soon, which an
    /// allocator does fastest.
    Published(Envelope, SystemTime),
    /// As it was handed out before, or goes to several.
    Delivery(Delivery),
}

impl Message {
    pub(crate) fn published(envelope: Envelope) -> Self {
        Self::Published(envelope, SystemTime::now())
    }

    pub(super) fn destination(&self) -> Cow<'_, Destination> {
        match self {
            Self::Published(envelope, _) => Cow::Borrowed(envelope.destination()),
            Self::Delivery(delivery) => Cow::Owned(Destination::new(delivery.destination())),
        }
    }

    /// The destination where its name says all.
    pub(super) fn plain_name(&self) -> Option<&str> {
        match self {
            Self::Published(envelope, _) => {
                let destination = envelope.destination();
                destination.namespace().is_none().then(|| destination.name())
            }
            Self::Delivery(delivery) => Some(delivery.destination()),
        }
    }

    /// Turns it into what arrives; nothing is copied.
    pub(super) fn into_delivery(self) -> Delivery {
        match self {
            Self::Published(envelope, sent_at) => {
                let is_request = envelope.reply_to().is_some_and(|to| is_inbox(to.name()));
                let waits = envelope.destination().native::<Waits>().copied();
                let mut delivery = Delivery::from_envelope(envelope, Some(sent_at), None);
                if let Some(waits) = waits {
                    delivery.insert_extension(waits);
                }
                if is_request { delivery.with_waiting_requester() } else { delivery }
            }
            Self::Delivery(delivery) => delivery,
        }
    }

    /// Returns how long it is to wait where it was sent, if whoever forwarded it there said so.
    pub(super) fn waits(&self) -> Option<Waits> {
        match self {
            Self::Published(envelope, _) => envelope.destination().native().copied(),
            Self::Delivery(delivery) => delivery.extension().copied(),
        }
    }

    /// Turns it into the further attempt that its headers say it is, of a message that was sent to `origin` first.
    pub(super) fn into_further_attempt(self, origin: Arc<str>) -> Self {
        let mut delivery = self.into_delivery();
        // What a test attached itself stays: its handler may read that.
        if delivery.extension::<Waits>().is_some() {
            let place = delivery.destination().into();
            delivery = delivery.with_native(Arc::new(Waited { origin, place }));
        }
        if let Some(cause) = delivery.header_text(RETRY_ERROR).map(Arc::<str>::from) {
            delivery = delivery.with_retry_cause(cause);
        }
        let attempt = delivery.header(RETRY_ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(2);
        Self::Delivery(delivery.with_attempt(attempt.max(2)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use throughline_core::Envelope;

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

        let delivery = Message::published(envelope).into_delivery();

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
    fn a_message_without_a_body_stays_one() {
        let arrived = |envelope| Message::published(envelope).into_delivery();
        let deleted = arrived(Envelope::new("users", "x").with_key("42").without_payload());
        assert!(!deleted.has_payload() && deleted.payload().is_empty());
        assert!(!Envelope::forward(&deleted, "users.dead").has_payload());
        assert!(arrived(Envelope::new("users", "")).has_payload(), "empty is not absent");
        assert!(deleted.with_payload("").has_payload());
    }

    #[test]
    fn a_content_type_header_of_the_user_stays() {
        let envelope = Envelope::new("a", "x").with_header("Content-Type", "a/b").with_content_type("c/d");
        let delivery = Message::published(envelope).into_delivery();
        assert_eq!((delivery.headers().len(), delivery.headers().get("content-type")), (1, Some("a/b")));
    }

    #[test]
    fn the_payload_is_shared() {
        let payload = Bytes::from(vec![7; 64]);
        let delivery = Message::published(Envelope::new("a", payload.clone())).into_delivery();
        assert_eq!(delivery.payload().as_ptr(), payload.as_ptr());
    }
}
