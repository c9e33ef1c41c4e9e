use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use throughline_core::broker::ErrorReplyHeaders;
use throughline_core::propagation::lookup::{self, Repeated};
use throughline_core::propagation::{
    NativeCarrier, NativeExtractor, NativeInjector, header_name, is_propagation_header,
};
use throughline_core::{Envelope, Headers, PublishError};

use crate::delivery::NativeMessage;
use crate::names::{self, LONGEST};

/// What writes propagation headers into the client's header table, as [`NativeInjector`] says: as long strings, which every client reads.
/// Headers of other names keep their value and its type.
///
/// # Examples
///
/// ```
/// use lapin::types::{AMQPValue, FieldTable};
/// use opentelemetry::propagation::Injector;
/// use throughline_rabbit::HeaderInjector;
///
/// let mut headers = FieldTable::default();
/// headers.insert("Baggage".into(), AMQPValue::LongString("stale=1".into()));
/// headers.insert("tenant".into(), AMQPValue::LongInt(42));
/// HeaderInjector::new(&mut headers).set("baggage", "tenant=acme".to_owned());
/// assert_eq!(headers.inner().len(), 2);
/// assert_eq!(headers.inner().get("baggage"), Some(&AMQPValue::LongString("tenant=acme".into())));
/// assert_eq!(headers.inner().get("tenant"), Some(&AMQPValue::LongInt(42)));
/// ```
pub type HeaderInjector<'a> = NativeInjector<'a, ClientHeaders>;

/// What reads propagation headers from the client's header table, as [`NativeExtractor`] says. Long strings, short strings and byte arrays
/// that are UTF-8 are read; a value of any other type is treated as absent.
///
/// # Examples
///
/// ```
/// use lapin::types::{AMQPValue, ByteArray, FieldTable};
/// use opentelemetry::propagation::Extractor;
/// use throughline_rabbit::HeaderExtractor;
///
/// let mut headers = FieldTable::default();
/// headers.insert("Baggage".into(), AMQPValue::ByteArray(ByteArray::from(&b"tenant=acme"[..])));
/// headers.insert("traceparent".into(), AMQPValue::LongInt(42));
/// assert_eq!(HeaderExtractor::new(&headers).get("baggage"), Some("tenant=acme"));
/// assert_eq!(HeaderExtractor::new(&headers).get("traceparent"), None);
/// ```
pub type HeaderExtractor<'a> = NativeExtractor<'a, ClientHeaders>;

/// The header table of `lapin`.
#[derive(Debug)]
pub enum ClientHeaders {}

// PROP-R-01 to -05, -08.
impl NativeCarrier for ClientHeaders {
    type Read = FieldTable;
    type Written = FieldTable;

    // PROP-R-06.
    const REPEATED: Repeated = Repeated::Last;

    fn as_read(written: &FieldTable) -> &FieldTable {
        written
    }

    fn iter(headers: &FieldTable) -> impl Iterator<Item = lookup::Entry<'_>> {
        headers.into_iter().map(|(name, value)| (name.as_str().as_bytes(), string(value)))
    }

    fn append(headers: &mut FieldTable, name: &str, value: &str) {
        // One that is too long for the protocol is left out: telemetry fails no message.
        if let Ok(name) = ShortString::try_new(name) {
            headers.insert(name, AMQPValue::LongString(value.into()));
        }
    }

    /// The client's table cannot remove a name, so it is built anew when there is something to remove.
    fn remove(headers: &mut FieldTable, name: &str) {
        let is_one = |other: &ShortString| other.as_str().eq_ignore_ascii_case(name);
        if headers.inner().keys().any(is_one) {
            let kept = headers.into_iter().filter(|(other, _)| !is_one(other));
            *headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>().into();
        }
    }
}

/// The headers that the server writes; they belong to the message they came with.
const OF_SERVER: [&str; 4] = ["x-death", "x-delivery-count", "x-acquired-count", "x-stream-offset"];

/// The headers by which the server routes copies of a message to further keys. A message that is passed on has them from a stranger.
const ROUTES: [&str; 2] = ["CC", "BCC"];

/// Returns the bytes of a string, which need not be UTF-8; `None` for a value of another type.
pub(crate) fn string(value: &AMQPValue) -> Option<&[u8]> {
    match value {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        AMQPValue::ByteArray(bytes) => Some(bytes.as_slice()),
        AMQPValue::ShortString(text) => Some(text.as_str().as_bytes()),
        _ => None,
    }
}

