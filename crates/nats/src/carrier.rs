use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use throughline_core::broker::{ErrorReplyHeaders, PublishErrorKind};
use throughline_core::message::header_text;
use throughline_core::propagation::lookup::{self, Repeated};
use throughline_core::propagation::{
    NativeCarrier, NativeExtractor, NativeInjector, admit, header_name, holds_one_context, is_propagation_header,
};
use throughline_core::{Headers, PublishError};

use crate::altered::Altered;
use crate::error::OTHER;

/// Names of the server's that need no allocation when they are read.
const KNOWN: [&str; 2] = ["Nats-Msg-Id", "Nats-Expected-Stream"];

/// What writes propagation headers into the client's header map, as [`NativeInjector`] says. A header that the client would panic on is
/// dropped and counted in [`refused_headers`](throughline_core::propagation::refused_headers).
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
/// HeaderInjector::new(&mut headers).set("baggage", "tenant=acme".to_owned());
/// assert_eq!(headers.len(), 1);
/// assert_eq!(headers.get("baggage").map(|value| value.as_str()), Some("tenant=acme"));
/// ```
pub type HeaderInjector<'a> = NativeInjector<'a, ClientHeaders>;

/// What reads propagation headers from the client's header map, as [`NativeExtractor`] says. Of a repeated name the first value counts.
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
/// assert_eq!(HeaderExtractor::new(&headers).get("baggage"), Some("stage=1"));
/// assert_eq!(HeaderExtractor::new(&headers).get_all("baggage"), Some(vec!["stage=1", "stage=2"]));
/// ```
pub type HeaderExtractor<'a> = NativeExtractor<'a, ClientHeaders>;

/// The headers of `async-nats`.
#[derive(Debug)]
pub enum ClientHeaders {}

impl NativeCarrier for ClientHeaders {
    type Read = HeaderMap;
    type Written = HeaderMap;

    // PROP-N-02.
    const REPEATED: Repeated = Repeated::First;

    fn as_read(written: &HeaderMap) -> &HeaderMap {
        written
    }

    fn iter(headers: &HeaderMap) -> impl Iterator<Item = lookup::Entry<'_>> {
        headers.iter().flat_map(|(name, values)| {
            values.iter().map(|value| (text(name).as_bytes(), Some(value.as_str().as_bytes())))
        })
    }

    // PROP-N-03.
    fn append(headers: &mut HeaderMap, name: &str, value: &str) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_str(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }

    /// The client's map cannot remove a name in every spelling, so it is built anew when there is something to remove.
    fn remove(headers: &mut HeaderMap, name: &str) {
        remove_if(headers, |other| other.eq_ignore_ascii_case(name));
    }
}

/// Returns the first value of a name that is not empty.
pub(crate) fn first<'a>(headers: &'a HeaderMap, key: &str) -> Option<&'a str> {
    // Few messages have it, and asking for the name alone is cheaper.
    let is_there = headers.iter().any(|(name, _)| text(name).eq_ignore_ascii_case(key));
    is_there.then(|| HeaderExtractor::new(headers).find(key)).flatten()
}

fn text(name: &HeaderName) -> &str {
    name.as_ref()
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
/// Of a propagation header that holds one context only the first value is taken: a portable reader takes
/// the last. A header without a name, which the client reads but no message can be sent with, is none: forwarding the
/// message would fail forever.
// PROP-N-02.
pub(crate) fn to_headers(native: &HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(native.len());
    for (name, values) in native.iter().filter(|(name, _)| !text(name).is_empty()) {
        let name = text(name);
        let taken = if holds_one_context(name) { 1 } else { values.len() };
        for value in values.iter().take(taken) {
            headers.append(header_name(name, &KNOWN), Bytes::copy_from_slice(value.as_ref()));
        }
    }
    headers
}

/// Copies portable headers into the client's.
///
/// Server headers are left out: they belong to the message they came with. Of what NATS cannot carry, a
/// propagation header is dropped and counted, any other is an error; see [`to_forwarded`].
// PROP-N-04, PROP-N-08.
pub(crate) fn to_native(headers: &Headers) -> Result<HeaderMap, PublishError> {
    let mut native = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| !is_server_header(name)) {
        match parse(name, value) {
            Some((name, value)) => native.append(name, value),
            None if is_propagation_header(name) => drop(admit(name, &String::from_utf8_lossy(value))),
            None => return Err(refused(name)),
        }
    }
    Ok(native)
}

