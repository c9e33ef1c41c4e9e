use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use lapin::BasicProperties;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::types::{DeliveryTag, ShortString};
use opentelemetry::KeyValue;
use throughline_core::message::{Native, OperationType};
use throughline_core::raw::{RawMessage, ReadMessage};
use throughline_core::telemetry::Consumer;

use crate::carrier::ClientHeaders;
use crate::copy::Returned;
use crate::delivery::{DELIVERY_COUNT, ReadFrom, Way, counted};
use crate::properties::time;

/// A message as the client hands it over: of a consumer, or of `basic_get`. References to them are too.
///
/// # Examples
///
/// ```
/// use throughline_rabbit::ClientMessage;
///
/// fn key(message: &impl ClientMessage) -> &str {
///     message.as_delivery().routing_key.as_str()
/// }
/// ```
pub trait ClientMessage: sealed::Sealed + Sync {
    /// Returns the message alone.
    fn as_delivery(&self) -> &Delivery;
}

impl ClientMessage for Delivery {
    fn as_delivery(&self) -> &Delivery {
        self
    }
}

impl ClientMessage for BasicGetMessage {
    fn as_delivery(&self) -> &Delivery {
        &self.delivery
    }
}

impl<T: ClientMessage> ClientMessage for &T {
    fn as_delivery(&self) -> &Delivery {
        T::as_delivery(self)
    }
}

/// How the messages of one queue are read.
#[derive(Clone)]
pub struct Subscribed {
    pub(super) consumer: Consumer,
    from: Arc<ReadFrom>,
    /// The way of the last message, which the next one shares where it came by the same.
    last: Arc<Mutex<Arc<Way>>>,
}

impl Subscribed {
    pub(super) fn new(consumer: Consumer, from: ReadFrom) -> Self {
        let from = Arc::new(from);
        let last = Arc::new(Way::new(Arc::clone(&from), "", &from.queue));
        Self { consumer, from, last: Arc::new(Mutex::new(last)) }
    }

    /// The queue's name; empty where it is not known.
    pub(super) fn queue(&self) -> &str {
        &self.from.queue
    }

    /// Tells whether the server counts the deliveries of a message. Where the queue is not known, a count that is there is believed.
    fn counts(&self, properties: &BasicProperties) -> bool {
        let has_count = || properties.headers().as_ref().is_some_and(|table| table.contains_key(DELIVERY_COUNT));
        self.from.counts && (!self.from.queue.is_empty() || has_count())
    }

    fn way(&self, exchange: &str, key: &str) -> Arc<Way> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !last.is(exchange, key) {
            *last = Arc::new(Way::new(Arc::clone(&self.from), exchange, key));
        }
        Arc::clone(&last)
    }
}

impl<M: ClientMessage> ReadMessage<M> for Subscribed {
    type Headers = ClientHeaders;
    type Native = RawPlace;

    fn consumer(&self, _message: Option<&M>) -> Cow<'_, Consumer> {
        Cow::Borrowed(&self.consumer)
    }

    // ATTR-R-07.
    fn read<'a>(&self, message: &'a M) -> RawMessage<'a, ClientHeaders, RawPlace> {
        let message = message.as_delivery();
        let properties = &message.properties;
        let returned = Some(&self.from.queue).filter(|queue| !queue.is_empty());
        let returned = returned.and_then(|queue| Returned::read(properties, queue));
        let came_by = returned.and_then(|returned| returned.way);
        let (exchange, key) = came_by.unwrap_or((message.exchange.as_str(), message.routing_key.as_str()));
        let mut read = RawMessage::new(key, properties.headers().as_ref());
        read.id = text(properties.message_id()).map(Cow::Borrowed);
        read.correlation_id = text(properties.correlation_id()).map(Cow::Borrowed);
        read.reply_to = text(properties.reply_to());
        read.body_size = message.data.len();
        read.sent_at = properties.timestamp().and_then(time);
        let before = counted(properties, message.redelivered, self.counts(properties));
        read.attempt = returned.map_or(1, |returned| returned.attempt).saturating_add(before);
        read.native = Some(RawPlace { way: self.way(exchange, key), delivery_tag: message.delivery_tag });
        read
    }
}

fn text(text: &Option<ShortString>) -> Option<&str> {
    text.as_ref().map(ShortString::as_str).filter(|text| !text.is_empty())
}

/// By which way a message came, and the number under which it is settled.
pub struct RawPlace {
    way: Arc<Way>,
    delivery_tag: DeliveryTag,
}

impl Native for RawPlace {
    // ATTR-R-02.
    fn destination(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.way.name))
    }

    fn namespace(&self) -> Option<&str> {
        Some(self.way.exchange.as_str()).filter(|exchange| !exchange.is_empty())
    }

    fn attributes(&self, operation: OperationType, attributes: &mut Vec<KeyValue>) {
        self.way.push_attributes(operation, self.delivery_tag, attributes);
    }
}

mod sealed {
    /// What keeps the trait to the client's own messages.
    pub trait Sealed {}

    impl Sealed for lapin::message::BasicGetMessage {}
    impl Sealed for lapin::message::Delivery {}
    impl<T: Sealed> Sealed for &T {}
}
