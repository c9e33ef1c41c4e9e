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

/// Copies the headers of an envelope into the client's, without `left_out`. `origin` are those of the message that it forwards.
///
/// A table has a name once: of several values the last one is sent, and those of a propagation header that is a list are joined. Where
/// the envelope forwards a message, what was not changed keeps its type, and so does what portable headers cannot hold.
// PROP-12, PROP-R-01, PROP-R-02, PROP-R-06.
pub(crate) fn to_table(
    envelope: &Envelope,
    origin: Option<&FieldTable>,
    left_out: Option<&str>,
) -> Result<FieldTable, PublishError> {
    let headers = envelope.headers();
    let mut table = FieldTable::default();
    for (name, value) in origin.into_iter().flatten() {
        let key = name.as_str();
        if portable(key, value).is_none() && is_passed_on(key) && !is_error_reply(key) && !headers.contains(key) {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lapin::types::ByteArray;
    use opentelemetry::propagation::{Extractor, Injector};
    use proptest::prelude::*;
    use throughline_core::Delivery;
    use throughline_core::propagation::Carrier;
    use throughline_testing::conformance;

    use super::*;
    use crate::delivery::NativeMessage;
    use crate::testing::{any_table, each_type, table, text, with_headers};

    fn written(envelope: &Envelope) -> Result<FieldTable, PublishError> {
        to_table(envelope, envelope.origin::<NativeMessage>().and_then(NativeMessage::table), None)
    }

    fn received(headers: &FieldTable) -> Delivery {
        let properties = lapin::BasicProperties::default().with_headers(headers.clone());
        let native = NativeMessage::at("shop", "placed", "orders").with_properties(properties);
        Delivery::new("placed", "x").with_native(Arc::new(native))
    }

    fn forwarded(headers: &FieldTable) -> FieldTable {
        written(&Envelope::forward(&received(headers), "dead")).unwrap()
    }

    fn sent(entries: &[(&'static str, &'static str)]) -> FieldTable {
        let mut envelope = Envelope::new("orders", "x");
        for (name, value) in entries {
            envelope.headers_mut().append(*name, *value);
        }
        written(&envelope).unwrap()
    }

    #[test]
    fn headers_are_read_and_written_by_the_rules() {
        conformance::assert_carrier::<ClientHeaders>();
    }

    #[test]
    fn a_header_is_written_as_a_long_string() {
        let mut headers = FieldTable::default();
        HeaderInjector::new(&mut headers).set("traceparent", "a".to_owned());
        assert_eq!(headers, table(&[("traceparent", text("a"))]), "PROP-R-01, PROP-R-02");
    }

    #[test]
    fn strings_of_every_kind_are_read_and_nothing_else() {
        let strings =
            [text("a=1"), AMQPValue::ByteArray(ByteArray::from(&b"a=1"[..])), AMQPValue::ShortString("a=1".into())];
        for value in strings {
            let headers = table(&[("Baggage", value.clone())]);
            assert_eq!(HeaderExtractor::new(&headers).get("baggage"), Some("a=1"), "PROP-R-03: {value:?}");
        }
        for (name, value) in each_type().into_iter().filter(|(name, _)| *name != "string") {
            let headers = table(&[("baggage", value)]);
            assert_eq!(HeaderExtractor::new(&headers).get("baggage"), None, "PROP-R-04, PROP-R-05: {name}");
            assert_eq!(HeaderExtractor::new(&headers).get_all("baggage"), None, "PROP-R-04, PROP-R-05: {name}");
        }
    }

    #[test]
    fn a_traceparent_of_bytes_is_absent() {
        let draft = [&[0_u8; 1][..], &[1; 16], &[2; 8], &[1], &[0xff; 3]].concat();
        let headers = table(&[("traceparent", AMQPValue::ByteArray(draft.into()))]);
        assert_eq!(HeaderExtractor::new(&headers).get("traceparent"), None, "PROP-R-08");
    }

    #[test]
    fn portable_headers_have_what_has_a_text() {
        let headers = to_headers(&table(&each_type()));
        let texts = [
            ("bool", "true"),
            ("double", "2.5"),
            ("f32", "0.1"),
            ("i16", "-300"),
            ("i32", "-70000"),
            ("i64", "-9223372036854775808"),
            ("i8", "-3"),
            ("string", "größe"),
            ("u16", "60000"),
            ("u32", "4294967295"),
            ("u8", "200"),
        ];
        for (name, text) in texts {
            assert_eq!(headers.get(name), Some(text), "{name}");
        }
        assert_eq!(headers.get_all("bytes").next(), Some(&b"\xff\x00"[..]));
        assert_eq!(headers.len(), texts.len() + 2, "and the string that is not UTF-8");
        let no_text = to_headers(&table(&[("b3", AMQPValue::LongInt(0)), ("Traceparent", AMQPValue::Boolean(true))]));
        assert!(no_text.is_empty(), "PROP-R-04");
    }

    #[test]
    fn every_type_survives_a_forward() {
        let headers = table(&each_type());
        assert_eq!(forwarded(&headers), headers);
    }

    #[test]
    fn what_was_changed_on_the_way_is_changed() {
        let delivery = received(&table(&each_type()));
        let mut envelope = Envelope::forward(&delivery, "dead").with_header("i32", "7").with_header("table", "gone");
        envelope.headers_mut().remove("u8");
        let table = written(&envelope).unwrap();
        assert_eq!(table.inner().get("i32"), Some(&text("7")));
        assert_eq!(table.inner().get("table"), Some(&text("gone")));
        assert_eq!(table.inner().get("u8"), None, "what was removed stays removed");
        assert_eq!(table.inner().get("i16"), Some(&AMQPValue::ShortInt(-300)));
    }

    #[test]
    fn a_context_replaces_one_of_another_type_and_spelling() {
        let delivery = received(&table(&[("Traceparent", AMQPValue::LongInt(1)), ("tenant", AMQPValue::Void)]));
        let mut envelope = Envelope::forward(&delivery, "dead");
        envelope.headers_mut().insert("traceparent", "new");
        let expected = table(&[("traceparent", text("new")), ("tenant", AMQPValue::Void)]);
        assert_eq!(written(&envelope).unwrap(), expected, "PROP-04");
    }

    #[test]
    fn what_the_server_owns_or_routes_by_is_not_passed_on() {
        let keys = AMQPValue::FieldArray(vec![text("other")].into());
        let mut headers = table(&[("tenant", text("acme"))]);
        let names = ["x-death", "x-first-death-queue", "x-last-death-reason", "x-delivery-count", "x-acquired-count"];
        for name in names.into_iter().chain(["x-stream-offset", "CC", "BCC"]) {
            headers.insert(name.into(), keys.clone());
        }
        assert_eq!(forwarded(&headers), table(&[("tenant", text("acme"))]), "array");
        let copied =
            sent(&[("x-death", "x"), ("x-delivery-count", "1000"), ("CC", "x"), ("tenant", "acme"), ("cc", "x")]);
        assert_eq!(copied, table(&[("tenant", text("acme")), ("cc", text("x"))]));
    }

    #[test]
    fn a_strangers_error_reply_is_not_passed_on() {
        assert_eq!(sent(&[("Reply-Error-Code", "500"), ("reply-error", "no")]), FieldTable::default());
        let arrived = table(&[("reply-error", text("no")), ("reply-error-code", AMQPValue::LongInt(500))]);
        assert_eq!(forwarded(&arrived), FieldTable::default());
    }

    #[test]
    fn of_several_values_the_last_one_is_sent_and_a_list_is_joined() {
        let entries = [
            ("tag", "a"),
            ("baggage", "a=1"),
            ("traceparent", "x"),
            ("tag", "b"),
            ("baggage", "b=2"),
            ("traceparent", "y"),
        ];
        let expected = table(&[("tag", text("b")), ("baggage", text("a=1,b=2")), ("traceparent", text("y"))]);
        assert_eq!(sent(&entries), expected, "PROP-12, PROP-R-06");
    }

    #[test]
    fn a_name_that_is_too_long_is_an_error_and_a_context_is_left_out() {
        let long = "x".repeat(256);
        let error = written(&Envelope::new("orders", "x").with_header(long.clone(), "x")).unwrap_err();
        assert_eq!((error.error_type(), error.kind().is_permanent()), ("name_too_long", true));
        let baggage = Envelope::new("orders", "x").with_header(format!("uberctx-{long}"), "x");
        assert_eq!(written(&baggage).unwrap(), FieldTable::default(), "telemetry fails no message");
    }

    #[test]
    fn numbers_of_every_width_are_read() {
        let numbers: Vec<_> = each_type().iter().filter_map(|(_, value)| number(value)).collect();
        assert_eq!(numbers, [60_000, u64::from(u32::MAX), 200], "those that are not negative");
    }

    proptest! {
        // VERF-12.
        #[test]
        fn any_headers_are_read_and_written_by_the_rules(
            entries in prop::collection::vec(
                ("[Tt]race[Pp]arent|[Tt]race[Ss]tate|[Bb]agg[Aa]ge|[!-9;-~]{1,9}|.{0,3}", "[ -~é]{0,60}|.{0,9}|00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]"),
                0..8,
            ),
            name in "[!-9;-~]{1,20}|.*",
            value in "[ -~]{1,40}|.*",
        ) {
            let entries: Vec<(&str, &str)> = entries.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            conformance::assert_carrier_on::<ClientHeaders>(&entries, &name, &value);
        }

        // VERF-12.
        #[test]
        fn no_header_of_any_type_makes_the_carriers_panic(headers in any_table(), key in ".*", value in ".*") {
            let mut native = headers.clone();
            for name in headers.inner().keys() {
                let _ = HeaderExtractor::new(&native).get(name.as_str());
                let _ = HeaderExtractor::new(&native).get_all(name.as_str());
            }
            let _ = to_headers(&native);
            HeaderInjector::new(&mut native).set(&key, value);
            Carrier::remove(&mut HeaderInjector::new(&mut native), &key);
            let extractor = HeaderExtractor::new(&native);
            prop_assert_eq!(extractor.get(&key), None);
        }

        #[test]
        fn a_forward_keeps_every_header_and_its_type(headers in any_table()) {
            let passed_on = headers.into_iter().filter(|(name, _)| is_passed_on(name.as_str()) && !is_error_reply(name.as_str()));
            let expected: Vec<_> = passed_on.map(|(name, value)| (name.as_str(), value)).collect();
            let sent = forwarded(&headers);
            // Of a context in two spellings that of another type gives way.
            let spelled = |name: &str| headers.into_iter().filter(|(other, _)| other.as_str().eq_ignore_ascii_case(name)).count();
            for (name, value) in expected.iter().filter(|(name, _)| spelled(name) == 1) {
                let kept = sent.inner().get(*name);
                prop_assert!(kept.is_some_and(|kept| format!("{kept:?}") == format!("{value:?}")), "{name}");
            }
            prop_assert!(sent.inner().len() <= expected.len());
        }

        // VERF-12.
        #[test]
        fn what_is_written_is_read_back(name in "[!-9;-~]{1,20}", value in "[ -~]{1,40}") {
            let mut native = FieldTable::default();
            HeaderInjector::new(&mut native).set(&name, value.clone());
            let extractor = HeaderExtractor::new(&native);
            prop_assert_eq!(extractor.get(&name), Some(value.as_str()));
            let headers = to_headers(&native);
            prop_assert_eq!(headers.get(&name), Some(value.as_str()));
        }
    }

    #[test]
    fn a_header_that_is_not_text_is_sent_as_it_is() {
        let envelope = Envelope::new("orders", "x").with_header("raw", &b"\xff\xfe"[..]);
        let properties = with_headers(&[("raw", AMQPValue::LongString(vec![0xff, 0xfe].into()))]);
        assert_eq!(Some(written(&envelope).unwrap()), properties.headers().clone());
    }
}
