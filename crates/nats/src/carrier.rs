use std::borrow::Cow;
use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use opentelemetry::propagation::{Extractor, Injector};
use throughline_core::broker::{PublishError, PublishErrorKind};
use throughline_core::message::Headers;
use throughline_core::propagation::{Carrier, admit};

use crate::error::OTHER;

/// Names that need no allocation when they are read.
const KNOWN: [&str; 10] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    "content-type",
    "correlation-id",
    "Content-Type",
    "Nats-Msg-Id",
    "Nats-Expected-Stream",
];

/// Writes propagation headers into the client's header map.
///
/// A name is written as the propagator gives it (PROP-02) and replaces all headers of that name in any spelling
/// (PROP-04). An empty value removes the header and writes none (PROP-06). A header that no broker carries is dropped
/// and counted in [`refused_headers`](throughline_core::propagation::refused_headers) (PROP-07); the client would panic
/// on some of them (PROP-N-03).
///
/// # Examples
///
/// ```
/// use async_nats::HeaderMap;
/// use opentelemetry::propagation::Injector;
/// use throughline_nats::HeaderInjector;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("Baggage", "stale=1");
/// HeaderInjector(&mut headers).set("baggage", "tenant=acme".to_owned());
/// assert_eq!(headers.len(), 1);
/// assert_eq!(headers.get("baggage").map(|value| value.as_str()), Some("tenant=acme"));
/// ```
#[derive(Debug)]
pub struct HeaderInjector<'a>(pub &'a mut HeaderMap);

impl Injector for HeaderInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        remove(self.0, key);
        if value.is_empty() || !admit(key, &value) {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_str(key), HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}

impl Extractor for HeaderInjector<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        first(self.0, key)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| text(name)).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        all(self.0, key)
    }
}

impl Carrier for HeaderInjector<'_> {
    fn as_extractor(&self) -> &dyn Extractor {
        self
    }

    fn remove(&mut self, name: &str) {
        remove(self.0, name);
    }
}

/// Reads propagation headers from the client's header map.
///
/// Names are compared without regard to ASCII case, an exact match wins (PROP-03, PROP-N-01); an empty value is treated
/// as absent. Of a repeated name [`get`](Extractor::get) gives the first value and [`get_all`](Extractor::get_all)
/// gives all of them in their order, for the headers that are joined (PROP-12, PROP-N-02).
///
/// # Examples
///
/// ```
/// use async_nats::HeaderMap;
/// use opentelemetry::propagation::Extractor;
/// use throughline_nats::HeaderExtractor;
///
/// let mut headers = HeaderMap::new();
/// headers.append("Baggage", "stage=1");
/// headers.append("Baggage", "stage=2");
/// assert_eq!(HeaderExtractor(&headers).get("baggage"), Some("stage=1"));
/// assert_eq!(HeaderExtractor(&headers).get_all("baggage"), Some(vec!["stage=1", "stage=2"]));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HeaderExtractor<'a>(pub &'a HeaderMap);

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        first(self.0, key)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| text(name)).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        all(self.0, key)
    }
}

/// Returns the first value of a name that is not empty.
pub(crate) fn first<'a>(headers: &'a HeaderMap, key: &str) -> Option<&'a str> {
    values(headers, key).next()
}

pub(crate) fn all<'a>(headers: &'a HeaderMap, key: &str) -> Option<Vec<&'a str>> {
    let found: Vec<&str> = values(headers, key).collect();
    (!found.is_empty()).then_some(found)
}

/// Iterates over the values of a name that are not empty: those of the exact spelling, else those of the others.
fn values<'a>(headers: &'a HeaderMap, key: &str) -> impl Iterator<Item = &'a str> {
    let has_value = |values: &[HeaderValue]| values.iter().any(|value| !value.as_str().is_empty());
    let exact = headers.iter().any(|(name, values)| text(name) == key && has_value(values));
    headers
        .iter()
        .filter(move |(name, _)| if exact { text(name) == key } else { text(name).eq_ignore_ascii_case(key) })
        .flat_map(|(_, values)| values.iter().map(HeaderValue::as_str))
        .filter(|value| !value.is_empty())
}

fn text(name: &HeaderName) -> &str {
    name.as_ref()
}

