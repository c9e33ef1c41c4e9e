use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::KeyValue;
use rdkafka::Message;
use throughline_core::broker::HeaderNames;
use throughline_core::message::{Native, OperationType};
use throughline_core::raw::{RawMessage, ReadMessage};
use throughline_core::telemetry::{Consumer, Producer};

use crate::carrier::{ClientHeaders, RecordHeaders};
use crate::delivery::{push_attributes, time_of};

/// What is prepared for one client: how its records are read, and what they are consumed and produced with.
pub struct RawClient {
    pub(super) producer: Producer,
    pub(super) consumer: Consumer,
    pub(super) hides_keys: bool,
    pub(super) names: HeaderNames,
}

impl<M> ReadMessage<M> for RawClient
where
    M: Message,
    M::Headers: RecordHeaders,
{
    type Headers = ClientHeaders;
    type Native = Place;

    fn consumer(&self, _message: Option<&M>) -> Cow<'_, Consumer> {
        Cow::Borrowed(&self.consumer)
    }

    fn read<'a>(&self, message: &'a M) -> RawMessage<'a, ClientHeaders, Place> {
        let payload = message.payload();
        let mut read = RawMessage::new(message.topic(), message.headers().map(RecordHeaders::to_borrowed));
        read.id = read.header(self.names.message_id).map(Cow::Borrowed);
        read.correlation_id = read.header(self.names.correlation_id).map(Cow::Borrowed);
        read.body_size = payload.map_or(0, <[u8]>::len);
        read.sent_at = time_of(message.timestamp());
        read.native = Some(Place {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().filter(|_| !self.hides_keys).map(Into::into),
            is_tombstone: payload.is_none(),
        });
        read
    }
}

/// The place of a message, and what else a span shows of it.
pub struct Place {
    partition: i32,
    offset: i64,
    key: Option<Arc<[u8]>>,
    is_tombstone: bool,
}

impl Native for Place {
    fn attributes(&self, operation: OperationType, attributes: &mut Vec<KeyValue>) {
        push_attributes(operation, self.partition, self.offset, self.key.as_deref(), self.is_tombstone, attributes);
    }
}
