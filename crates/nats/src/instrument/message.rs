use std::sync::Arc;
use std::time::SystemTime;

use async_nats::Message;
use async_nats::jetstream::Message as StreamMessage;
use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;
use throughline_core::message::{Native, OperationType};
use throughline_core::telemetry::Incoming;
use throughline_core::telemetry::semconv::MESSAGING_DESTINATION_SUBSCRIPTION_NAME;

use crate::StreamPosition;
use crate::carrier::{HeaderExtractor, first};
use crate::delivery::{AckSubject, CORRELATION_ID, MESSAGE_ID, is_from_stream};
use crate::forwarded;

/// Is a message as the client hands it over: of core NATS, or of a stream. References to them are too.
///
/// # Examples
///
/// ```
/// use throughline_nats::ClientMessage;
///
/// fn subject(message: &impl ClientMessage) -> &str {
///     &message.as_message().subject
/// }
/// ```
pub trait ClientMessage: sealed::Sealed + Sync {
    /// Returns the message without the context it is acknowledged with.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::ClientMessage;
    ///
    /// fn size(message: async_nats::jetstream::Message) -> usize {
    ///     message.as_message().payload.len()
    /// }
    /// ```
    fn as_message(&self) -> &Message;
}

impl ClientMessage for Message {
    fn as_message(&self) -> &Message {
        self
    }
}

impl ClientMessage for StreamMessage {
    fn as_message(&self) -> &Message {
        &self.message
    }
}

impl<T: ClientMessage> ClientMessage for &T {
    fn as_message(&self) -> &Message {
        T::as_message(self)
    }
}

/// What the engine is told about one message of the client.
pub(super) struct Seen<'a> {
    message: &'a Message,
    headers: Option<HeaderExtractor<'a>>,
    sent_at: Option<SystemTime>,
    native: Option<RawPosition>,
}

impl<'a> Seen<'a> {
    /// Looks at a message. The name of the consumer is taken from it where the subscription does not know it.
    pub(super) fn new(message: &'a Message, names_consumer: bool, records_position: bool) -> Self {
        let ack = message.reply.as_deref().and_then(AckSubject::parse);
        let native = ack.filter(|_| names_consumer || records_position).map(|ack| RawPosition {
            position: ack.to_position(ack.stream.into(), ack.consumer.into()),
            names_consumer,
            records_position,
        });
        let headers = message.headers.as_ref().map(HeaderExtractor::new);
        Self { message, headers, sent_at: ack.map(|ack| ack.published), native }
    }

    pub(super) fn incoming(&self) -> Incoming<'_> {
        let headers: &dyn Extractor = match &self.headers {
            Some(headers) => headers,
            None => &NoHeaders,
        };
        Incoming {
            id: self.header(MESSAGE_ID).map(forwarded::original).filter(|id| !id.is_empty()),
            correlation_id: self.header(CORRELATION_ID),
            reply_to: self.message.reply.as_deref().filter(|_| !is_from_stream(self.message)),
            body_size: self.message.payload.len(),
            sent_at: self.sent_at,
            native: self.native.as_ref().map(|native| native as &dyn Native),
            ..Incoming::new(&self.message.subject, headers)
        }
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        first(self.message.headers.as_ref()?, name)
    }
}

/// The place of a message in its stream, as far as it is to be shown.
struct RawPosition {
    position: StreamPosition,
    names_consumer: bool,
    records_position: bool,
}

impl Native for RawPosition {
    /// ATTR-J-02, ATTR-J-08.
    fn attributes(&self, _operation: OperationType, attributes: &mut Vec<KeyValue>) {
        if self.names_consumer {
            let name = Arc::clone(&self.position.consumer);
            attributes.push(KeyValue::new(MESSAGING_DESTINATION_SUBSCRIPTION_NAME, name));
        }
        if self.records_position {
            self.position.push(attributes);
        }
    }
}

/// The headers of a message that has none.
struct NoHeaders;

impl Extractor for NoHeaders {
    fn get(&self, _key: &str) -> Option<&str> {
        None
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

mod sealed {
    /// Keeps the trait to the client's own messages.
    pub trait Sealed {}

    impl Sealed for async_nats::Message {}
    impl Sealed for async_nats::jetstream::Message {}
    impl<T: Sealed> Sealed for &T {}
}
