use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use lapin::BasicProperties;
use lapin::types::{DeliveryTag, FieldTable, ShortString};
use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;
use throughline_core::message::{Native, NativeHeaders, OperationType};
use throughline_core::propagation::is_propagation_header;
use throughline_core::{Delivery, Destination, Headers};
use tracing::warn;

use crate::carrier::{HeaderExtractor, number, to_headers};
use crate::copy::Returned;
use crate::death;
use crate::properties::{CONTENT_TYPE, Properties, time};
use crate::seldom::Seldom;
use crate::semconv::{DELIVERY_TAG, DIRECT_REPLY, ROUTING_KEY, is_anonymous, source_name};

/// The header that counts how often a quorum queue has delivered a message before.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// The header with the place of a message in a stream.
const STREAM_OFFSET: &str = "x-stream-offset";

/// What is the same for all messages of a consumer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ReadFrom {
    /// The queue, with the name the server gave it.
    pub(crate) queue: Arc<str>,
    /// Whether the server counts how often it delivers a message (quorum queues).
    pub(crate) counts: bool,
    /// How often the server delivers a message at most, where it counts: the limit plus one.
    pub(crate) most_deliveries: Option<u32>,
    /// Whether the queue is a stream, whose offset is the position.
    pub(crate) is_stream: bool,
}

/// By which way a message came. Most consumers see few ways, and messages that come by the same one share it.
#[derive(Debug)]
struct Way {
    from: Arc<ReadFrom>,
    exchange: String,
    key: Arc<str>,
    /// The name for telemetry.
    name: String,
}

impl Way {
    fn new(from: Arc<ReadFrom>, exchange: &str, key: &str) -> Self {
        let name = source_name(exchange, key, &from.queue).into_owned();
        Self { exchange: exchange.to_owned(), key: key.into(), name, from }
    }
}

/// What only RabbitMQ knows about a received message: exchange, routing key, queue, delivery tag, and all its properties.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use throughline_core::Delivery;
/// use throughline_rabbit::NativeMessage;
///
/// // What a test gives to a handler that asks for the exchange.
/// let native = NativeMessage::at("shop", "placed.eu", "orders");
/// let delivery = Delivery::new("placed.eu", "{}").with_native(Arc::new(native));
/// assert_eq!(delivery.native::<NativeMessage>().map(NativeMessage::exchange), Some("shop"));
/// ```
#[derive(Clone, Debug)]
pub struct NativeMessage {
    way: Arc<Way>,
    delivery_tag: DeliveryTag,
    redelivered: bool,
    properties: BasicProperties,
    /// The headers, copied where somebody asks for one that is not a string.
    copied: OnceLock<Headers>,
}

impl NativeMessage {
    /// Creates one that came from a queue, by an exchange with a routing key, for tests on the in-memory broker. It has no properties and the
    /// delivery tag 1.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_rabbit::NativeMessage;
    /// assert_eq!(NativeMessage::at("shop", "placed.eu", "orders").queue(), "orders");
    /// ```
    #[must_use]
    pub fn at(exchange: &str, routing_key: &str, queue: impl Into<Arc<str>>) -> Self {
        let from = ReadFrom { queue: queue.into(), counts: false, most_deliveries: None, is_stream: false };
        Self {
            way: Arc::new(Way::new(Arc::new(from), exchange, routing_key)),
            delivery_tag: 1,
            redelivered: false,
            properties: BasicProperties::default(),
            copied: OnceLock::new(),
        }
    }

    /// Sets the properties, for tests.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_rabbit::{NativeMessage, Properties};
    /// let properties = Properties::new().with_priority(5);
    /// let message = NativeMessage::at("", "orders", "orders").with_properties(properties.native().clone());
    /// assert_eq!(*message.properties().priority(), Some(5));
    /// ```
    #[must_use]
    pub fn with_properties(mut self, properties: BasicProperties) -> Self {
        self.properties = properties;
        self.copied = OnceLock::new();
        self
    }

    /// Returns the exchange the message was published to; empty for the default exchange.
    #[must_use]
    pub fn exchange(&self) -> &str {
        &self.way.exchange
    }