/// Copies the headers of a message that is passed on to a subject. A stranger wrote them, and the message must not be lost for that: a text
/// that NATS cannot carry is escaped, what is no text or has no name that NATS knows is left out, and both are counted.
// PROP-N-09.
pub(crate) fn to_forwarded(headers: &Headers, subject: &str, altered: &Altered) -> HeaderMap {
    let mut native = HeaderMap::new();
    let mut changed = 0;
    for (name, value) in headers.iter().filter(|(name, _)| !is_server_header(name)) {
        match parse(name, value) {
            Some((name, value)) => native.append(name, value),
            None if is_propagation_header(name) => drop(admit(name, &String::from_utf8_lossy(value))),
            None => {
                changed += 1;
                if let Some((name, value)) = escape(name, value) {
                    native.append(name, value);
                }
            }
        }
    }
    altered.note(changed, subject);
    native
}

/// Does the same with headers of the client's own, in place.
pub(crate) fn escape_all(headers: &mut HeaderMap, subject: &str, altered: &Altered) {
    if check(headers).is_ok() {
        return;
    }
    let mut native = HeaderMap::new();
    let mut changed = 0;
    for (name, values) in headers.iter() {
        for value in values {
            if header_text::is_plain(value.as_ref()) {
                native.append(name.clone(), value.clone());
                continue;
            }
            changed += 1;
            if let Some((name, value)) = escape(text(name), value.as_ref()) {
                native.append(name, value);
            }
        }
    }
    *headers = native;
    altered.note(changed, subject);
}

/// Checks the values of headers that a user of the client wrote. The client checks the names.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), PublishError> {
    let is_plain = |values: &[HeaderValue]| values.iter().all(|value| header_text::is_plain(value.as_ref()));
    let wrong = headers.iter().find(|(_, values)| !is_plain(values));
    wrong.map_or(Ok(()), |(name, _)| Err(refused(text(name))))
}

/// Sets one header of our own, in place of all others of that name.
pub(crate) fn put(native: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), PublishError> {
    let written = HeaderValue::from_str(value).ok().filter(|_| header_text::is_plain(value.as_bytes()));
    let value = written.ok_or_else(|| refused(name))?;
    ClientHeaders::remove(native, name);
    native.insert(HeaderName::from_static(name), value);
    Ok(())
}

/// Returns a header that NATS can carry; its decision on headers allows ASCII alone in a value, and clients keep to it.
fn parse(name: &str, value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    if name.is_empty() || !header_text::is_plain(value) {
        return None;
    }
    let value = std::str::from_utf8(value).ok()?;
    Some((HeaderName::from_str(name).ok()?, HeaderValue::from_str(value).ok()?))
}

fn escape(name: &str, value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let value = std::str::from_utf8(value).ok()?;
    parse(name, header_text::escape(value).as_bytes())
}

/// The headers by which a service says that a request failed, as the services API of NATS has them. The server does not read them.
pub(crate) const ERROR_REPLY: ErrorReplyHeaders =
    ErrorReplyHeaders { code: "Nats-Service-Error-Code", text: "Nats-Service-Error" };

/// Tells whether a header is the server's own, or says of a reply that its request failed: it belongs to the message it came with.
pub(crate) fn is_server_header(name: &str) -> bool {
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"))
}

fn refused(name: &str) -> PublishError {
    PublishError::new(
        PublishErrorKind::Encode,
        OTHER,
        format!(
            "NATS cannot carry the header `{}`: \
             its name must be visible ASCII without `:`, its value printable ASCII (`message::header_text::escape` makes it so)",
            name.escape_debug()
        ),
    )
}

