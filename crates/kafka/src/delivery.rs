use std::borrow::Cow;
use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;
use rdkafka::Timestamp as NativeTimestamp;
use rdkafka::message::Message;
use throughline_core::Delivery;
use throughline_core::broker::HeaderNames;
use throughline_core::message::{Native, NativeHeaders, OperationType};
use throughline_core::telemetry::semconv::RETRY_DESTINATION;

use crate::carrier::RecordHeaders;
use crate::copied_headers::CopiedHeaders;
use crate::raw_headers;
use crate::semconv::{key_attribute, offset_attribute, partition_attribute, tombstone_attribute};
use crate::subscription::ReplyTopics;

/// What only Kafka knows about a received message: its place in the topic, and whether its value is null.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use throughline_core::Delivery;
/// use throughline_kafka::NativeRecord;
///
/// // What a test gives to a handler that asks for the partition.
/// let delivery = Delivery::new("orders", "{}").with_native(Arc::new(NativeRecord::at("orders", 3, 42)));
/// let record = delivery.native::<NativeRecord>();
/// assert_eq!(record.map(|record| (record.partition(), record.offset())), Some((3, 42)));
/// ```
#[derive(Clone, Debug)]
pub struct NativeRecord {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: NativeTimestamp,
    pub(crate) key: Option<Bytes>,
    pub(crate) headers: CopiedHeaders,
    pub(crate) is_tombstone: bool,
    /// Whether the key may be an attribute.
    // ATTR-C-23.
    pub(crate) records_key: bool,
    /// The topic it was published to first, where this is another one.
    pub(crate) shown_as: Option<Arc<str>>,
    /// The header of the media type.
    content_type: &'static str,
}

impl NativeRecord {
    /// Creates one at a place in a topic, for tests on the in-memory broker.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_kafka::NativeRecord;
    /// assert_eq!(NativeRecord::at("orders", 3, 42).topic(), "orders");
    /// ```
    #[must_use]
    pub fn at(topic: impl Into<Arc<str>>, partition: i32, offset: i64) -> Self {
        Self {
            topic: topic.into(),
            partition,
            offset,
            timestamp: NativeTimestamp::NotAvailable,
            key: None,
            headers: CopiedHeaders::default(),
            is_tombstone: false,
            records_key: true,
            shown_as: None,
            content_type: HeaderNames::default().content_type,
        }
    }

    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the partition, counted from 0.
    #[must_use]
    pub const fn partition(&self) -> i32 {
        self.partition
    }

    /// Returns the offset in the partition, counted from 0.
    #[must_use]
    pub const fn offset(&self) -> i64 {
        self.offset
    }

    /// Returns the timestamp with its kind: when the record was made, or when the broker appended it.
    #[must_use]
    pub const fn timestamp(&self) -> NativeTimestamp {
        self.timestamp
    }

    /// Returns the key; `None` where it is null.
    #[must_use]
    pub const fn key(&self) -> Option<&Bytes> {
        self.key.as_ref()
    }

    /// Tells whether the value is null, which in a compacted topic deletes the key. An empty value is not null.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        self.is_tombstone
    }
}

impl Native for NativeRecord {
    // ATTR-K-13.
    fn destination(&self) -> Option<Cow<'_, str>> {
        self.shown_as.as_deref().map(Cow::Borrowed)
    }

    fn attributes(&self, operation: OperationType, attributes: &mut Vec<KeyValue>) {
        let key = self.key.as_deref().filter(|_| self.records_key);
        push_attributes(operation, self.partition, self.offset, key, self.is_tombstone, attributes);
        if self.shown_as.is_some() {
            attributes.push(KeyValue::new(RETRY_DESTINATION, Arc::clone(&self.topic)));
        }
    }

    fn headers(&self) -> Option<&dyn NativeHeaders> {
        (!self.headers.is_empty()).then_some(&self.headers as &dyn NativeHeaders)
    }

    fn content_type_header(&self) -> &'static str {
        self.content_type
    }

    fn position(&self) -> Option<String> {
        Some(format!("topic {}, partition {}, offset {}", self.topic, self.partition, self.offset))
    }
}

/// Adds what a span of a received record shows of it: not the key and the tombstone when it is settled.
// ATTR-K-02, -04 to -06.
pub(crate) fn push_attributes(
    operation: OperationType,
    partition: i32,
    offset: i64,
    key: Option<&[u8]>,
    is_tombstone: bool,
    attributes: &mut Vec<KeyValue>,
) {
    attributes.push(partition_attribute(partition));
    attributes.push(offset_attribute(offset));
    if operation == OperationType::Settle {
        return;
    }
    attributes.extend(key.and_then(key_attribute));
    if is_tombstone {
        attributes.push(tombstone_attribute());
    }
}