/// Removes a name in every spelling; the client's map cannot, so it is built anew when there is something to remove.
fn remove(headers: &mut HeaderMap, key: &str) {
    remove_if(headers, |name| name.eq_ignore_ascii_case(key));
}

/// Removes what the server reads, of a message that is passed on.
pub(crate) fn remove_server_headers(headers: &mut HeaderMap) {
    remove_if(headers, is_server_header);
}

fn remove_if(headers: &mut HeaderMap, is_one: impl Fn(&str) -> bool) {
    if !headers.iter().any(|(name, _)| is_one(text(name))) {
        return;
    }
    let mut kept = HeaderMap::new();
    for (name, values) in headers.iter().filter(|(name, _)| !is_one(text(name))) {
        for value in values {
            kept.append(name.clone(), value.clone());
        }
    }
    *headers = kept;
}

/// Returns the first value of a server header.
pub(crate) fn server_header<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    let (_, values) = headers?.iter().find(|(key, _)| text(key) == name)?;
    values.first().map(HeaderValue::as_str)
}

/// Copies the client's headers into portable ones. Values of one name keep their order; the client keeps none between
/// names.
///
/// Of a propagation header that holds one context only the first value is taken (PROP-N-02): a portable reader takes
/// the last. A header without a name, which the client reads but no message can be sent with, is none: forwarding the
/// message would fail forever.
pub(crate) fn to_headers(native: &HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(native.len());
    for (name, values) in native.iter().filter(|(name, _)| !text(name).is_empty()) {
        let name = text(name);
        let taken = if holds_one_context(name) { 1 } else { values.len() };
        for value in values.iter().take(taken) {
            headers.append(known(name), Bytes::copy_from_slice(value.as_ref()));
        }
    }
    headers
}

fn holds_one_context(name: &str) -> bool {
    ["traceparent", "b3", "uber-trace-id"].iter().any(|single| name.eq_ignore_ascii_case(single))
}

fn known(name: &str) -> Cow<'static, str> {
    KNOWN
        .iter()
        .find(|known| **known == name)
        .map_or_else(|| Cow::Owned(name.to_owned()), |known| Cow::Borrowed(*known))
}

/// Copies portable headers into the client's.
///
/// Server headers are left out: they belong to the message they came with (PROP-N-04). Of what NATS cannot carry, a
/// propagation header is dropped and counted, any other is an error.
pub(crate) fn to_native(headers: &Headers) -> Result<HeaderMap, PublishError> {
    let mut native = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| !is_server_header(name)) {
        match parse(name, value) {
            Some((name, value)) => native.append(name, value),
            None if is_propagation(name) => drop(admit(name, &String::from_utf8_lossy(value))),
            None => return Err(refused(name)),
        }
    }
    Ok(native)
}

/// Sets one header of our own, in place of all others of that name.
pub(crate) fn put(native: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), PublishError> {
    let value = HeaderValue::from_str(value).map_err(|_| refused(name))?;
    remove(native, name);
    native.insert(HeaderName::from_static(name), value);
    Ok(())
}

fn parse(name: &str, value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    if name.is_empty() {
        return None;
    }
    let value = std::str::from_utf8(value).ok()?;
    Some((HeaderName::from_str(name).ok()?, HeaderValue::from_str(value).ok()?))
}

/// Tells whether a header is the server's own.
pub(crate) fn is_server_header(name: &str) -> bool {
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"))
}

pub(crate) fn is_propagation(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    matches!(lower.as_str(), "traceparent" | "tracestate" | "baggage" | "b3" | "uber-trace-id")
        || lower.starts_with("x-b3-")
        || lower.starts_with("uberctx-")
}

fn refused(name: &str) -> PublishError {
    PublishError::new(
        PublishErrorKind::Encode,
        OTHER,
        format!(
            "NATS cannot carry the header `{}`: \
             its name must be visible ASCII without `:`, its value UTF-8 without line breaks",
            name.escape_debug()
        ),
    )
}

#[cfg(test)]
mod tests {
    use opentelemetry::Context;
    use opentelemetry::propagation::TextMapPropagator;
    use opentelemetry::trace::TraceContextExt;
    use proptest::prelude::*;
    use throughline_core::propagation::{Propagators, inject, refused_headers};

