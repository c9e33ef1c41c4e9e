use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;
use throughline_core::broker::HeaderNames;
use throughline_core::message::{Native, NativeHeaders, OperationType, header_text};
use throughline_core::{Delivery, Headers};

use crate::carrier::{HeaderExtractor, first, to_headers};
use crate::forwarded;
use crate::header_names::{Names, Reading};
use crate::protocol::{has_space, is_of_server};
use crate::semconv::{NATS_SEQUENCE, NATS_STREAM, inbox_template};

/// The header that names a message, which streams also use to recognise a message they already have.
// ATTR-N-06.
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";

/// The header of the media type, where nobody set another one.
const CONTENT_TYPE: &str = HeaderNames::new().content_type;

/// What only NATS knows about a received message: the client's own message and, from JetStream, its place in the
/// stream.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use throughline_core::Delivery;
/// use throughline_nats::{NativeMessage, StreamPosition};
///
/// // What a test gives to a handler that asks for the place in the stream.
/// let position = StreamPosition::new("ORDERS", "stock", 42);
/// let delivery = Delivery::new("orders.placed", "{}").with_native(Arc::new(NativeMessage::at(position)));
/// let position = delivery.native::<NativeMessage>().and_then(NativeMessage::position);
/// assert_eq!(position.map(|position| position.stream_sequence), Some(42));
/// ```
#[derive(Clone, Debug)]
pub struct NativeMessage {
    message: Option<async_nats::Message>,
    position: Option<StreamPosition>,
    recorded: bool,
    /// The header of the media type.
    content_type: &'static str,
    /// Tells this delivery from all others, where it has no place in a stream that does.
    number: OnceLock<u64>,
}

impl NativeMessage {
    /// Creates one from the client's message.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::NativeMessage;
    ///
    /// fn wrap(message: async_nats::Message) -> NativeMessage {
    ///     NativeMessage::new(message)
    /// }
    /// ```
    #[must_use]
    pub const fn new(message: async_nats::Message) -> Self {
        Self {
            message: Some(message),
            position: None,
            recorded: false,
            content_type: CONTENT_TYPE,
            number: OnceLock::new(),
        }
    }

    /// Creates one that knows a place in a stream and no message, for tests on the in-memory broker.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_nats::{NativeMessage, StreamPosition};
    /// assert!(NativeMessage::at(StreamPosition::new("ORDERS", "stock", 1)).message().is_none());
    /// ```
    #[must_use]
    pub const fn at(position: StreamPosition) -> Self {
        Self {
            message: None,
            position: Some(position),
            recorded: false,
            content_type: CONTENT_TYPE,
            number: OnceLock::new(),
        }
    }

    /// Returns the client's message as it arrived.
    #[must_use]
    pub const fn message(&self) -> Option<&async_nats::Message> {
        self.message.as_ref()
    }

    /// Returns the place in the stream; `None` on core NATS.
    #[must_use]
    pub const fn position(&self) -> Option<&StreamPosition> {
        self.position.as_ref()
    }

    /// Returns what tells a forward of this delivery from that of another message, and from that of another service.
    pub(crate) fn forwarder(&self) -> String {
        match &self.position {
            Some(StreamPosition { stream, consumer, stream_sequence, published, .. }) => {
                // A stream that is made anew counts from 1 again.
                let stored = published.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
                format!("{stream}.{consumer}.{stream_sequence}.{stored:x}")
            }
            None => format!("{:016x}", self.number.get_or_init(|| fastrand::u64(..))),
        }
    }
}

impl Native for NativeMessage {
    /// Adds nothing unless switched on.
    // ATTR-J-08.
    fn attributes(&self, _operation: OperationType, attributes: &mut Vec<KeyValue>) {
        if let Some(position) = self.position.as_ref().filter(|_| self.recorded) {
            position.push(attributes);
        }
    }

    fn headers(&self) -> Option<&dyn NativeHeaders> {
        let has_headers = self.message.as_ref()?.headers.as_ref().is_some_and(|headers| !headers.is_empty());
        has_headers.then_some(self as &dyn NativeHeaders)
    }

    fn content_type_header(&self) -> &'static str {
        self.content_type
    }

    fn position(&self) -> Option<String> {
        let StreamPosition { stream, stream_sequence, .. } = self.position.as_ref()?;
        Some(format!("stream {stream}, sequence {stream_sequence}"))
    }
}

impl NativeHeaders for NativeMessage {
    fn as_extractor(&self) -> &dyn Extractor {
        self
    }

