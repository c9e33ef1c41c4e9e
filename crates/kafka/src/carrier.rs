use std::borrow::Cow;
use std::ffi::CString;

use bytes::Bytes;
use opentelemetry::propagation::{Extractor, Injector};
use rdkafka::message::{BorrowedHeaders, Header, OwnedHeaders};
use throughline_core::message::Headers;
use throughline_core::propagation::{Carrier, admit};
use tracing::debug;

use crate::raw_headers::{self, RawHeader};

/// Names that need no allocation when they are read.
const KNOWN: [&str; 9] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    "message-id",
    "correlation-id",
    "content-type",
    "reply-to",
];

/// Is the headers of a record in either of the client's forms: of a message it lends, or of one that is owned.
pub trait RecordHeaders: rdkafka::message::Headers + sealed::Sealed {
    #[doc(hidden)]
    fn to_borrowed(&self) -> &BorrowedHeaders;
}

impl RecordHeaders for BorrowedHeaders {
    fn to_borrowed(&self) -> &BorrowedHeaders {
        self
    }
}

impl RecordHeaders for OwnedHeaders {
    fn to_borrowed(&self) -> &BorrowedHeaders {
        self.as_borrowed()
    }
}

mod sealed {
    /// Keeps the trait to the client's own types, which are read by the client's raw functions.
    pub trait Sealed {}

    impl Sealed for rdkafka::message::BorrowedHeaders {}
    impl Sealed for rdkafka::message::OwnedHeaders {}
}

/// Writes propagation headers into the client's headers.
///
/// A name is written as the propagator gives it (PROP-02) and replaces all headers of that name in any spelling
/// (PROP-04, PROP-K-04). An empty value removes the header and writes none (PROP-06). A header that no broker carries is
/// dropped and counted in [`refused_headers`](throughline_core::propagation::refused_headers) (PROP-07). All other headers
/// stay as they are, also those the client itself cannot read.
///
/// # Examples
///
/// ```
/// use opentelemetry::propagation::Injector;
/// use rdkafka::message::{Header, Headers, OwnedHeaders};
/// use throughline_kafka::HeaderInjector;
///
/// let mut headers = OwnedHeaders::new().insert(Header { key: "Baggage", value: Some("stale=1") });
/// HeaderInjector(&mut headers).set("baggage", "tenant=acme".to_owned());
/// assert_eq!(headers.count(), 1);
/// assert_eq!(headers.get_as::<str>(0).unwrap().value, Some("tenant=acme"));
/// ```
#[derive(Debug)]
pub struct HeaderInjector<'a>(pub &'a mut OwnedHeaders);

impl Injector for HeaderInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        remove(self.0, key);
        if !value.is_empty() && admit(key, &value) {
            append(self.0, key, value.as_bytes());
        }
    }
}

impl Extractor for HeaderInjector<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        last(self.0.as_borrowed(), key)
    }

    fn keys(&self) -> Vec<&str> {
        names(self.0.as_borrowed())
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        all(self.0.as_borrowed(), key)
    }
}

impl Carrier for HeaderInjector<'_> {
    fn is_empty(&self) -> bool {
        rdkafka::message::Headers::count(&*self.0) == 0
    }

    fn put(&mut self, name: &'static str, value: &[u8]) {
        append(self.0, name, value);
    }

    fn as_extractor(&self) -> &dyn Extractor {
        self
    }

    fn remove(&mut self, name: &str) {
        remove(self.0, name);
    }
}

/// Reads propagation headers from the client's headers, without the panic of the client's own way (PROP-K-05).
///
/// Names are compared without regard to ASCII case, an exact match wins (PROP-03). A value that is null, empty or not UTF-8
/// is treated as absent (PROP-K-02). Of a repeated name [`get`](Extractor::get) gives the last value (PROP-K-03) and
/// [`get_all`](Extractor::get_all) gives all of them in their order, for the headers that are joined (PROP-12).
///
/// # Examples
///
/// ```
/// use opentelemetry::propagation::Extractor;
/// use rdkafka::message::{Header, OwnedHeaders};
/// use throughline_kafka::HeaderExtractor;
///
/// let headers = OwnedHeaders::new()
///     .insert(Header { key: "Baggage", value: Some("stage=1") })
///     .insert(Header { key: "Baggage", value: Some("stage=2") });
/// let extractor = HeaderExtractor(headers.as_borrowed());
/// assert_eq!(extractor.get("baggage"), Some("stage=2"));
/// assert_eq!(extractor.get_all("baggage"), Some(vec!["stage=1", "stage=2"]));
/// ```
#[derive(Clone, Copy)]
pub struct HeaderExtractor<'a>(pub &'a BorrowedHeaders);

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        last(self.0, key)
    }

    fn keys(&self) -> Vec<&str> {
        names(self.0)
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        all(self.0, key)
    }
}