/// Returns a whole number that is not negative, of whatever width.
pub(crate) fn number(value: &AMQPValue) -> Option<u64> {
    match *value {
        AMQPValue::ShortShortInt(number) => number.try_into().ok(),
        AMQPValue::ShortShortUInt(number) => Some(number.into()),
        AMQPValue::ShortInt(number) => number.try_into().ok(),
        AMQPValue::ShortUInt(number) => Some(number.into()),
        AMQPValue::LongInt(number) => number.try_into().ok(),
        AMQPValue::LongUInt(number) => Some(number.into()),
        AMQPValue::LongLongInt(number) => number.try_into().ok(),
        _ => None,
    }
}

/// Returns a header as portable headers have it; `None` where they have none: of a table, an array, a time, a decimal or nothing there
/// is no text that is understood elsewhere. A propagation header has to be a string.
// PROP-R-03, PROP-R-04.
fn portable<'a>(name: &str, value: &'a AMQPValue) -> Option<Cow<'a, [u8]>> {
    if let Some(text) = string(value) {
        return Some(Cow::Borrowed(text));
    }
    let text = match value {
        AMQPValue::Boolean(flag) => flag.to_string(),
        AMQPValue::ShortShortInt(number) => number.to_string(),
        AMQPValue::ShortShortUInt(number) => number.to_string(),
        AMQPValue::ShortInt(number) => number.to_string(),
        AMQPValue::ShortUInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongUInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Float(number) => number.to_string(),
        AMQPValue::Double(number) => number.to_string(),
        _ => return None,
    };
    (!is_propagation_header(name)).then(|| text.into_bytes().into())
}

/// Copies the client's headers into portable ones, as far as they have a text.
pub(crate) fn to_headers(table: &FieldTable) -> Headers {
    let mut headers = Headers::with_capacity(table.inner().len());
    for (name, value) in table {
        if let Some(text) = portable(name.as_str(), value) {
            headers.append(header_name(name.as_str(), &[]), Bytes::from(text.into_owned()));
        }
    }
    headers
}

/// Copies the headers of an envelope into the client's, without `left_out`.
///
/// A table has a name once: of several values the last one is sent, and those of a propagation header that is a list are joined. Where
/// the envelope forwards a message, what was not changed keeps its type, and so does what portable headers cannot hold.
// PROP-12, PROP-R-01, PROP-R-02, PROP-R-06.
pub(crate) fn to_table(envelope: &Envelope, left_out: Option<&str>) -> Result<FieldTable, PublishError> {
    let headers = envelope.headers();
    let origin = envelope.origin::<NativeMessage>().and_then(NativeMessage::table);
    let mut table = FieldTable::default();
    for (name, value) in origin.into_iter().flatten() {
        let key = name.as_str();
        if portable(key, value).is_none() && is_passed_on(key) && !headers.contains(key) {
            table.insert(name.clone(), value.clone());
        }
    }
    let is_sent = |name: &str| {
        is_passed_on(name)
            && left_out.is_none_or(|other| !name.eq_ignore_ascii_case(other))
            && (envelope.is_error_reply() || !is_error_reply(name))
    };
    for (name, value) in headers.iter().filter(|(name, _)| is_sent(name)) {
        // Telemetry fails no message.
        if name.len() > LONGEST && is_propagation_header(name) {
            continue;
        }
        let known = origin.and_then(|origin| origin.inner().get(name));
        let known = known.filter(|known| portable(name, known).as_deref() == Some(value.as_ref()));
        let value = match known {
            Some(known) => known.clone(),
            None => AMQPValue::LongString(value.as_ref().into()),
        };
        let earlier = table.inner().get(name).filter(|_| is_list(name));
        let value = match earlier.and_then(string).zip(string(&value)) {
            Some((earlier, value)) => AMQPValue::LongString([earlier, b",", value].concat().into()),
            None => value,
        };
        table.insert(names::short("name of a header", name)?, value);
    }
    Ok(table)
}

/// Tells whether several headers of that name are one list.
fn is_list(name: &str) -> bool {
    ["tracestate", "baggage"].iter().any(|list| name.eq_ignore_ascii_case(list))
}

/// Tells whether a header goes with a message that is passed on.
// R11.
pub(crate) fn is_passed_on(name: &str) -> bool {
    !is_of_server(name) && !ROUTES.contains(&name)
}

/// Tells whether a header is the server's own.
pub(crate) fn is_of_server(name: &str) -> bool {
    OF_SERVER.contains(&name) || name.starts_with("x-first-death-") || name.starts_with("x-last-death-")
}

/// Tells whether the server reads keys in a header.
pub(crate) fn is_route(name: &str) -> bool {
    ROUTES.contains(&name)
}

/// Tells whether a header says of a reply that its request failed. What a stranger sent so is passed on in no other message: it would make
/// an error reply of it.
pub(crate) fn is_error_reply(name: &str) -> bool {
    let ErrorReplyHeaders { code, text } = ErrorReplyHeaders::default();
    name.eq_ignore_ascii_case(code) || name.eq_ignore_ascii_case(text)
}