#[cfg(test)]
mod tests {
    use opentelemetry::propagation::{Extractor, Injector};
    use proptest::prelude::*;
    use throughline_core::propagation::refused_headers;
    use throughline_testing::conformance;

    use super::*;

    fn map(entries: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in entries {
            headers.append(*name, *value);
        }
        headers
    }

    #[test]
    fn headers_are_read_and_written_by_the_rules() {
        conformance::assert_carrier::<ClientHeaders>();
    }

    #[test]
    fn of_several_values_the_first_counts_and_all_are_offered() {
        let headers = map(&[("traceparent", "first"), ("traceparent", "second")]);
        assert_eq!(HeaderExtractor::new(&headers).get("traceparent"), Some("first"), "PROP-N-02");
        assert_eq!(HeaderExtractor::new(&headers).get_all("traceparent"), Some(vec!["first", "second"]), "PROP-12");
        assert_eq!(HeaderExtractor::new(&headers).get_all("absent"), None);
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
        for (name, value) in [
            ("a b", &b"x"[..]),
            ("a:b", b"x"),
            ("", b"x"),
            ("tag", b"a\nb"),
            ("tag", b"\xff"),
            ("größe", b"x"),
            ("tag", "v ü".as_bytes()),
        ] {
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
    fn what_a_stranger_sent_is_escaped_or_left_out_and_never_an_error() {
        let mut headers = Headers::new();
        let sent: [(&str, &[u8]); 8] = [
            ("tenant", "v ü".as_bytes()),
            ("tenant", b"acme"),
            ("line", b"a\r\nb"),
            ("bytes", b"\xff"),
            ("größe", b"x"),
            ("a b", b"x"),
            ("Nats-Stream", b"x"),
            ("tab", b"a\tb"),
        ];
        for (name, value) in sent {
            headers.append(name, value);
        }
        let native = to_forwarded(&headers, "dead", &Altered::default());
        let mut written: Vec<(&str, Vec<&str>)> = native
            .iter()
            .map(|(name, values)| (text(name), values.iter().map(HeaderValue::as_str).collect()))
            .collect();
        written.sort_unstable();
        let expected =
            [("line", vec!["UTF-8''a%0D%0Ab"]), ("tab", vec!["a\tb"]), ("tenant", vec!["UTF-8''v%20%C3%BC", "acme"])];
        assert_eq!(written, expected, "PROP-N-09");

        let mut raw = map(&[("tenant", "v ü"), ("tenant", "acme")]);
        assert_eq!(check(&raw).unwrap_err().kind(), PublishErrorKind::Encode, "PROP-N-08");
        escape_all(&mut raw, "dead", &Altered::default());
        let values: Vec<&str> = raw.get_all("tenant").map(HeaderValue::as_str).collect();
        assert_eq!((values, check(&raw).is_ok()), (vec!["UTF-8''v%20%C3%BC", "acme"], true), "PROP-N-09");
    }

    #[test]
    fn our_own_header_replaces_a_copied_one() {
        let mut native = map(&[("Correlation-Id", "old")]);
        put(&mut native, "correlation-id", "new").unwrap();
        assert_eq!((native.len(), native.get("correlation-id").unwrap().as_str()), (1, "new"));
        assert_eq!(put(&mut native, "correlation-id", "a\nb").unwrap_err().kind(), PublishErrorKind::Encode);
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

        #[test]
        fn what_is_written_is_read_back(name in "[!-9;-~]{1,20}", value in "[ -~]{1,40}") {
            let mut native = HeaderMap::new();
            HeaderInjector::new(&mut native).set(&name, value.clone());
            let extractor = HeaderExtractor::new(&native);
            prop_assert_eq!(extractor.get(&name), Some(value.as_str()));
            let headers = to_headers(&native);
            prop_assert_eq!(headers.get(&name), Some(value.as_str()));
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
                    prop_assert!(values.iter().all(|value| header_text::is_plain(value.as_ref())));
                }
            }
        }
    }
}