impl std::fmt::Debug for HeaderExtractor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HeaderExtractor").field(&names(self.0)).finish()
    }
}

/// Returns the last usable value of a name: of the exact spelling, else of the others.
pub(crate) fn last<'a>(headers: &'a BorrowedHeaders, key: &str) -> Option<&'a str> {
    let exact = values(headers, key, |name, key| name == key).next_back();
    exact.or_else(|| values(headers, key, <[u8]>::eq_ignore_ascii_case).next_back())
}

fn all<'a>(headers: &'a BorrowedHeaders, key: &str) -> Option<Vec<&'a str>> {
    let mut found: Vec<&str> = values(headers, key, |name, key| name == key).collect();
    if found.is_empty() {
        found.extend(values(headers, key, <[u8]>::eq_ignore_ascii_case));
    }
    (!found.is_empty()).then_some(found)
}

/// Iterates over the usable values of the headers whose name is `key`, as `is_name` compares them.
fn values<'a>(
    headers: &'a BorrowedHeaders,
    key: &str,
    is_name: impl Fn(&[u8], &[u8]) -> bool,
) -> impl DoubleEndedIterator<Item = &'a str> {
    raw_headers::iter(headers).filter(move |header| is_name(header.name.to_bytes(), key.as_bytes())).filter_map(
        |header| {
            let value = std::str::from_utf8(header.value?).ok()?;
            (!value.is_empty()).then_some(value)
        },
    )
}

fn names(headers: &BorrowedHeaders) -> Vec<&str> {
    raw_headers::iter(headers).filter_map(|header| header.name.to_str().ok()).collect()
}

/// Removes a name in every spelling.
fn remove(headers: &mut OwnedHeaders, key: &str) {
    let is_key = |header: &RawHeader<'_>| header.name.to_bytes().eq_ignore_ascii_case(key.as_bytes());
    while let Some(name) = spelled(headers, is_key) {
        raw_headers::remove(headers, &name);
    }
}

fn spelled(headers: &OwnedHeaders, is_key: impl Fn(&RawHeader<'_>) -> bool) -> Option<CString> {
    raw_headers::iter(headers.as_borrowed()).find(is_key).map(|header| header.name.to_owned())
}

/// Appends a header in place: the client's own function wants the list and gives it back.
fn append(headers: &mut OwnedHeaders, key: &str, value: &[u8]) {
    raw_headers::append(headers, key.as_bytes(), Some(value));
}

/// Makes portable headers of names and values, in their order (PROP-K-03).
///
/// A null value becomes an empty one, which is absent for propagation too (PROP-K-02): portable headers have no null. A
/// header whose name is not UTF-8 is left out, since portable names are text; the message itself is whole (PROP-K-05).
pub(crate) fn read<'a>(count: usize, native: impl Iterator<Item = (&'a [u8], Option<Bytes>)>) -> Headers {
    let mut headers = Headers::with_capacity(count);
    let mut left_out = 0_usize;
    for (name, value) in native {
        match known(name) {
            Some(name) => headers.append(name, value.unwrap_or_default()),
            None => left_out += 1,
        }
    }
    if left_out > 0 {
        debug!(headers = left_out, "left out headers whose name is not UTF-8");
    }
    headers
}

fn known(name: &[u8]) -> Option<Cow<'static, str>> {
    match KNOWN.iter().find(|known| known.as_bytes() == name) {
        Some(known) => Some(Cow::Borrowed(known)),
        None => std::str::from_utf8(name).ok().map(|name| Cow::Owned(name.to_owned())),
    }
}

/// Copies portable headers into the client's; `None` where there are none. Kafka carries any name and any value.
pub(crate) fn to_native(headers: &Headers) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let room = OwnedHeaders::new_with_capacity(headers.len());
    Some(headers.iter().fold(room, |native, (key, value)| native.insert(Header { key, value: Some(value.as_ref()) })))
}