/// Returns a record's time, which is in milliseconds since 1970; `None` where it has none.
pub(crate) fn time_of(timestamp: NativeTimestamp) -> Option<SystemTime> {
    let millis = u64::try_from(timestamp.to_millis()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

/// What one subscription takes from a record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// Whether keys may be attributes.
    // ATTR-C-23.
    pub(crate) records_keys: bool,
    pub(crate) replies: Arc<ReplyTopics>,
    pub(crate) names: HeaderNames,
}

/// Turns a record into a delivery.
pub(crate) fn to_delivery<M>(message: &M, topic: &Arc<str>, reading: &Reading) -> Delivery
where
    M: Message,
    M::Headers: RecordHeaders,
{
    let mut copies = Copies::default();
    let copied = copies.push(message);
    copies.next(&copied, topic, reading)
}

/// Records, copied out of the client's memory one behind the other; each becomes a delivery in its turn, the hot path.
///
/// A delivery's own memory is made then, where it is handled and freed soon, and not by the thread that copies: memory that one thread
/// makes and another one frees costs both of them a lock.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Of each record its key, its value and its headers.
    bytes: Cursor<Vec<u8>>,
}

/// What there is to know of a record beside its bytes.
#[derive(Debug)]
pub(crate) struct CopiedRecord {
    partition: i32,
    offset: i64,
    timestamp: NativeTimestamp,
    /// The lengths of the key and the value, where they are not null.
    key: Option<usize>,
    value: Option<usize>,
    /// The length of all headers.
    headers: usize,
}

impl CopiedRecord {
    pub(crate) const fn offset(&self) -> i64 {
        self.offset
    }
}

impl Copies {
    /// Has room for as much as others had.
    pub(crate) fn like(others: &Self) -> Self {
        let bytes = Vec::with_capacity(others.bytes.get_ref().len());
        Self { bytes: Cursor::new(bytes) }
    }

    /// Copies a record behind the others.
    pub(crate) fn push<M>(&mut self, message: &M) -> CopiedRecord
    where
        M: Message,
        M::Headers: RecordHeaders,
    {
        let bytes = self.bytes.get_mut();
        let (key, value) = (message.key(), message.payload());
        for part in key.into_iter().chain(value) {
            bytes.extend_from_slice(part);
        }
        let before = bytes.len();
        for header in message.headers().map(RecordHeaders::to_borrowed).into_iter().flat_map(raw_headers::iter) {
            CopiedHeaders::write(bytes, &header);
        }
        CopiedRecord {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp(),
            key: key.map(<[u8]>::len),
            value: value.map(<[u8]>::len),
            headers: bytes.len() - before,
        }
    }

    /// Turns the next record into a delivery: key, value and headers are slices of one buffer.
    pub(crate) fn next(&mut self, record: &CopiedRecord, topic: &Arc<str>, reading: &Reading) -> Delivery {
        let own = record.key.unwrap_or_default() + record.value.unwrap_or_default() + record.headers;
        // Longer than what is left it never is: the lengths are those of the parts.
        let mut rest = self.bytes.copy_to_bytes(own);
        let key = record.key.map(|length| rest.split_to(length));
        let payload = record.value.map(|length| rest.split_to(length));
        let headers = CopiedHeaders::new(rest);

        let is_tombstone = payload.is_none();
        let mut delivery = Delivery::new(Arc::clone(topic), payload.unwrap_or_default());
        if let Some(key) = &key {
            delivery = delivery.with_key(key.clone());
        }
        if !headers.is_empty() {
            delivery = with_properties(delivery, &headers, reading);
        }
        if is_tombstone {
            delivery = delivery.without_payload();
        }
        if let Some(sent_at) = time_of(record.timestamp) {
            delivery = delivery.with_sent_at(sent_at);
        }
        delivery.with_native(Arc::new(NativeRecord {
            topic: Arc::clone(topic),
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key,
            headers,
            is_tombstone,
            records_key: reading.records_keys,
            shown_as: None,
            content_type: reading.names.content_type,
        }))
    }
}

/// Lets telemetry show a delivery under another topic than the one it was read from.
pub(crate) fn shown_as(delivery: Delivery, topic: &str) -> Delivery {
    let Some(record) = delivery.native::<NativeRecord>() else { return delivery };
    let record = NativeRecord { shown_as: Some(Arc::from(topic)), ..record.clone() };
    delivery.with_native(Arc::new(record))
}

