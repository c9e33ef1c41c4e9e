use std::borrow::Cow;
use std::sync::Arc;

use async_nats::Message;
use async_nats::jetstream::Message as StreamMessage;
use opentelemetry::KeyValue;
use throughline_core::message::{Native, OperationType, header_text};
use throughline_core::raw::{RawMessage, ReadMessage};
use throughline_core::telemetry::Consumer;
use throughline_core::telemetry::semconv::MESSAGING_DESTINATION_SUBSCRIPTION_NAME;

use crate::StreamPosition;
use crate::carrier::ClientHeaders;
use crate::delivery::{AckSubject, MESSAGE_ID, is_from_stream, message_id};
use crate::status::{Statuses, is_status};

/// A message as the client hands it over: of core NATS, or of a stream. References to them are too.
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

/// How the messages of one subscription are read.
#[derive(Clone)]
pub struct Subscribed {
    pub(super) consumer: Consumer,
    /// Whether the name of the consumer is taken from the message, since the subscription does not know it.
    names_consumer: bool,
    records_position: bool,
    /// The header of the correlation id.
    correlation_id: &'static str,
    statuses: Arc<Statuses>,
}

impl Subscribed {
    pub(super) fn new(
        consumer: Consumer,
        names_consumer: bool,
        records_position: bool,
        correlation_id: &'static str,
    ) -> Self {
        Self { consumer, names_consumer, records_position, correlation_id, statuses: Arc::default() }
    }

    fn position(&self, ack: AckSubject<'_>) -> Option<RawPosition> {
        let (names_consumer, records_position) = (self.names_consumer, self.records_position);
        (names_consumer || records_position).then(|| RawPosition {
            position: ack.to_position(ack.stream.into(), ack.consumer.into()),
            names_consumer,
            records_position,
        })
    }
}

impl<M: ClientMessage> ReadMessage<M> for Subscribed {
    type Headers = ClientHeaders;
    type Native = RawPosition;

    fn consumer(&self, _message: Option<&M>) -> Cow<'_, Consumer> {
        Cow::Borrowed(&self.consumer)
    }

    fn read<'a>(&self, message: &'a M) -> RawMessage<'a, ClientHeaders, RawPosition> {
        let message = message.as_message();
        let ack = message.reply.as_deref().and_then(AckSubject::parse);
        let mut read = RawMessage::new(&message.subject, message.headers.as_ref());
        read.id = read.header(MESSAGE_ID).and_then(message_id);
        read.correlation_id = read.header(self.correlation_id).map(header_text::unescape);
        read.reply_to = message.reply.as_deref().filter(|_| !is_from_stream(message));
        read.body_size = message.payload.len();
        read.sent_at = ack.map(|ack| ack.published);
        read.attempt = ack.map_or(1, |ack| u32::try_from(ack.delivered).unwrap_or(u32::MAX));
        read.native = ack.and_then(|ack| self.position(ack));
        read
    }

    /// A status of the server is logged.
    fn accept(&self, message: &M) -> bool {
        let message = message.as_message();
        let is_status = is_status(message);
        if is_status {
            self.statuses.note(message);
        }
        !is_status
    }
}

/// The place of a message in its stream, as far as it is to be shown.
pub struct RawPosition {
    position: StreamPosition,
    names_consumer: bool,
    records_position: bool,
}

impl Native for RawPosition {
    // ATTR-J-02, ATTR-J-08.
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

mod sealed {
    /// What keeps the trait to the client's own messages.
    pub trait Sealed {}

    impl Sealed for async_nats::Message {}
    impl Sealed for async_nats::jetstream::Message {}
    impl<T: Sealed> Sealed for &T {}
}