    fn to_headers(&self) -> Headers {
        self.map().map(to_headers).unwrap_or_default()
    }
}

impl NativeMessage {
    fn map(&self) -> Option<&HeaderMap> {
        self.message.as_ref()?.headers.as_ref()
    }
}

impl Extractor for NativeMessage {
    fn get(&self, key: &str) -> Option<&str> {
        HeaderExtractor::new(self.map()).find(key)
    }

    fn keys(&self) -> Vec<&str> {
        HeaderExtractor::new(self.map()).names()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        HeaderExtractor::new(self.map()).find_all(key)
    }
}

/// The place of a message in its stream, as the server tells it with every delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct StreamPosition {
    /// The stream.
    pub stream: Arc<str>,
    /// The consumer of the stream.
    pub consumer: Arc<str>,
    /// The place in the stream, counted from 1.
    pub stream_sequence: u64,
    /// How many deliveries the consumer made up to this one.
    pub consumer_sequence: u64,
    /// Which delivery of the message this is, counted from 1.
    pub delivered: u64,
    /// When the stream stored the message.
    pub published: SystemTime,
    /// How many messages the consumer has not delivered yet.
    pub pending: u64,
}

impl StreamPosition {
    /// Creates the place of a first delivery, for tests.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_nats::StreamPosition::new("ORDERS", "stock", 42).delivered, 1);
    /// ```
    #[must_use]
    pub fn new(stream: impl Into<Arc<str>>, consumer: impl Into<Arc<str>>, stream_sequence: u64) -> Self {
        Self {
            stream: stream.into(),
            consumer: consumer.into(),
            stream_sequence,
            consumer_sequence: 1,
            delivered: 1,
            published: SystemTime::UNIX_EPOCH,
            pending: 0,
        }
    }

    /// Adds the opt-in attributes.
    // ATTR-J-08.
    pub(crate) fn push(&self, attributes: &mut Vec<KeyValue>) {
        attributes.push(KeyValue::new(NATS_STREAM, Arc::clone(&self.stream)));
        attributes.push(KeyValue::new(NATS_SEQUENCE, i64::try_from(self.stream_sequence).unwrap_or(i64::MAX)));
    }

    /// Reads the subject on which a delivery is acknowledged, where the names are known already.
    pub(crate) fn parse(ack: &str, stream: &Arc<str>, consumer: &Arc<str>) -> Option<Self> {
        Some(AckSubject::parse(ack)?.to_position(Arc::clone(stream), Arc::clone(consumer)))
    }
}

/// The subject on which a delivery is acknowledged, taken apart: `$JS.ACK.` and seven tokens, or nine or more since
/// a domain and an account come first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckSubject<'a> {
    pub(crate) stream: &'a str,
    pub(crate) consumer: &'a str,
    pub(crate) delivered: u64,
    pub(crate) stream_sequence: u64,
    pub(crate) consumer_sequence: u64,
    pub(crate) published: SystemTime,
    pending: u64,
}

impl<'a> AckSubject<'a> {
    pub(crate) fn parse(ack: &'a str) -> Option<Self> {
        let tokens = ack.strip_prefix(ACK_PREFIX)?;
        // In one pass, since each message has it: the parts of a string cost several times as much.
        let (mut dots, mut count) = ([tokens.len(); 9], 0);
        for (index, _) in tokens.bytes().enumerate().filter(|(_, sign)| *sign == b'.') {
            if let Some(dot) = dots.get_mut(count) {
                *dot = index;
            }
            count += 1;
        }
        let before = match count {
            6 => 0,
            8.. => 2,
            _ => return None,
        };
        let mut begin = if before == 0 { 0 } else { dots.get(before - 1)? + 1 };
        let mut ends = dots.iter().skip(before);
        let mut token = || {
            let end = *ends.next()?;
            tokens.get(std::mem::replace(&mut begin, end + 1)..end)
        };
        let (stream, consumer) = (token()?, token()?);
        let mut number = || number(token()?.as_bytes());
        Some(Self {
            stream,
            consumer,
            delivered: number()?,
            stream_sequence: number()?,
            consumer_sequence: number()?,
            published: SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(number()?))?,
            pending: number()?,
        })
    }

    pub(crate) fn to_position(self, stream: Arc<str>, consumer: Arc<str>) -> StreamPosition {
        StreamPosition {
            stream,
            consumer,
            stream_sequence: self.stream_sequence,
            consumer_sequence: self.consumer_sequence,
            delivered: self.delivered,
            published: self.published,
            pending: self.pending,
        }
    }
}