    use super::*;

    fn map(entries: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in entries {
            headers.append(*name, *value);
        }
        headers
    }

    #[test]
    fn writing_replaces_every_spelling() {
        let mut headers = map(&[("Traceparent", "a"), ("TRACEPARENT", "b"), ("tenant", "acme"), ("tenant", "b")]);
        HeaderInjector(&mut headers).set("traceparent", "c".to_owned());
        assert_eq!(headers.len(), 2, "PROP-04");
        assert_eq!(headers.get("traceparent").unwrap().as_str(), "c", "PROP-02");
        assert_eq!(headers.get_all("tenant").count(), 2);
    }

    #[test]
    fn an_empty_value_removes_the_header() {
        let mut headers = map(&[("Baggage", "stale=1")]);
        HeaderInjector(&mut headers).set("baggage", String::new());
        assert!(headers.is_empty(), "PROP-06");
    }

    #[test]
    fn what_no_broker_carries_is_dropped_and_counted() {
        let before = refused_headers();
        let mut headers = map(&[("baggage", "stale=1")]);
        for (name, value) in [("baggage", "a\r\nb"), ("bad name", "x"), ("bad:name", "x"), ("", "x"), ("baggage", "ü")]
        {
            HeaderInjector(&mut headers).set(name, value.to_owned());
        }
        assert!(headers.is_empty(), "PROP-07, PROP-N-03");
        assert!(refused_headers() >= before + 5, "PROP-07");
    }

    #[test]
    fn reading_ignores_case_and_prefers_the_exact_name() {
        let headers = map(&[("Traceparent", "other"), ("traceparent", "exact")]);
        assert_eq!(HeaderExtractor(&headers).get("traceparent"), Some("exact"), "PROP-03");
        let headers = map(&[("TraceParent", "other")]);
        assert_eq!(HeaderExtractor(&headers).get("traceparent"), Some("other"), "PROP-03, PROP-N-01");
        assert_eq!(HeaderExtractor(&headers).keys(), ["TraceParent"]);
    }

    #[test]
    fn of_several_values_the_first_counts_and_all_are_offered() {
        let headers = map(&[("traceparent", "first"), ("traceparent", "second")]);
        assert_eq!(HeaderExtractor(&headers).get("traceparent"), Some("first"), "PROP-N-02");
        assert_eq!(HeaderExtractor(&headers).get_all("traceparent"), Some(vec!["first", "second"]), "PROP-12");
        assert_eq!(HeaderExtractor(&headers).get_all("absent"), None);
    }

    #[test]
    fn an_empty_value_is_absent() {
        let headers = map(&[("baggage", ""), ("Baggage", "a=1")]);
        assert_eq!(HeaderExtractor(&headers).get("baggage"), Some("a=1"), "PROP-06");
    }

    #[test]
    fn the_portable_headers_have_the_first_context_and_all_baggage() {
        let headers =
            to_headers(&map(&[("traceparent", "a"), ("traceparent", "b"), ("baggage", "a=1"), ("baggage", "b=2")]));
        assert_eq!(headers.get_all("traceparent").collect::<Vec<_>>(), [b"a"], "PROP-N-02");
        assert_eq!(headers.get_all("baggage").collect::<Vec<_>>(), [b"a=1", b"b=2"], "PROP-12");
    }

    #[test]
    fn a_header_without_a_name_is_none() {
        let headers = to_headers(&map(&[("", "x"), ("tenant", "acme")]));
        assert!(headers.iter().map(|(name, _)| name).eq(["tenant"]));
        assert!(to_native(&headers).is_ok(), "what was received can be forwarded");
    }

    #[test]
    fn server_headers_are_never_copied() {
        let mut headers = Headers::new();
        for name in ["Nats-Msg-Id", "nats-stream", "NATS-Expected-Last-Sequence", "tenant", "Nats"] {
            headers.append(name, "x");
        }
        let native = to_native(&headers).unwrap();
        let mut names: Vec<&str> = native.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        assert_eq!(names, ["Nats", "tenant"], "PROP-N-04");
    }