    /// Returns the routing key the message was published with.
    #[must_use]
    pub fn routing_key(&self) -> &str {
        &self.way.key
    }

    /// Returns the queue the message was received from.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.way.from.queue
    }

    /// Returns the number under which the message is settled, counted from 1 on each channel.
    #[must_use]
    pub const fn delivery_tag(&self) -> u64 {
        self.delivery_tag
    }

    /// Tells whether the server has delivered the message before.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// Returns the properties as they arrived, headers of every type among them.
    #[must_use]
    pub const fn properties(&self) -> &BasicProperties {
        &self.properties
    }

    pub(crate) fn table(&self) -> Option<&FieldTable> {
        self.properties.headers().as_ref()
    }

    /// Tells whether there is a header of that name, in any spelling and of any type.
    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.table().is_some_and(|table| table.inner().keys().any(|key| key.as_str().eq_ignore_ascii_case(name)))
    }

    /// Returns the content type as the header that core looks for, where there is none of that name.
    fn content_type(&self, name: &str) -> Option<&str> {
        let property = self.properties.content_type().as_ref().filter(|_| name.eq_ignore_ascii_case(CONTENT_TYPE))?;
        (!property.as_str().is_empty() && !self.has_header(CONTENT_TYPE)).then(|| property.as_str())
    }
}

impl Native for NativeMessage {
    // ATTR-R-02.
    fn destination(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.way.name))
    }

    fn namespace(&self) -> Option<&str> {
        Some(self.exchange()).filter(|exchange| !exchange.is_empty())
    }

    // ATTR-R-05, ATTR-R-06.
    fn attributes(&self, operation: OperationType, attributes: &mut Vec<KeyValue>) {
        let is_settle = operation == OperationType::Settle;
        if !is_settle && !self.way.key.is_empty() {
            attributes.push(KeyValue::new(ROUTING_KEY, Arc::clone(&self.way.key)));
        }
        attributes.push(KeyValue::new(DELIVERY_TAG, i64::try_from(self.delivery_tag).unwrap_or(i64::MAX)));
    }

    fn headers(&self) -> Option<&dyn NativeHeaders> {
        let has_headers = self.table().is_some_and(|table| !table.inner().is_empty());
        (has_headers || self.content_type(CONTENT_TYPE).is_some()).then_some(self as &dyn NativeHeaders)
    }

    fn forwarded(&self) -> Option<Arc<dyn std::any::Any + Send + Sync>> {
        Some(Arc::new(Properties::forwarded(&self.properties)))
    }

    fn position(&self) -> Option<String> {
        let queue = self.queue();
        if !self.way.from.is_stream {
            return Some(format!("queue {queue}"));
        }
        let offset = self.table().and_then(|table| table.inner().get(STREAM_OFFSET)).and_then(number)?;
        Some(format!("stream {queue}, offset {offset}"))
    }
}

impl NativeHeaders for NativeMessage {
    fn as_extractor(&self) -> &dyn Extractor {
        self
    }

    fn to_headers(&self) -> Headers {
        let mut headers = self.table().map(to_headers).unwrap_or_default();
        if let Some(content_type) = self.content_type(CONTENT_TYPE) {
            headers.append(CONTENT_TYPE, content_type.to_owned());
        }
        headers
    }
}

impl Extractor for NativeMessage {
    fn get(&self, key: &str) -> Option<&str> {
        let text = HeaderExtractor::new(self.table()).find(key).or_else(|| self.content_type(key));
        if text.is_some() || is_propagation_header(key) || !self.has_header(key) {
            return text;
        }
        // The same as in the copy: a number has a text there.
        self.copied.get_or_init(|| self.to_headers()).get_last(key).filter(|text| !text.is_empty())
    }

    fn keys(&self) -> Vec<&str> {
        let mut names = HeaderExtractor::new(self.table()).names();
        names.extend(self.content_type(CONTENT_TYPE).map(|_| CONTENT_TYPE));
        names
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let texts = HeaderExtractor::new(self.table()).find_all(key);
        texts.or_else(|| self.get(key).map(|text| vec![text]))
    }
}