fn with_properties(mut delivery: Delivery, headers: &CopiedHeaders, reading: &Reading) -> Delivery {
    let (text, names) = (|name| headers.get(name), &reading.names);
    let id = text(names.message_id).map(Arc::<str>::from);
    let correlation_id = text(names.correlation_id).map(Arc::<str>::from);
    let reply_to = text(names.reply_to).and_then(|asked| reading.replies.destination(asked, delivery.destination()));
    if let Some(id) = id {
        delivery = delivery.with_id(id);
    }
    if let Some(id) = correlation_id {
        delivery = delivery.with_correlation_id(id);
    }
    match reply_to {
        Some(destination) => delivery.with_reply_to(destination),
        None => delivery,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};

    use super::*;
    use crate::Topic;

    fn record(key: Option<&[u8]>, payload: Option<&[u8]>, headers: &[(&str, &str)]) -> OwnedMessage {
        let entries = headers.iter();
        let native =
            entries.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        OwnedMessage::new(
            payload.map(<[u8]>::to_vec),
            key.map(<[u8]>::to_vec),
            "orders".to_owned(),
            NativeTimestamp::CreateTime(1_700_000_000_000),
            3,
            12,
            (!headers.is_empty()).then_some(native),
        )
    }

    fn reading(records_keys: bool) -> Reading {
        let replies = Topic::new("orders").reply_topics(["answers"]).replies;
        Reading { records_keys, replies, names: HeaderNames::default() }
    }

    fn delivery(record: &OwnedMessage) -> Delivery {
        to_delivery(record, &Arc::from("orders"), &reading(true))
    }

    fn attributes(delivery: &Delivery, operation: OperationType) -> Vec<String> {
        let mut attributes = Vec::new();
        delivery.native::<NativeRecord>().unwrap().attributes(operation, &mut attributes);
        attributes.iter().map(|attribute| format!("{}={}", attribute.key, attribute.value)).collect()
    }

    #[test]
    fn a_delivery_has_all_of_the_record() {
        let headers = [("message-id", "m1"), ("Correlation-Id", "c1"), ("reply-to", "answers"), ("tenant", "acme")];
        let delivery = delivery(&record(Some(b"k1"), Some(b"{}"), &headers));
        assert_eq!((delivery.destination(), delivery.payload().as_ref()), ("orders", &b"{}"[..]), "ATTR-K-01");
        assert_eq!(delivery.key().map(AsRef::as_ref), Some(&b"k1"[..]));
        assert_eq!((delivery.id(), delivery.correlation_id()), (Some("m1"), Some("c1")), "ATTR-K-09");
        assert_eq!(delivery.reply_to().map(|to| to.name()), Some("answers"));
        assert_eq!(delivery.headers().get("tenant"), Some("acme"));
        assert_eq!(delivery.attempt(), 1);
        assert_eq!(delivery.sent_at(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        let native = delivery.native::<NativeRecord>().unwrap();
        assert_eq!((native.topic(), native.partition(), native.offset()), ("orders", 3, 12));
        assert_eq!(native.timestamp(), NativeTimestamp::CreateTime(1_700_000_000_000));
        assert_eq!(native.key(), delivery.key());
        assert_eq!(delivery.position().as_deref(), Some("topic orders, partition 3, offset 12"));
    }

    #[test]
    fn records_that_are_copied_together_stay_apart() {
        let records = [
            record(Some(b"k1"), Some(b"{}"), &[("message-id", "m1"), ("tenant", "acme")]),
            record(None, None, &[("tenant", ""), ("tenant", "other")]),
            record(Some(b""), Some(b"long enough"), &[]),
            record(Some(b"k4"), Some(b""), &[("correlation-id", "c4")]),
        ];
        let topic: Arc<str> = Arc::from("orders");
        let mut copies = Copies::like(&Copies::default());
        let copied: Vec<CopiedRecord> = records.iter().map(|record| copies.push(record)).collect();
        for (record, copied) in records.iter().zip(&copied) {
            let (together, alone) = (copies.next(copied, &topic, &reading(true)), delivery(record));
            let parts = |delivery: &Delivery| {
                let headers = delivery.headers().iter().map(|(name, value)| (name.to_owned(), value.clone()));
                let headers: Vec<(String, Bytes)> = headers.collect();
                let (key, payload) =
                    (delivery.key().cloned(), delivery.has_payload().then(|| delivery.payload().clone()));
                (key, payload, headers, delivery.id().map(str::to_owned), delivery.correlation_id().map(str::to_owned))
            };
            assert_eq!(parts(&together), parts(&alone));
        }
    }

    #[test]
    fn an_id_is_never_invented() {
        let delivery = delivery(&record(Some(b"k1"), Some(b"{}"), &[("message-id", "")]));
        assert_eq!(
            (delivery.id(), delivery.correlation_id(), delivery.reply_to().is_none()),
            (None, None, true),
            "ATTR-K-09"
        );
    }

    #[test]
    fn null_is_a_tombstone_and_empty_is_not() {
        for (payload, is_tombstone) in [(None, true), (Some(&b""[..]), false)] {
            let delivery = delivery(&record(Some(b"k1"), payload, &[]));
            assert!(delivery.payload().is_empty());
            assert_eq!(delivery.has_payload(), !is_tombstone);
            assert_eq!(delivery.native::<NativeRecord>().unwrap().is_tombstone(), is_tombstone, "ATTR-K-06");
        }
    }

    #[test]
    fn an_empty_key_is_a_key() {
        assert_eq!(delivery(&record(Some(b""), Some(b"{}"), &[])).key(), Some(&Bytes::new()));
        assert_eq!(delivery(&record(None, Some(b"{}"), &[])).key(), None);
    }

    #[test]
    fn each_operation_has_its_attributes() {
        let tombstone = delivery(&record(Some(b"k1"), None, &[]));
        let placed = ["messaging.destination.partition.id=3", "messaging.kafka.offset=12"];
        let shown = ["messaging.kafka.message.key=k1", "messaging.kafka.message.tombstone=true"];
        for operation in [OperationType::Receive, OperationType::Process] {
            assert_eq!(attributes(&tombstone, operation), [placed, shown].concat(), "ATTR-K-02, -04 to -06");
        }
        assert_eq!(attributes(&tombstone, OperationType::Settle), placed, "ATTR-K-04, ATTR-K-06");
        let plain = delivery(&record(None, Some(b""), &[]));
        assert_eq!(attributes(&plain, OperationType::Process), placed, "ATTR-K-04, ATTR-K-06");
    }

    #[test]
    fn a_key_that_may_not_be_shown_is_not() {
        let delivery = to_delivery(&record(Some(b"k1"), Some(b"{}"), &[]), &Arc::from("orders"), &reading(false));
        assert_eq!(attributes(&delivery, OperationType::Process).len(), 2, "ATTR-C-23");
        assert_eq!(delivery.key(), Some(&Bytes::from_static(b"k1")), "the handler has it all the same");
    }

    #[test]
    fn a_record_that_waited_is_shown_under_the_topic_it_was_published_to() {
        let waited = to_delivery(&record(None, Some(b"{}"), &[]), &Arc::from("orders.g.retry.1"), &reading(true));
        let shown = shown_as(waited, "orders");
        assert_eq!(shown.destination(), "orders.g.retry.1", "the handler sees where it is");
        let native = shown.native::<NativeRecord>().unwrap();
        assert_eq!((native.topic(), Native::destination(native).as_deref()), ("orders.g.retry.1", Some("orders")));
        for operation in [OperationType::Process, OperationType::Settle] {
            let shown = attributes(&shown, operation);
            assert!(shown.contains(&"throughline.retry.destination=orders.g.retry.1".to_owned()), "{shown:?}");
        }
    }

    #[test]
    fn a_time_that_is_not_known_is_none() {
        for timestamp in [
            NativeTimestamp::NotAvailable,
            NativeTimestamp::CreateTime(-1),
            NativeTimestamp::CreateTime(-1_000),
            NativeTimestamp::LogAppendTime(i64::MIN),
        ] {
            assert_eq!(time_of(timestamp), None);
        }
        assert!(time_of(NativeTimestamp::LogAppendTime(0)).is_some());
        let _ = time_of(NativeTimestamp::CreateTime(i64::MAX));
    }

    proptest! {
        // VERF-12: whatever a record holds, the delivery holds the same, and each part its own.
        #[test]
        fn every_part_is_copied(
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..8)),
            payload in prop::option::of(prop::collection::vec(any::<u8>(), 0..32)),
            headers in prop::collection::vec(
                (prop::collection::vec(1_u8.., 0..6), prop::option::of(prop::collection::vec(any::<u8>(), 0..8))),
                0..5,
            ),
        ) {
            let mut native = OwnedHeaders::new();
            for (name, value) in &headers {
                raw_headers::append(&mut native, name, value.as_deref());
            }
            let record = record(key.as_deref(), payload.as_deref(), &[]).replace_headers(Some(native));
            let delivery = delivery(&record);
            prop_assert_eq!(delivery.key().map(AsRef::as_ref), key.as_deref());
            prop_assert_eq!(delivery.payload().as_ref(), payload.as_deref().unwrap_or_default());
            let named = headers.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)));
            let expected: Vec<(&str, &[u8])> =
                named.map(|(name, value)| (name, value.as_deref().unwrap_or_default())).collect();
            let found: Vec<(&str, &[u8])> =
                delivery.headers().iter().map(|(name, value)| (name, value.as_ref())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