const ACK_PREFIX: &str = "$JS.ACK.";

/// So many digits are always less than the largest number.
const SAFE_DIGITS: usize = 19;

fn number(digits: &[u8]) -> Option<u64> {
    let digit = |sign: &u8| sign.checked_sub(b'0').filter(|digit| *digit < 10).map(u64::from);
    match digits.len() {
        0 => None,
        1..=SAFE_DIGITS => digits.iter().try_fold(0_u64, |number, sign| Some(number * 10 + digit(sign)?)),
        _ => digits.iter().try_fold(0_u64, |number, sign| number.checked_mul(10)?.checked_add(digit(sign)?)),
    }
}

/// Tells whether a message comes from a stream, and is not one of the server's own about the delivery.
pub(crate) fn is_from_stream(message: &async_nats::Message) -> bool {
    message.reply.as_ref().is_some_and(|reply| reply.starts_with(ACK_PREFIX))
}

/// The subject of the last message. Most subscriptions see one subject all the time, which is then shared.
#[derive(Debug)]
pub(crate) struct LastSubject(Arc<str>);

impl LastSubject {
    pub(crate) fn new() -> Self {
        Self(Arc::from(""))
    }

    fn of(&mut self, message: &async_nats::Message) -> Arc<str> {
        if *self.0 != *message.subject.as_str() {
            self.0 = message.subject.as_str().into();
        }
        Arc::clone(&self.0)
    }
}

/// Turns a message of core NATS into a delivery. A reply subject of the server's own is no address for an answer.
pub(crate) fn from_core(message: async_nats::Message, last: &mut LastSubject, reading: Reading<'_>) -> Delivery {
    let reply = message.reply.as_deref().filter(|reply| !is_of_server(reply, reading.own_inbox));
    let reply_to = reply.map(Arc::<str>::from);
    let delivery = portable(&message, last, reading.names);
    let native = NativeMessage { content_type: reading.names.content_type, ..NativeMessage::new(message) };
    let delivery = delivery.with_native(Arc::new(native));
    match reply_to {
        Some(reply_to) => delivery.with_reply_to(crate::CoreSubject::new(reply_to)).with_waiting_requester(),
        None => delivery,
    }
}

/// Turns a message of a stream into a delivery. The reply subject is where it is acknowledged, never an address for an
/// answer; that stands in a header, where the connection has a name for it.
pub(crate) fn from_stream(
    message: async_nats::Message,
    last: &mut LastSubject,
    position: Option<StreamPosition>,
    recorded: bool,
    reading: Reading<'_>,
) -> Delivery {
    let mut delivery = portable(&message, last, reading.names);
    if let Some(position) = &position {
        delivery = delivery
            .with_attempt(u32::try_from(position.delivered).unwrap_or(u32::MAX))
            .with_sent_at(position.published);
    }
    if let Some(name) = reading.names.reply_to {
        delivery = with_reply_header(delivery, &message, name, reading.own_inbox);
    }
    delivery.with_native(Arc::new(NativeMessage {
        message: Some(message),
        position,
        recorded,
        content_type: reading.names.content_type,
        number: OnceLock::new(),
    }))
}

/// Sets the reply address that a header names. Who names an inbox waits there; any other subject is somebody's who reads it in time.
fn with_reply_header(delivery: Delivery, message: &async_nats::Message, name: &str, own_inbox: &str) -> Delivery {
    let asked = message.headers.as_ref().and_then(|headers| first(headers, name));
    let Some(asked) = asked.filter(|asked| !is_of_server(asked, own_inbox) && !has_space(asked)) else {
        return delivery;
    };
    if inbox_template(asked, own_inbox).is_none() {
        return delivery.with_reply_to(asked.to_owned());
    }
    delivery.with_reply_to(crate::CoreSubject::new(asked.to_owned())).with_waiting_requester()
}

fn portable(message: &async_nats::Message, last: &mut LastSubject, names: &Names) -> Delivery {
    let mut delivery = Delivery::new(last.of(message), message.payload.clone());
    if let Some(native) = &message.headers {
        let id = first(native, MESSAGE_ID).and_then(message_id).map(Arc::<str>::from);
        let correlation_id = first(native, names.correlation_id).map(header_text::unescape).map(Arc::<str>::from);
        if let Some(id) = id {
            delivery = delivery.with_id(id);
        }
        if let Some(id) = correlation_id {
            delivery = delivery.with_correlation_id(id);
        }
    }
    delivery
}

