use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;
use rdkafka::Message;
use throughline_core::message::{Native, OperationType};
use throughline_core::telemetry::Incoming;

use crate::carrier::{HeaderExtractor, RecordHeaders};
use crate::record::{push_attributes, time_of};
use crate::semconv::{CORRELATION_ID, MESSAGE_ID};

/// What the engine is told about one message of the client.
pub(super) struct Seen<'a> {
    topic: &'a str,
    headers: Option<HeaderExtractor<'a>>,
    body_size: usize,
    sent_at: Option<SystemTime>,
    place: Place,
}

/// The place of a message, and what else a span shows of it.
struct Place {
    partition: i32,
    offset: i64,
    key: Option<Arc<[u8]>>,
    is_tombstone: bool,
}

impl<'a> Seen<'a> {
    pub(super) fn new<M>(message: &'a M, records_keys: bool) -> Self
    where
        M: Message,
        M::Headers: RecordHeaders,
    {
        let payload = message.payload();
        Self {
            topic: message.topic(),
            headers: message.headers().map(|headers| HeaderExtractor::new(headers.to_borrowed())),
            body_size: payload.map_or(0, <[u8]>::len),
            sent_at: time_of(message.timestamp()),
            place: Place {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key().filter(|_| records_keys).map(Into::into),
                is_tombstone: payload.is_none(),
            },
        }
    }

    pub(super) fn incoming(&self) -> Incoming<'_> {
        let headers: &dyn Extractor = match &self.headers {
            Some(headers) => headers,
            None => &NoHeaders,
        };
        Incoming {
            id: self.header(MESSAGE_ID),
            correlation_id: self.header(CORRELATION_ID),
            body_size: self.body_size,
            sent_at: self.sent_at,
            native: Some(&self.place),
            ..Incoming::new(self.topic, headers)
        }
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers?.find(name)
    }
}

impl Native for Place {
    fn attributes(&self, operation: OperationType, attributes: &mut Vec<KeyValue>) {
        push_attributes(operation, self.partition, self.offset, self.key.as_deref(), self.is_tombstone, attributes);
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
