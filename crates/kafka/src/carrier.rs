use std::ffi::{CStr, CString};

use bytes::Bytes;
use rdkafka::message::{BorrowedHeaders, Header, OwnedHeaders};
use throughline_core::Headers;
use throughline_core::propagation::lookup::{self, Repeated};
use throughline_core::propagation::{NativeCarrier, NativeExtractor, NativeInjector, header_name};
use tracing::debug;

use crate::raw_headers::{self, RawHeader};

/// The headers of a record in either of the client's forms: of a message it lends, or of one that is owned.
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
    /// What keeps the trait to the client's own types, which are read by the client's raw functions.
    pub trait Sealed {}

    impl Sealed for rdkafka::message::BorrowedHeaders {}
    impl Sealed for rdkafka::message::OwnedHeaders {}
}

/// What writes propagation headers into the client's headers, as [`NativeInjector`] says. All other headers stay as they are, also those
/// the client itself cannot read.
///
/// # Examples
///
/// ```
/// use opentelemetry::propagation::Injector;
/// use rdkafka::message::{Header, Headers, OwnedHeaders};
/// use throughline_kafka::HeaderInjector;
///
/// let mut headers = OwnedHeaders::new().insert(Header { key: "Baggage", value: Some("stale=1") });
/// HeaderInjector::new(&mut headers).set("baggage", "tenant=acme".to_owned());
/// assert_eq!(headers.count(), 1);
/// assert_eq!(headers.get_as::<str>(0).unwrap().value, Some("tenant=acme"));
/// ```
pub type HeaderInjector<'a> = NativeInjector<'a, ClientHeaders>;

/// What reads propagation headers from the client's headers, as [`NativeExtractor`] says, and without the panic of the client's own way
/// on a name that is not UTF-8. Of a repeated name the last value counts.
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
/// let extractor = HeaderExtractor::new(headers.as_borrowed());
/// assert_eq!(extractor.get("baggage"), Some("stage=2"));
/// assert_eq!(extractor.get_all("baggage"), Some(vec!["stage=1", "stage=2"]));
/// ```
pub type HeaderExtractor<'a> = NativeExtractor<'a, ClientHeaders>;

/// The headers of `rdkafka`.
#[derive(Debug)]
pub enum ClientHeaders {}

// PROP-K-03, PROP-K-04, PROP-K-05.
impl NativeCarrier for ClientHeaders {
    type Read = BorrowedHeaders;
    type Written = OwnedHeaders;

    const REPEATED: Repeated = Repeated::Last;

    fn as_read(written: &OwnedHeaders) -> &BorrowedHeaders {
        written.as_borrowed()
    }

    fn iter(headers: &BorrowedHeaders) -> impl Iterator<Item = lookup::Entry<'_>> {
        raw_headers::iter(headers).map(|RawHeader { name, value }| (name.to_bytes(), value))
    }

    fn append(headers: &mut OwnedHeaders, name: &str, value: &str) {
        raw_headers::append(headers, name.as_bytes(), Some(value.as_bytes()));
    }

    fn remove(headers: &mut OwnedHeaders, name: &str) {
        while let Some(spelled) = spelled(headers, name) {
            raw_headers::remove(headers, &spelled);
        }
    }
}

fn spelled(headers: &OwnedHeaders, key: &str) -> Option<CString> {
    let mut names = raw_headers::iter(headers.as_borrowed()).map(|header| header.name);
    names.find(|name| name.to_bytes().eq_ignore_ascii_case(key.as_bytes())).map(CStr::to_owned)
}

/// Returns the last usable value of a name.
pub(crate) fn last<'a>(headers: &'a BorrowedHeaders, key: &str) -> Option<&'a str> {
    HeaderExtractor::new(headers).find(key)
}

/// Makes portable headers of names and values, in their order.
///
/// A null value becomes an empty one, which is absent for propagation too: portable headers have no null. A
/// header whose name is not UTF-8 is left out, since portable names are text; the message itself is whole.
// PROP-K-03, PROP-K-02, PROP-K-05.
pub(crate) fn read<'a>(count: usize, native: impl Iterator<Item = (&'a [u8], Option<Bytes>)>) -> Headers {
    let mut headers = Headers::with_capacity(count);
    let mut left_out = 0_usize;
    for (name, value) in native {
        match std::str::from_utf8(name) {
            Ok(name) => headers.append(header_name(name, &[]), value.unwrap_or_default()),
            Err(_) => left_out += 1,
        }
    }
    if left_out > 0 {
        debug!(headers = left_out, "left out headers whose name is not UTF-8");
    }
    headers
}

