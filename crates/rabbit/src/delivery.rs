use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use lapin::BasicProperties;
use lapin::types::{DeliveryTag, FieldTable, ShortString};
use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;
use throughline_core::broker::Seldom;
use throughline_core::message::{Native, NativeHeaders, OperationType};
use throughline_core::propagation::is_propagation_header;
use throughline_core::{Delivery, Destination, Headers};
use tracing::warn;

use crate::carrier::{HeaderExtractor, number, to_headers};
use crate::copy::Returned;
use crate::death;
use crate::properties::{CONTENT_TYPE, Properties, time};
use crate::semconv::{DELIVERY_TAG, DIRECT_REPLY, ROUTING_KEY, is_anonymous, source_name};

/// The header that counts how often a quorum queue has delivered a message before.
pub(crate) const DELIVERY_COUNT: &str = "x-delivery-count";

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
pub(crate) struct Way {
    from: Arc<ReadFrom>,
    pub(crate) exchange: String,
    key: Arc<str>,
    /// The name for telemetry.
    pub(crate) name: String,
}

impl Way {
    pub(crate) fn new(from: Arc<ReadFrom>, exchange: &str, key: &str) -> Self {
        let name = source_name(exchange, key, &from.queue).into_owned();
        Self { exchange: exchange.to_owned(), key: key.into(), name, from }
    }

    /// Tells whether a message came by this way.
    pub(crate) fn is(&self, exchange: &str, key: &str) -> bool {
        self.exchange == exchange && *self.key == *key
    }

    /// Adds what a span shows of a message that came by this way.
    // ATTR-R-05, ATTR-R-06.
    pub(crate) fn push_attributes(&self, operation: OperationType, tag: DeliveryTag, attributes: &mut Vec<KeyValue>) {
        if operation != OperationType::Settle && !self.key.is_empty() {
            attributes.push(KeyValue::new(ROUTING_KEY, Arc::clone(&self.key)));
        }
        attributes.push(tag_attribute(tag));
    }
}