/// Returns the id of a message as its sender gave it, from the header that names it.
pub(crate) fn message_id(header: &str) -> Option<Cow<'_, str>> {
    let id = match header_text::unescape(header) {
        Cow::Borrowed(id) => Cow::Borrowed(forwarded::original(id)),
        Cow::Owned(id) => Cow::Owned(forwarded::original(&id).to_owned()),
    };
    Some(id).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const INBOX: Reading<'static> = Reading {
        own_inbox: "_INBOX",
        names: &Names { correlation_id: "correlation-id", content_type: CONTENT_TYPE, reply_to: None },
    };

    fn message(reply: Option<&str>, headers: &[(&str, &str)]) -> async_nats::Message {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        async_nats::Message {
            subject: "orders.42".into(),
            reply: reply.map(Into::into),
            payload: Bytes::from_static(b"{}"),
            headers: (!headers.is_empty()).then_some(map),
            status: None,
            description: None,
            length: 2,
        }
    }

    fn parse(ack: &str) -> Option<StreamPosition> {
        StreamPosition::parse(ack, &Arc::from("ORDERS"), &Arc::from("stock"))
    }

    #[test]
    fn a_core_message_keeps_all_that_is_portable() {
        let headers = [("Nats-Msg-Id", "m1"), ("Correlation-Id", "c1"), ("tenant", "acme")];
        let delivery = from_core(message(Some("_INBOX.a.b"), &headers), &mut LastSubject::new(), INBOX);
        assert_eq!((delivery.destination(), delivery.payload().as_ref()), ("orders.42", &b"{}"[..]), "ATTR-N-01");
        assert_eq!(delivery.id(), Some("m1"), "ATTR-N-06");
        assert_eq!(delivery.correlation_id(), Some("c1"), "ATTR-N-08");
        assert_eq!(delivery.headers().get("tenant"), Some("acme"));
        assert_eq!(delivery.reply_to().map(|to| to.name()), Some("_INBOX.a.b"));
        assert!(delivery.is_request(), "its sender waits");
        assert!(!from_core(message(None, &headers), &mut LastSubject::new(), INBOX).is_request());
    }

    #[test]
    fn ids_are_read_as_their_sender_gave_them() {
        let of = |id: &str| {
            let headers = [("Nats-Msg-Id", id), ("correlation-id", id)];
            let delivery = from_core(message(None, &headers), &mut LastSubject::new(), INBOX);
            (delivery.id().map(str::to_owned), delivery.correlation_id().map(str::to_owned))
        };
        let both = |id: &str| (Some(id.to_owned()), Some(id.to_owned()));
        assert_eq!(of("UTF-8''corr%20%C3%BC%207"), both("corr ü 7"), "PROP-N-10");
        assert_eq!(of("100%25"), both("100%25"));
        assert_eq!(of("ü"), both("ü"), "of a client that writes it so");
        let forwarded = format!("m ü{}x", ";forwarded=");
        assert_eq!(of(&header_text::escape(&forwarded)).0.as_deref(), Some("m ü"));
    }

    #[test]
    fn what_a_stranger_names_of_the_servers_own_is_no_address_for_an_answer() {
        let address = |reply: &str, own_inbox: &str| {
            let delivery =
                from_core(message(Some(reply), &[]), &mut LastSubject::new(), Reading { own_inbox, ..INBOX });
            delivery.reply_to().map(|to| to.name().to_owned())
        };
        for reply in [
            "$JS.API.STREAM.PURGE.ORDERS",
            "$JS.ACK.ORDERS.stock.1.5.5.1700000000000000000.0",
            "$KV.accounts.42",
            "$SYS.REQ.SERVER.PING",
            "$",
        ] {
            assert_eq!(address(reply, "_INBOX"), None, "{reply}");
        }
        for reply in ["_INBOX.a.b", "acme.replies.a", "_R_.a.b", "_GR_.a.b._INBOX.c", "orders.$"] {
            assert_eq!(address(reply, "_INBOX").as_deref(), Some(reply));
        }
        assert_eq!(address("$inbox.a", "$inbox").as_deref(), Some("$inbox.a"), "an inbox of this client");
    }

    #[test]
    fn each_message_has_its_own_subject() {
        let mut last = LastSubject::new();
        let mut subject = |subject: &'static str| {
            let arrived = async_nats::Message { subject: subject.into(), ..message(None, &[]) };
            from_core(arrived, &mut last, INBOX).destination().to_owned()
        };
        let subjects = ["orders.1", "orders.1", "orders.2", "", "orders.1"];
        assert_eq!(subjects.map(&mut subject), subjects, "ATTR-N-01");
    }

    #[test]
    fn the_inbox_is_never_the_correlation_id() {
        let delivery = from_core(message(Some("_INBOX.a.b"), &[]), &mut LastSubject::new(), INBOX);
        assert_eq!((delivery.id(), delivery.correlation_id()), (None, None), "ATTR-N-08");
    }

    #[test]
    fn a_stream_message_has_no_address_for_an_answer() {
        let ack = "$JS.ACK.ORDERS.stock.3.100.7.1700000000000000000.42";
        let delivery = from_stream(message(Some(ack), &[]), &mut LastSubject::new(), parse(ack), false, INBOX);
        assert!(delivery.reply_to().is_none());
        assert_eq!(delivery.attempt(), 3);
        assert_eq!(delivery.sent_at(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        assert_eq!(delivery.id(), None, "ATTR-J-05");
    }

    #[test]
    fn a_stream_message_names_its_address_in_a_header_where_the_connection_has_a_name_for_it() {
        let ack = "$JS.ACK.ORDERS.stock.3.100.7.1700000000000000000.42";
        let names = Names::set(HeaderNames::faststream());
        let read = |address: &str, names: &Names| {
            let headers = [("reply_to", address), ("correlation_id", "c1"), ("correlation-id", "other")];
            let reading = Reading { own_inbox: "_INBOX", names };
            let arrived = message(Some(ack), &headers);
            let delivery = from_stream(arrived, &mut LastSubject::new(), parse(ack), false, reading);
            let to = delivery.reply_to().map(|to| to.name().to_owned());
            (to, delivery.is_request(), delivery.correlation_id().map(str::to_owned))
        };
        let c1 = || Some("c1".to_owned());
        assert_eq!(read("_INBOX.a.b", &names), (Some("_INBOX.a.b".to_owned()), true, c1()));
        assert_eq!(read("answers", &names), (Some("answers".to_owned()), false, c1()));
        for refused in ["$JS.API.STREAM.PURGE.ORDERS", "a b", ""] {
            assert_eq!(read(refused, &names), (None, false, c1()), "{refused}");
        }
        assert_eq!(read("answers", &Names::default()), (None, false, Some("other".to_owned())));
    }

    #[test]
    fn the_place_in_the_stream_is_read_in_every_form() {
        for ack in [
            "$JS.ACK.ORDERS.stock.3.100.7.1700000000000000000.42",
            "$JS.ACK._.hash.ORDERS.stock.3.100.7.1700000000000000000.42",
            "$JS.ACK.hub.hash.ORDERS.stock.3.100.7.1700000000000000000.42.token",
        ] {
            let position = parse(ack).unwrap();
            assert_eq!(
                (position.delivered, position.stream_sequence, position.consumer_sequence, position.pending),
                (3, 100, 7, 42)
            );
        }
        for ack in [
            "",
            "$JS.ACK.",
            "$JS.ACK.a.b.1.2.3.4",
            "$JS.ACK.a.b.x.2.3.4.5",
            "_INBOX.a.b.1.2.3.4.5",
            "$JS.ACK.a.b.1.2.3.4.5.6",
            "$JS.ACK.a.b.1.2..4.5",
            "$JS.ACK.a.b.1.2.3.4.18446744073709551616",
        ] {
            assert_eq!(parse(ack), None, "{ack}");
        }
    }

    #[test]
    fn the_place_is_an_attribute_only_when_asked_for() {
        let position = StreamPosition::new("ORDERS", "stock", 42);
        for (recorded, expected) in [(false, 0), (true, 2)] {
            let mut attributes = Vec::new();
            NativeMessage { recorded, ..NativeMessage::at(position.clone()) }
                .attributes(OperationType::Process, &mut attributes);
            assert_eq!(attributes.len(), expected, "ATTR-J-08");
        }
    }

    #[test]
    fn a_status_is_not_a_message_of_the_stream() {
        assert!(is_from_stream(&message(Some("$JS.ACK.a.b.1.2.3.4.5"), &[])));
        assert!(!is_from_stream(&message(Some("$JS.FC.a.b"), &[])));
        assert!(!is_from_stream(&message(None, &[])));
    }

    proptest! {
        #[test]
        fn no_ack_subject_makes_the_parser_panic(tail in "[0-9a-z.$_-]{0,80}", whole in ".*") {
            let _ = parse(&format!("$JS.ACK.{tail}"));
            let _ = parse(&whole);
        }
    }
}