    #[test]
    fn a_header_nats_cannot_carry_is_named() {
        for (name, value) in
            [("a b", &b"x"[..]), ("a:b", b"x"), ("", b"x"), ("tag", b"a\nb"), ("tag", b"\xff"), ("größe", b"x")]
        {
            let mut headers = Headers::new();
            headers.append(name, value);
            let error = to_native(&headers).unwrap_err();
            assert_eq!(error.kind(), PublishErrorKind::Encode, "{name:?}");
            assert!(error.to_string().contains(&name.escape_debug().to_string()));
        }
    }

    #[test]
    fn a_propagation_header_nats_cannot_carry_is_dropped() {
        let before = refused_headers();
        let mut headers = Headers::new();
        headers.append("Baggage", &b"a=\xff"[..]);
        headers.append("uberctx-a", "x\ny");
        assert!(to_native(&headers).unwrap().is_empty(), "PROP-07");
        assert!(refused_headers() >= before + 2);
    }

    #[test]
    fn our_own_header_replaces_a_copied_one() {
        let mut native = map(&[("Correlation-Id", "old")]);
        put(&mut native, "correlation-id", "new").unwrap();
        assert_eq!((native.len(), native.get("correlation-id").unwrap().as_str()), (1, "new"));
        assert_eq!(put(&mut native, "correlation-id", "a\nb").unwrap_err().kind(), PublishErrorKind::Encode);
    }

    proptest! {
        #[test]
        fn no_header_makes_the_carriers_panic(
            entries in prop::collection::vec((".*", ".*", prop::collection::vec(any::<u8>(), 0..8)), 0..6),
        ) {
            let mut native = HeaderMap::new();
            let mut headers = Headers::new();
            for (name, text, bytes) in entries {
                HeaderInjector(&mut native).set(&name, text.clone());
                let _ = HeaderExtractor(&native).get_all(&name);
                headers.append(name.clone(), text);
                headers.append(name, bytes);
            }
            let _ = to_native(&headers);
        }

        #[test]
        fn what_is_written_is_read_back(name in "[!-9;-~]{1,20}", value in "[ -~]{1,40}") {
            let mut native = HeaderMap::new();
            HeaderInjector(&mut native).set(&name, value.clone());
            let extractor = HeaderExtractor(&native);
            prop_assert_eq!(extractor.get(&name), Some(value.as_str()));
            let headers = to_headers(&native);
            prop_assert_eq!(headers.get(&name), Some(value.as_str()));
        }

        /// PROP-05, PROP-12, VERF-12: whatever stands in the client's headers, a context written over it stands there alone.
        #[test]
        fn a_context_is_read_from_and_written_over_any_headers(
            entries in prop::collection::vec(
                ("[Tt]race[Pp]arent|[Tt]race[Ss]tate|[Bb]agg[Aa]ge|[!-9;-~]{1,9}", "[ -~é]{0,60}|00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]"),
                0..8,
            ),
        ) {
            let mut native = HeaderMap::new();
            for (name, value) in &entries {
                native.append(name.as_str(), value.as_str());
            }
            let propagators = Propagators::default();
            let cx = propagators.extract_with_context(&Context::new(), &HeaderExtractor(&native));
            prop_assert!(!cx.has_active_span() || cx.span().span_context().is_valid());
            inject(&propagators, &cx, &mut HeaderInjector(&mut native));
            let mut fresh = HeaderMap::new();
            propagators.inject_context(&cx, &mut HeaderInjector(&mut fresh));
            for field in propagators.fields() {
                let spelled = |headers: &HeaderMap| {
                    let named = headers.iter().filter(|(name, _)| text(name).eq_ignore_ascii_case(field));
                    named.flat_map(|(_, values)| values.clone()).collect::<Vec<_>>()
                };
                prop_assert_eq!(spelled(&native), spelled(&fresh));
                prop_assert!(spelled(&fresh).len() <= 1);
            }
        }

        #[test]
        fn what_is_sent_is_what_the_protocol_can_carry(
            name in ".{0,8}",
            value in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut headers = Headers::new();
            headers.append(name, value);
            if let Ok(native) = to_native(&headers) {
                for (name, values) in native.iter() {
                    let name: &str = name.as_ref();
                    prop_assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
                    prop_assert!(values.iter().all(|value| !value.as_str().contains(['\r', '\n'])));
                }
            }
        }
    }
}