pub(crate) fn tag_attribute(tag: DeliveryTag) -> KeyValue {
    KeyValue::new(DELIVERY_TAG, i64::try_from(tag).unwrap_or(i64::MAX))
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

    /// Returns the exchange and the routing key, where a copy that comes straight back to the queue would have others.
    pub(crate) fn way(&self) -> Option<(&str, &str)> {
        let is_other = !self.exchange().is_empty() || self.routing_key() != self.queue();
        is_other.then(|| (self.exchange(), self.routing_key()))
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

    fn attributes(&self, operation: OperationType, attributes: &mut Vec<KeyValue>) {
        self.way.push_attributes(operation, self.delivery_tag, attributes);
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
        if !self.last.is(exchange, key) {
            self.last = Arc::new(Way::new(Arc::clone(&self.from), exchange, key));
        }
        Arc::clone(&self.last)
    }

    /// Turns a message of the client into a delivery.
    pub(crate) fn read(&mut self, message: lapin::message::Delivery) -> Delivery {
        let lapin::message::Delivery { delivery_tag, exchange, routing_key, redelivered, properties, data, .. } =
            message;
        let returned = Returned::read(&properties, &self.from.queue);
        let came_by = returned.and_then(|returned| returned.way);
        let (exchange, key) = came_by.unwrap_or((exchange.as_str(), routing_key.as_str()));
        let way = self.way(exchange, key);

        let counted = counted(&properties, redelivered, self.from.counts);
        let attempt = returned.map_or(1, |returned| returned.attempt).saturating_add(counted);
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
            if let Some(count) = self.unanswered.note(1) {
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
pub(crate) fn counted(properties: &BasicProperties, redelivered: bool, counts: bool) -> u32 {
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use lapin::types::AMQPValue;
    use opentelemetry::Value;
    use proptest::prelude::*;
    use throughline_core::Envelope;

    use super::*;
    use crate::copy::to_copy;
    use crate::testing::{any_properties, arrived, each_type, table, text, with_headers};

    const CLASSIC: (bool, Option<u32>) = (false, None);
    const QUORUM: (bool, Option<u32>) = (true, Some(4));

    fn reading((counts, most_deliveries): (bool, Option<u32>)) -> Reading {
        Reading::new(Arc::new(ReadFrom { queue: "orders".into(), counts, most_deliveries, is_stream: false }))
    }

    fn read(properties: BasicProperties) -> Delivery {
        reading(CLASSIC).read(arrived("shop", "placed.eu", properties))
    }

    fn again(queue: (bool, Option<u32>), redelivered: bool, properties: BasicProperties) -> Delivery {
        let message = lapin::message::Delivery { redelivered, ..arrived("", "orders", properties) };
        reading(queue).read(message)
    }

    fn native(delivery: &Delivery) -> &NativeMessage {
        delivery.native().unwrap()
    }

    fn name(exchange: &str, key: &str) -> String {
        let delivery = reading(CLASSIC).read(arrived(exchange, key, BasicProperties::default()));
        native(&delivery).destination().unwrap().into_owned()
    }

    #[test]
    fn a_message_keeps_all_that_is_portable() {
        let properties = with_headers(&[("tenant", text("acme"))])
            .with_message_id("m1".into())
            .with_correlation_id("c1".into())
            .with_timestamp(1_700_000_000)
            .with_content_type("application/json".into());
        let delivery = read(properties);
        assert_eq!((delivery.destination(), delivery.payload().as_ref()), ("placed.eu", &b"{}"[..]));
        assert_eq!((delivery.id(), delivery.correlation_id()), (Some("m1"), Some("c1")), "ATTR-R-07");
        assert_eq!(delivery.sent_at(), Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        assert_eq!((delivery.header("Tenant"), delivery.content_type()), (Some("acme"), Some("application/json")));
        let headers: Vec<_> = delivery.headers().iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(headers, ["tenant", "content-type"]);
        let message = native(&delivery);
        assert_eq!((message.exchange(), message.routing_key(), message.queue()), ("shop", "placed.eu", "orders"));
        assert_eq!((message.delivery_tag(), message.redelivered(), message.namespace()), (7, false, Some("shop")));
        let far = read(BasicProperties::default().with_timestamp(u64::MAX));
        assert_eq!((far.sent_at(), far.id()), (None, None));
    }

    #[test]
    fn the_name_is_exchange_key_and_queue() {
        assert_eq!(name("shop", "placed.eu"), "shop:placed.eu:orders", "ATTR-R-02");
        assert_eq!(
            (name("", "orders"), name("logs", ""), name("shop", "orders")),
            ("orders".into(), "logs:orders".into(), "shop:orders".into()),
            "ATTR-R-03"
        );
        let plain = reading(CLASSIC).read(arrived("", "orders", BasicProperties::default()));
        assert_eq!(native(&plain).namespace(), None);
    }

    #[test]
    fn each_message_has_its_own_way() {
        let mut reading = reading(CLASSIC);
        let ways = [("a", "1"), ("a", "1"), ("b", "1"), ("b", "2"), ("a", "1")];
        let read = ways.map(|(exchange, key)| {
            let delivery = reading.read(arrived(exchange, key, BasicProperties::default()));
            (native(&delivery).exchange().to_owned(), delivery.destination().to_owned())
        });
        assert_eq!(read, ways.map(|(exchange, key)| (exchange.to_owned(), key.to_owned())));
    }

    #[test]
    fn key_and_tag_are_attributes_where_they_belong() {
        let attributes = |exchange: &str, key: &str, operation| {
            let delivery = reading(CLASSIC).read(arrived(exchange, key, BasicProperties::default()));
            let mut attributes = Vec::new();
            native(&delivery).attributes(operation, &mut attributes);
            attributes
        };
        let tag = KeyValue::new(DELIVERY_TAG, Value::I64(7));
        for operation in [OperationType::Receive, OperationType::Process] {
            let key = KeyValue::new(ROUTING_KEY, "placed.eu");
            assert_eq!(attributes("shop", "placed.eu", operation), [key, tag.clone()], "ATTR-R-05, ATTR-R-06");
        }
        assert_eq!(
            attributes("shop", "placed.eu", OperationType::Settle),
            std::slice::from_ref(&tag),
            "ATTR-R-05, ATTR-R-06"
        );
        assert_eq!(attributes("logs", "", OperationType::Process), [tag], "ATTR-R-05");
    }

    #[test]
    fn a_header_reads_the_same_before_and_after_the_headers_are_copied() {
        let delivery = read(with_headers(&each_type()));
        let names: Vec<_> = each_type().into_iter().map(|(name, _)| name).collect();
        let read =
            |delivery: &Delivery| names.iter().map(|name| delivery.header(name).map(str::to_owned)).collect::<Vec<_>>();
        let before = read(&delivery);
        assert_eq!(delivery.headers().len(), 13);
        assert_eq!(before, read(&delivery));
        assert_eq!(delivery.header("i32"), Some("-70000"));
    }

    #[test]
    fn a_header_with_a_content_type_is_read_before_the_property() {
        let both = with_headers(&[("Content-Type", text("vnd/x"))]).with_content_type("application/json".into());
        let delivery = read(both);
        assert_eq!(delivery.content_type(), Some("vnd/x"));
        assert_eq!(delivery.headers().get("content-type"), Some("vnd/x"));
        assert!(native(&read(BasicProperties::default())).headers().is_none());
    }

    #[test]
    fn the_attempt_counts_what_the_server_and_this_process_have_seen() {
        let count = |count| with_headers(&[("x-delivery-count", AMQPValue::LongLongInt(count))]);
        let none = BasicProperties::default;
        for (queue, redelivered, properties, attempt, is_last) in [
            (QUORUM, false, none(), 1, false),
            (QUORUM, false, count(0), 1, false),
            (QUORUM, true, count(1), 2, false),
            (QUORUM, true, count(2), 3, false),
            (QUORUM, true, count(3), 4, true),
            (QUORUM, true, count(-1), 1, false),
            (QUORUM, true, count(i64::MAX), u32::MAX, true),
            (QUORUM, false, count(1_000), 1, false),
            (CLASSIC, false, none(), 1, false),
            (CLASSIC, true, none(), 2, false),
            (CLASSIC, true, count(1_000), 2, false),
        ] {
            let delivery = again(queue, redelivered, properties.clone());
            let seen = (delivery.attempt(), delivery.is_last_attempt());
            assert_eq!(seen, (attempt, is_last), "{queue:?} {redelivered} {properties:?}");
        }
    }

    #[test]
    fn a_copy_that_has_waited_is_the_message_again() {
        let copy = to_copy(&BasicProperties::default(), Some(("shop", "placed.eu")), 3, Some("timeout"));
        let mut headers = copy.headers().clone().unwrap();
        headers.insert("x-last-death-queue".into(), text("orders.retry.30s"));
        let delivery = again(QUORUM, false, copy.clone().with_headers(headers));
        assert_eq!((delivery.attempt(), delivery.retry_cause()), (3, Some("timeout")));
        assert_eq!(native(&delivery).destination().as_deref(), Some("shop:placed.eu:orders"));
        assert_eq!((delivery.destination(), native(&delivery).exchange()), ("placed.eu", "shop"));
        let forged = again(QUORUM, false, copy);
        assert_eq!((forged.attempt(), forged.retry_cause(), forged.destination()), (1, None, "orders"));
    }

    #[test]
    fn an_answer_goes_where_somebody_waits() {
        let reply = |address: &str| {
            let delivery = read(BasicProperties::default().with_reply_to(address.into()));
            let to = delivery.reply_to().map(|to| (to.name().to_owned(), to.is_temporary()));
            (to, delivery.is_request())
        };
        for address in ["amq.rabbitmq.reply-to.g1h2", "amq.gen-x"] {
            assert_eq!(reply(address), (Some((address.to_owned(), true)), true), "ATTR-R-08");
        }
        assert_eq!(reply("answers"), (Some(("answers".to_owned(), true)), false), "nobody may be waiting there");
        assert_eq!(reply("orders.retry").0.map(|(name, _)| name).as_deref(), Some("orders.retry"));
        for address in ["", "orders", "orders.retry.30s", "amq.rabbitmq.reply-to"] {
            assert_eq!(reply(address), (None, false), "{address}");
        }
    }

    #[test]
    fn a_message_lies_in_its_queue_or_at_its_offset() {
        let delivery = read(BasicProperties::default());
        assert_eq!(native(&delivery).position().as_deref(), Some("queue orders"));
        let from = ReadFrom { queue: "events".into(), counts: false, most_deliveries: None, is_stream: true };
        let properties = with_headers(&[("x-stream-offset", AMQPValue::LongLongInt(42))]);
        let delivery = Reading::new(Arc::new(from)).read(arrived("", "events", properties));
        assert_eq!(native(&delivery).position().as_deref(), Some("stream events, offset 42"));
    }

    #[test]
    fn a_forward_has_the_properties_that_stay() {
        let properties = with_headers(&[("count", AMQPValue::LongInt(3))]).with_priority(5).with_expiration("1".into());
        let envelope = Envelope::forward(&read(properties), "dead");
        let kept = envelope.native::<Properties>().unwrap();
        assert_eq!((kept.priority(), kept.expiration(), kept.header("count")), (Some(5), None, None));
        let origin = envelope.origin::<NativeMessage>().unwrap();
        assert_eq!(origin.table(), Some(&table(&[("count", AMQPValue::LongInt(3))])));
    }

    proptest! {
        #[test]
        fn nothing_a_stranger_sends_panics(
            properties in any_properties(),
            exchange in ".{0,4}",
            key in "orders|.{0,4}",
            redelivered: bool,
            counts: bool,
            name in "x-death|retry-attempt|Content-Type|.{0,4}",
        ) {
            let message = lapin::message::Delivery { redelivered, ..arrived(&exchange, &key, properties) };
            let delivery = reading((counts, Some(4))).read(message);
            let native = native(&delivery);
            let before = delivery.header(&name).map(str::to_owned);
            let _ = (native.position(), native.destination(), native.keys(), native.get_all(&name));
            let copied = delivery.headers().get_last(&name).filter(|text| !text.is_empty()).map(str::to_owned);
            prop_assert!(before.is_none() || copied.is_some(), "{name}");
            prop_assert!(delivery.attempt() >= 1);
        }
    }
}
