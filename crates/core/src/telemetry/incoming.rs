use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;

use crate::guard::{Foreign, Guard};
use crate::message::{Delivery, Destination, Native, OperationType};

/// Is what the engine needs to know of one received message, borrowed from wherever it lives.
///
/// The framework makes one of each delivery; the raw-client functions of an adapter make one of the client's own message.
///
/// # Examples
///
/// ```
/// use std::collections::HashMap;
/// use throughline_core::telemetry::Incoming;
///
/// let headers = HashMap::from([("traceparent".to_owned(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned())]);
/// let incoming = Incoming::new("orders", &headers);
/// assert_eq!(incoming.destination, "orders");
/// ```
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    /// The concrete name the message was sent to.
    pub destination: &'a str,
    /// The headers.
    pub headers: &'a dyn Extractor,
    /// `messaging.message.id`.
    pub id: Option<&'a str>,
    /// `messaging.message.conversation_id`.
    pub correlation_id: Option<&'a str>,
    /// Where the answer is asked for.
    pub reply_to: Option<&'a str>,
    /// The body's length in bytes.
    pub body_size: usize,
    /// When the broker took the message.
    pub sent_at: Option<SystemTime>,
    /// Further attributes of this single message.
    pub native: Option<&'a dyn Native>,
}

impl<'a> Incoming<'a> {
    /// Describes a message by its destination and headers alone.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use throughline_core::telemetry::Incoming;
    /// let headers: HashMap<String, String> = HashMap::new();
    /// assert!(Incoming::new("orders", &headers).id.is_none());
    /// ```
    #[must_use]
    pub fn new(destination: &'a str, headers: &'a dyn Extractor) -> Self {
        Self {
            destination,
            headers,
            id: None,
            correlation_id: None,
            reply_to: None,
            body_size: 0,
            sent_at: None,
            native: None,
        }
    }

    pub(crate) fn from_delivery(delivery: &'a Delivery) -> Self {
        Self {
            destination: delivery.destination(),
            headers: delivery.carrier(),
            id: delivery.id(),
            correlation_id: delivery.correlation_id(),
            reply_to: delivery.reply_to().map(Destination::name),
            body_size: delivery.payload().len(),
            sent_at: delivery.sent_at(),
            native: delivery.native_dyn(),
        }
    }

    /// Adds the adapter's own attributes; none when it panics.
    pub(super) fn native_attributes(&self, guard: &Guard, operation: OperationType, attributes: &mut Vec<KeyValue>) {
        if let Some(native) = self.native {
            let before = attributes.len();
            if guard.run(Foreign::Native, || native.attributes(operation, attributes)).is_none() {
                attributes.truncate(before);
            }
        }
    }
}