/// Reads the messages of one consumer.
#[derive(Debug)]
pub(crate) struct Reading {
    from: Arc<ReadFrom>,
    /// The way of the last message.
    last: Arc<Way>,
    unanswered: Seldom,
}

impl Reading {
    pub(crate) fn new(from: Arc<ReadFrom>) -> Self {
        let last = Arc::new(Way::new(Arc::clone(&from), "", &from.queue));
        Self { from, last, unanswered: Seldom::default() }
    }

    fn way(&mut self, exchange: &str, key: &str) -> Arc<Way> {
        if self.last.exchange != exchange || *self.last.key != *key {
            self.last = Arc::new(Way::new(Arc::clone(&self.from), exchange, key));
        }
        Arc::clone(&self.last)
    }

    /// Turns a message of the client into a delivery. `again` is how often it was handed out before by this process without the server's
    /// counting it.
    pub(crate) fn to_delivery(&mut self, message: lapin::message::Delivery, again: u32) -> Delivery {
        let lapin::message::Delivery { delivery_tag, exchange, routing_key, redelivered, properties, data, .. } =
            message;
        let returned = Returned::read(&properties, &self.from.queue);
        let came_by = returned.and_then(|returned| returned.way);
        let (exchange, key) = came_by.unwrap_or((exchange.as_str(), routing_key.as_str()));
        let way = self.way(exchange, key);

        let counted = counted(&properties, redelivered, self.from.counts);
        let attempt = returned.map_or(1, |returned| returned.attempt).saturating_add(counted).saturating_add(again);
        let mut delivery = Delivery::new(Arc::clone(&way.key), data).with_attempt(attempt);
        if let Some(cause) = returned.and_then(|returned| returned.cause) {
            delivery = delivery.with_retry_cause(cause);
        }
        if self.from.most_deliveries.is_some_and(|most| counted.saturating_add(1) >= most) {
            delivery = delivery.with_last_attempt();
        }
        let delivery = self.with_reply_to(with_properties(delivery, &properties), &properties);
        let native = NativeMessage { way, delivery_tag, redelivered, properties, copied: OnceLock::new() };
        delivery.with_native(Arc::new(native))
    }

    /// Sets where an answer is expected: not where it would come back to the queue, at once or after a delay.
    // ATTR-R-08.
    fn with_reply_to(&mut self, delivery: Delivery, properties: &BasicProperties) -> Delivery {
        let address = properties.reply_to().as_ref().map(ShortString::as_str).filter(|address| !address.is_empty());
        let Some(address) = address else { return delivery };
        let queue = &*self.from.queue;
        if address == queue || address == DIRECT_REPLY || death::is_delay_of(address, queue) {
            if let Some(count) = self.unanswered.note() {
                warn!(
                    destination = queue,
                    count, "a message asks for its answer where nobody waits for one: it is handled, and not answered"
                );
            }
            return delivery;
        }
        let delivery = delivery.with_reply_to(Destination::new(address));
        // What waits there has no name of its own: a queue that has one may be read tomorrow.
        if is_anonymous(address) { delivery.with_waiting_requester() } else { delivery }
    }
}

// ATTR-R-07.
fn with_properties(mut delivery: Delivery, properties: &BasicProperties) -> Delivery {
    let text = |text: &Option<ShortString>| {
        text.as_ref().map(ShortString::as_str).filter(|text| !text.is_empty()).map(Arc::<str>::from)
    };
    if let Some(id) = text(properties.message_id()) {
        delivery = delivery.with_id(id);
    }
    if let Some(id) = text(properties.correlation_id()) {
        delivery = delivery.with_correlation_id(id);
    }
    match properties.timestamp().and_then(time) {
        Some(sent_at) => delivery.with_sent_at(sent_at),
        None => delivery,
    }
}

/// Returns how often the server has delivered the message before, as far as it says so.
// R10.
fn counted(properties: &BasicProperties, redelivered: bool, counts: bool) -> u32 {
    // At the first delivery the header is a stranger's.
    if !redelivered {
        return 0;
    }
    if !counts {
        return 1;
    }
    let count = properties.headers().as_ref().and_then(|table| number(table.inner().get(DELIVERY_COUNT)?));
    count.map_or(0, |count| count.try_into().unwrap_or(u32::MAX))
}
