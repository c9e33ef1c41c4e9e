use std::hash::{DefaultHasher, Hash, Hasher};

use async_nats::HeaderMap;
use throughline_core::Envelope;
use throughline_core::propagation::is_propagation_header;

/// Stands between the id of a message and what makes that of a forward another one.
const MARK: &str = ";forwarded=";

/// Returns the id under which a forwarded message is stored: that of the message, and what tells this forward from all others.
///
/// A stream drops a message whose id it has, and says so in a confirmation like any other. Under the id of the original, of three
/// services that forward one message to one stream only the first would have it stored. Under an id of its own each has, while
/// a forward that is made again, since its confirmation was lost, is recognised: the stream has it already. A message without an id is
/// forwarded without one, as it came. `forwarder` tells the delivery that is forwarded from all others, where that is known.
pub(crate) fn id(envelope: &Envelope, forwarder: impl FnOnce() -> Option<String>) -> Option<String> {
    let id = envelope.id().filter(|_| envelope.is_forwarded())?;
    let subject = envelope.destination().name();
    let mut content = DefaultHasher::new();
    (subject, &envelope.payload()[..]).hash(&mut content);
    let headers = envelope.headers().iter().filter(|(name, _)| !is_propagation_header(name));
    headers.for_each(|(name, value)| (name, &value[..]).hash(&mut content));
    let origin = forwarder().unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
    Some(format!("{}{MARK}{origin}.{:016x}", id, content.finish()))
}

/// Returns the id for a forward by a client of the user's own, which is told from those of others by a number of its own.
pub(crate) fn raw_id(id: &str, number: u64, subject: &str, headers: &HeaderMap, payload: &[u8]) -> String {
    let mut content = DefaultHasher::new();
    (subject, payload).hash(&mut content);
    // The map has no order: each header counts by itself.
    let named = headers.iter().map(|(name, values)| (AsRef::<str>::as_ref(name), values));
    let each = named.filter(|(name, _)| !is_propagation_header(name)).map(|(name, values)| {
        let mut header = DefaultHasher::new();
        name.hash(&mut header);
        values.iter().for_each(|value| value.as_str().hash(&mut header));
        header.finish()
    });
    each.fold(0, u64::wrapping_add).hash(&mut content);
    format!("{}{MARK}{number:016x}.{:016x}", original(id), content.finish())
}

/// Returns the id that a message had before it was forwarded, which is that of the message still.
pub(crate) fn original(id: &str) -> &str {
    id.rsplit_once(MARK).map_or(id, |(original, _)| original)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use throughline_core::Delivery;

    use super::*;
    use crate::{NativeMessage, StreamPosition};

    fn from_stream(consumer: &str, sequence: u64) -> Delivery {
        let position = StreamPosition::new("ORDERS", consumer, sequence);
        Delivery::new("orders", "x").with_id("m1").with_native(Arc::new(NativeMessage::at(position)))
    }

    fn id(envelope: &Envelope) -> Option<String> {
        super::id(envelope, || envelope.origin::<NativeMessage>().map(NativeMessage::forwarder))
    }

    fn id_of(delivery: &Delivery, subject: &'static str) -> String {
        id(&Envelope::forward(delivery, subject)).unwrap()
    }

    #[test]
    fn a_forward_made_again_has_the_same_id_and_every_other_forward_has_another() {
        let again = id_of(&from_stream("stock", 7), "dead");
        assert_eq!(id_of(&from_stream("stock", 7), "dead"), again);
        for other in [
            id_of(&from_stream("bills", 7), "dead"),
            id_of(&from_stream("stock", 8), "dead"),
            id_of(&from_stream("stock", 7), "audit"),
            id(&Envelope::forward(&from_stream("stock", 7), "dead").with_payload("part")).unwrap(),
            id(&Envelope::forward(&from_stream("stock", 7), "dead").with_header("part", "2")).unwrap(),
        ] {
            assert_ne!(other, again);
        }
    }

    #[test]
    fn two_deliveries_that_the_broker_does_not_tell_apart_are_still_two() {
        let delivery = || Delivery::new("orders", "x").with_id("m1");
        assert_ne!(id_of(&delivery(), "dead"), id_of(&delivery(), "dead"));
    }

    #[test]
    fn the_id_of_the_message_stays_readable_however_often_it_is_forwarded() {
        let first = id_of(&from_stream("stock", 7), "dead");
        assert_eq!(original(&first), "m1", "ATTR-N-06");
        assert_eq!((original("m1"), original("")), ("m1", ""));
        assert_eq!(id(&Envelope::forward(&Delivery::new("orders", "x"), "dead")), None, "SPAN-37");
        assert_eq!(id(&Envelope::new("orders", "x").with_id("m1")), None);
    }
}