/// Copies a record's headers into portable ones; a delivery has them in one buffer with key and value.
#[cfg(test)]
pub(crate) fn to_headers<M>(message: &M) -> Headers
where
    M: rdkafka::Message,
    M::Headers: RecordHeaders,
{
    let native = message.headers().map(RecordHeaders::to_borrowed);
    let copied = |RawHeader { name, value }| (name.to_bytes(), value.map(Bytes::copy_from_slice));
    native.map_or_else(Headers::new, |native| {
        read(rdkafka::message::Headers::count(native), raw_headers::iter(native).map(copied))
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry::Context;
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry::trace::TraceContextExt;
    use proptest::prelude::*;
    use rdkafka::Timestamp;
    use rdkafka::message::OwnedMessage;
    use throughline_core::propagation::{Propagators, inject, refused_headers};

    use super::*;

    fn native(entries: &[(&str, &str)]) -> OwnedHeaders {
        let entries = entries.iter();
        entries.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }))
    }

    fn of_bytes(entries: &[(&[u8], Option<&[u8]>)]) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new();
        for (name, value) in entries {
            raw_headers::append(&mut headers, name, *value);
        }
        headers
    }

    fn record(headers: Option<OwnedHeaders>) -> OwnedMessage {
        OwnedMessage::new(None, None, "orders".to_owned(), Timestamp::NotAvailable, 0, 0, headers)
    }

    fn pairs(headers: &OwnedHeaders) -> Vec<(String, Option<&[u8]>)> {
        let raw = raw_headers::iter(headers.as_borrowed());
        raw.map(|header| (header.name.to_string_lossy().into_owned(), header.value)).collect()
    }

    fn get(headers: &OwnedHeaders, key: &str) -> Option<String> {
        HeaderExtractor(headers.as_borrowed()).get(key).map(str::to_owned)
    }

    #[test]
    fn writing_replaces_every_spelling() {
        let entries =
            [("Traceparent", "a"), ("tenant", "acme"), ("TRACEPARENT", "b"), ("tenant", "b"), ("traceparent", "c")];
        let mut headers = native(&entries);
        HeaderInjector(&mut headers).set("traceparent", "d".to_owned());
        let expected = [("tenant", b"acme".as_slice()), ("tenant", b"b"), ("traceparent", b"d")];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), Some(value))).into();
        assert_eq!(pairs(&headers), expected, "PROP-02, PROP-04, PROP-K-04");
    }

    #[test]
    fn writing_leaves_headers_that_are_not_text_where_they_are() {
        let mut headers = of_bytes(&[(b"\xff", Some(b"x")), (b"baggage", None), (b"null", None)]);
        HeaderInjector(&mut headers).set("baggage", "a=1".to_owned());
        let expected = [("\u{fffd}", Some(b"x".as_slice())), ("null", None), ("baggage", Some(b"a=1"))];
        assert_eq!(pairs(&headers), expected.map(|(name, value)| (name.to_owned(), value)), "PROP-K-05");
    }

    #[test]
    fn an_empty_value_removes_the_header() {
        let mut headers = native(&[("Baggage", "stale=1")]);
        HeaderInjector(&mut headers).set("baggage", String::new());
        assert!(HeaderInjector(&mut headers).is_empty(), "PROP-06");
    }

    #[test]
    fn what_no_broker_carries_is_dropped_and_counted() {
        let before = refused_headers();
        let mut headers = native(&[("baggage", "stale=1")]);
        for (name, value) in [("baggage", "a\r\nb"), ("bad name", "x"), ("bad:name", "x"), ("", "x"), ("baggage", "ü")]
        {
            HeaderInjector(&mut headers).set(name, value.to_owned());
        }
        assert_eq!(pairs(&headers), [], "PROP-07");
        assert!(refused_headers() >= before + 5, "PROP-07");
    }

    #[test]
    fn reading_ignores_case_and_prefers_the_exact_name() {
        let headers = native(&[("traceparent", "exact"), ("Traceparent", "other")]);
        assert_eq!(get(&headers, "traceparent").as_deref(), Some("exact"), "PROP-03");
        let headers = native(&[("TraceParent", "other")]);
        assert_eq!(get(&headers, "traceparent").as_deref(), Some("other"), "PROP-03");
        assert_eq!(HeaderExtractor(headers.as_borrowed()).keys(), ["TraceParent"]);
    }

    #[test]
    fn of_several_values_the_last_counts_and_all_are_offered() {
        let headers = native(&[("traceparent", "first"), ("traceparent", "second")]);
        assert_eq!(get(&headers, "traceparent").as_deref(), Some("second"), "PROP-K-03");
        let extractor = HeaderExtractor(headers.as_borrowed());
        assert_eq!(extractor.get_all("traceparent"), Some(vec!["first", "second"]), "PROP-12");
        assert_eq!(extractor.get_all("absent"), None);
    }

    #[test]
    fn a_value_that_is_null_empty_or_not_text_is_absent() {
        for value in [None, Some(&b""[..]), Some(b"a=\xff")] {
            let headers = of_bytes(&[(b"Baggage", Some(b"a=1")), (b"baggage", value)]);
            assert_eq!(get(&headers, "baggage").as_deref(), Some("a=1"), "PROP-K-02: {value:?}");
            let headers = of_bytes(&[(b"baggage", value)]);
            assert_eq!(get(&headers, "baggage"), None, "PROP-K-02: {value:?}");
            assert_eq!(HeaderExtractor(headers.as_borrowed()).get_all("baggage"), None, "PROP-K-02: {value:?}");
            let portable = to_headers(&record(Some(headers)));
            assert_eq!(Extractor::get(&portable, "baggage"), None, "PROP-K-02: {value:?}");
        }
    }

    #[test]
    fn a_name_that_is_not_text_costs_the_header_and_not_the_message() {
        let headers = of_bytes(&[(b"a", Some(b"1")), (b"\xff\xfe", Some(b"x")), (b"a", Some(b"2")), (b"null", None)]);
        assert_eq!(HeaderExtractor(headers.as_borrowed()).keys(), ["a", "a", "null"], "PROP-K-05");
        let portable = to_headers(&record(Some(headers)));
        let pairs: Vec<(&str, &[u8])> = portable.iter().map(|(name, value)| (name, value.as_ref())).collect();
        assert_eq!(pairs, [("a", &b"1"[..]), ("a", b"2"), ("null", b"")], "PROP-K-03, PROP-K-05");
    }

    #[test]
    fn a_record_without_headers_has_none() {
        assert!(to_headers(&record(None)).is_empty());
        assert!(to_headers(&record(Some(OwnedHeaders::new()))).is_empty());
        assert!(to_native(&Headers::new()).is_none());
    }

    #[test]
    fn what_is_received_can_be_sent_on() {
        let headers = native(&[("", "no name"), ("größe", "x"), ("Tag", ""), ("Tag", "\r\n"), ("traceparent", "a")]);
        let sent = to_native(&to_headers(&record(Some(headers.clone())))).unwrap();
        assert_eq!(pairs(&sent), pairs(&headers));
    }

    proptest! {
        /// VERF-12.
        #[test]
        fn no_header_makes_the_carriers_panic(
            entries in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..8), prop::option::of(prop::collection::vec(any::<u8>(), 0..8))),
                0..6,
            ),
            key in ".*",
            text in ".*",
        ) {
            let mut native = OwnedHeaders::new();
            for (name, value) in &entries {
                raw_headers::append(&mut native, name, value.as_deref());
            }
            for (name, _) in &entries {
                let name = String::from_utf8_lossy(name);
                let _ = HeaderExtractor(native.as_borrowed()).get(&name);
                let _ = HeaderExtractor(native.as_borrowed()).get_all(&name);
            }
            let _ = HeaderExtractor(native.as_borrowed()).keys();
            let portable = to_headers(&record(Some(native.clone())));
            prop_assert!(portable.len() <= entries.len());
            let _ = to_native(&portable);
            HeaderInjector(&mut native).set(&key, text);
            Carrier::remove(&mut HeaderInjector(&mut native), &key);
            prop_assert_eq!(get(&native, &key), None);
        }

        /// VERF-12.
        #[test]
        fn what_is_written_is_read_back(name in "[!-9;-~]{1,20}", value in "[ -~]{1,40}") {
            let mut native = OwnedHeaders::new();
            HeaderInjector(&mut native).set(&name, value.clone());
            prop_assert_eq!(get(&native, &name), Some(value.clone()));
            let headers = to_headers(&record(Some(native)));
            prop_assert_eq!(headers.get(&name), Some(value.as_str()));
        }

        #[test]
        fn portable_headers_survive_the_way_through_the_client(
            entries in prop::collection::vec(("[^\0]{0,8}", prop::collection::vec(any::<u8>(), 0..8)), 0..6),
        ) {
            let mut headers = Headers::new();
            for (name, value) in &entries {
                headers.append(name.clone(), value.clone());
            }
            let back = to_headers(&record(to_native(&headers)));
            prop_assert!(back.iter().eq(headers.iter()));
        }

        /// PROP-05, PROP-12, VERF-12: whatever stands in the client's headers, a context written over it stands there alone.
        #[test]
        fn a_context_is_read_from_and_written_over_any_headers(
            entries in prop::collection::vec(
                ("[Tt]race[Pp]arent|[Tt]race[Ss]tate|[Bb]agg[Aa]ge|[!-9;-~]{1,9}", "[ -~é]{0,60}|00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]"),
                0..8,
            ),
        ) {
            let entries: Vec<(&str, &str)> = entries.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut written = native(&entries);
            let propagators = Propagators::default();
            let cx = propagators.extract_with_context(&Context::new(), &HeaderExtractor(written.as_borrowed()));
            prop_assert!(!cx.has_active_span() || cx.span().span_context().is_valid());
            inject(&propagators, &cx, &mut HeaderInjector(&mut written));
            let mut fresh = OwnedHeaders::new();
            propagators.inject_context(&cx, &mut HeaderInjector(&mut fresh));
            for field in propagators.fields() {
                let spelled = |headers: &OwnedHeaders| {
                    let named = pairs(headers).into_iter().filter(|(name, _)| name.eq_ignore_ascii_case(field));
                    named.map(|(_, value)| value.map(<[u8]>::to_vec)).collect::<Vec<_>>()
                };
                prop_assert_eq!(spelled(&written), spelled(&fresh));
                prop_assert!(spelled(&fresh).len() <= 1);
            }
        }
    }
}
