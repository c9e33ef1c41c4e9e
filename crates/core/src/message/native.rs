use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;

use super::envelope::CONTENT_TYPE;
use super::{Headers, OperationType};

/// What only the adapter knows about a received message; the broker's own extractors read it by downcast.
///
/// # Examples
///
/// ```
/// use opentelemetry::KeyValue;
/// use throughline_core::message::{Native, OperationType};
///
/// struct Record { offset: i64 }
///
/// impl Native for Record {
///     fn attributes(&self, _operation: OperationType, attributes: &mut Vec<KeyValue>) {
///         attributes.push(KeyValue::new("example.offset", self.offset));
///     }
/// }
/// ```
pub trait Native: Any + Send + Sync {
    /// Returns the name for telemetry where it differs from the delivery's destination, as on RabbitMQ.
    fn destination(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// Returns what the delivery's destination is within, such as an exchange; by it and the destination telemetry finds the
    /// [pattern](super::Source::with_patterns) that the message came by. The default is `None`: nothing.
    fn namespace(&self) -> Option<&str> {
        None
    }

    /// Adds the attributes of this single message for a span of that type; in a batch those that differ go on the links.
    fn attributes(&self, operation: OperationType, attributes: &mut Vec<KeyValue>) {
        let _ = (operation, attributes);
    }

    /// Returns the headers where the client has them. The engine reads the few names it needs there, and they are copied only when
    /// somebody asks for [`Delivery::headers`](super::Delivery::headers). `None`, the default, says that the message has none, or that the
    /// delivery was given a copy.
    fn headers(&self) -> Option<&dyn NativeHeaders> {
        None
    }

    /// Returns the name of the header that holds the media type of the body, where the connection has
    /// [another one](crate::broker::HeaderNames) than `content-type`.
    fn content_type_header(&self) -> &'static str {
        CONTENT_TYPE
    }

    /// Returns the message's own properties that a forward of it keeps, such as a priority; they become
    /// [`Envelope::native`](super::Envelope::native). The default is `None`.
    fn forwarded(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }

    /// Returns where the message lies on the broker, as a text for people: `stream ORDERS, sequence 17`. It stands in log lines and
    /// errors about messages that were given up. The default is `None`: the message lies nowhere once it was delivered.
    fn position(&self) -> Option<String> {
        None
    }
}

/// The headers of a received message in the client's own memory.
///
/// # Examples
///
/// ```
/// use std::collections::HashMap;
/// use opentelemetry::propagation::Extractor;
/// use throughline_core::message::{Native, NativeHeaders};
/// use throughline_core::{Delivery, Headers};
///
/// struct Frame { headers: HashMap<String, String> }
///
/// impl Native for Frame {
///     fn headers(&self) -> Option<&dyn NativeHeaders> {
///         Some(self)
///     }
/// }
///
/// impl NativeHeaders for Frame {
///     fn as_extractor(&self) -> &dyn Extractor {
///         &self.headers
///     }
///
///     fn to_headers(&self) -> Headers {
///         self.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
///     }
/// }
///
/// let headers = HashMap::from([("tenant".to_owned(), "acme".to_owned())]);
/// let delivery = Delivery::new("orders", "x").with_native(std::sync::Arc::new(Frame { headers }));
/// assert_eq!(delivery.headers().get("tenant"), Some("acme"));
/// ```
pub trait NativeHeaders: Send + Sync {
    /// Returns what reads a header by its name, without regard to case.
    fn as_extractor(&self) -> &dyn Extractor;

    /// Copies the headers.
    fn to_headers(&self) -> Headers;
}