/// Copies portable headers into the client's; `None` where there are none. Kafka carries any name and any value; an empty one is null where
/// `is_null` says so of its name and its place among the empty ones of that name.
pub(crate) fn to_native(headers: &Headers, is_null: impl Fn(&str, usize) -> bool) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let room = OwnedHeaders::new_with_capacity(headers.len());
    let empty_before = |place, key: &str| {
        headers.iter().take(place).filter(|(other, value)| *other == key && value.is_empty()).count()
    };
    Some(headers.iter().enumerate().fold(room, |native, (place, (key, value))| {
        let is_null = value.is_empty() && is_null(key, empty_before(place, key));
        native.insert(Header { key, value: (!is_null).then_some(value.as_ref()) })
    }))
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
    use opentelemetry::propagation::{Extractor, Injector};
    use proptest::prelude::*;
    use rdkafka::Timestamp;
    use rdkafka::message::OwnedMessage;
    use throughline_core::propagation::Carrier;
    use throughline_testing::conformance;

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
        HeaderExtractor::new(headers.as_borrowed()).get(key).map(str::to_owned)
    }

    #[test]
    fn headers_are_read_and_written_by_the_rules() {
        conformance::assert_carrier::<ClientHeaders>();
    }

    #[test]
    fn writing_replaces_every_spelling() {
        let entries =
            [("Traceparent", "a"), ("tenant", "acme"), ("TRACEPARENT", "b"), ("tenant", "b"), ("traceparent", "c")];
        let mut headers = native(&entries);
        HeaderInjector::new(&mut headers).set("traceparent", "d".to_owned());
        let expected = [("tenant", b"acme".as_slice()), ("tenant", b"b"), ("traceparent", b"d")];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), Some(value))).into();
        assert_eq!(pairs(&headers), expected, "PROP-02, PROP-04, PROP-K-04");
    }

    #[test]
    fn writing_leaves_headers_that_are_not_text_where_they_are() {
        let mut headers = of_bytes(&[(b"\xff", Some(b"x")), (b"baggage", None), (b"null", None)]);
        HeaderInjector::new(&mut headers).set("baggage", "a=1".to_owned());
        let expected = [("\u{fffd}", Some(b"x".as_slice())), ("null", None), ("baggage", Some(b"a=1"))];
        assert_eq!(pairs(&headers), expected.map(|(name, value)| (name.to_owned(), value)), "PROP-K-05");
    }

    #[test]
    fn of_several_values_the_last_counts_and_all_are_offered() {
        let headers = native(&[("traceparent", "first"), ("traceparent", "second")]);
        assert_eq!(get(&headers, "traceparent").as_deref(), Some("second"), "PROP-K-03");
        let extractor = HeaderExtractor::new(headers.as_borrowed());
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
            assert_eq!(HeaderExtractor::new(headers.as_borrowed()).get_all("baggage"), None, "PROP-K-02: {value:?}");
            let portable = to_headers(&record(Some(headers)));
            assert_eq!(Extractor::get(&portable, "baggage"), None, "PROP-K-02: {value:?}");
        }
    }

    #[test]
    fn a_name_that_is_not_text_costs_the_header_and_not_the_message() {
        let headers = of_bytes(&[(b"a", Some(b"1")), (b"\xff\xfe", Some(b"x")), (b"a", Some(b"2")), (b"null", None)]);
        assert_eq!(HeaderExtractor::new(headers.as_borrowed()).keys(), ["a", "a", "null"], "PROP-K-05");
        let portable = to_headers(&record(Some(headers)));
        let pairs: Vec<(&str, &[u8])> = portable.iter().map(|(name, value)| (name, value.as_ref())).collect();
        assert_eq!(pairs, [("a", &b"1"[..]), ("a", b"2"), ("null", b"")], "PROP-K-03, PROP-K-05");
    }

    #[test]
    fn a_record_without_headers_has_none() {
        assert!(to_headers(&record(None)).is_empty());
        assert!(to_headers(&record(Some(OwnedHeaders::new()))).is_empty());
        assert!(to_native(&Headers::new(), |_, _| false).is_none());
    }

    #[test]
    fn what_is_received_can_be_sent_on() {
        let headers = native(&[("", "no name"), ("größe", "x"), ("Tag", ""), ("Tag", "\r\n"), ("traceparent", "a")]);
        let sent = to_native(&to_headers(&record(Some(headers.clone()))), |_, _| false).unwrap();
        assert_eq!(pairs(&sent), pairs(&headers));
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
                let _ = HeaderExtractor::new(native.as_borrowed()).get(&name);
                let _ = HeaderExtractor::new(native.as_borrowed()).get_all(&name);
            }
            let _ = HeaderExtractor::new(native.as_borrowed()).keys();
            let portable = to_headers(&record(Some(native.clone())));
            prop_assert!(portable.len() <= entries.len());
            let _ = to_native(&portable, |_, _| false);
            HeaderInjector::new(&mut native).set(&key, text);
            Carrier::remove(&mut HeaderInjector::new(&mut native), &key);
            prop_assert_eq!(get(&native, &key), None);
        }

        // VERF-12.
        #[test]
        fn what_is_written_is_read_back(name in "[!-9;-~]{1,20}", value in "[ -~]{1,40}") {
            let mut native = OwnedHeaders::new();
            HeaderInjector::new(&mut native).set(&name, value.clone());
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
            let back = to_headers(&record(to_native(&headers, |_, _| false)));
            prop_assert!(back.iter().eq(headers.iter()));
        }
    }
}
