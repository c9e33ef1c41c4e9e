use opentelemetry::KeyValue;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{TraceContextExt, TraceState};

use super::super::testing::{TRACEPARENT, headers, with_span};
use super::super::{B3Propagator, JaegerPropagator, Propagators};
use super::*;

fn names(headers: &Headers) -> Vec<&str> {
    headers.iter().map(|(name, _)| name).collect()
}

// PROP-02, PROP-04, PROP-K-01: the name is written as given, the value as plain text, and all spellings are replaced.
#[test]
fn set_replaces_every_spelling() {
    let mut headers = headers([("TRACEPARENT", "a"), ("other", "x"), ("Traceparent", "b"), ("traceparent", "c")]);
    Injector::set(&mut headers, "traceparent", "new".to_owned());
    assert_eq!(names(&headers), ["other", "traceparent"]);
    assert_eq!(headers.get_all("traceparent").collect::<Vec<_>>(), [b"new"]);
}

// PROP-06: an empty value writes nothing, and takes a stale one away.
#[test]
fn set_drops_an_empty_value() {
    let mut headers = headers([("Tracestate", "stale=1")]);
    Injector::set(&mut headers, "tracestate", String::new());
    assert!(headers.is_empty());
}

// PROP-07: a header that is not printable ASCII is dropped and counted.
#[test]
fn set_refuses_what_is_not_printable_ascii() {
    let keys = ["", "a b", "a:b", "a\r", "a\0", "é", "a\u{7f}"].map(|key| (key, "v"));
    let values = ["a\r\nb: c", "a\t", "é", "\u{7f}", "\0"].map(|value| ("key", value));
    for (key, value) in keys.into_iter().chain(values) {
        let before = refused_headers();
        let mut headers = headers([("key", "stale")]);
        Injector::set(&mut headers, key, value.to_owned());
        assert!(headers.get(key).is_none(), "{key:?} {value:?}");
        assert!(refused_headers() > before, "{key:?} {value:?}");
        assert!(!is_writable(key, value), "{key:?} {value:?}");
    }
}

// PROP-07: all bytes of the range are accepted, and only those.
#[test]
fn is_writable_knows_the_range() {
    for byte in 0..=0x7f_u8 {
        let text = char::from(byte).to_string();
        assert_eq!(is_writable("key", &text), (0x20..=0x7e).contains(&byte), "value {byte:#x}");
        assert_eq!(is_writable(&text, ""), (0x21..=0x7e).contains(&byte) && byte != b':', "key {byte:#x}");
    }
}

// PROP-03: any spelling is read, the exact one wins wherever it stands.
#[test]
fn get_prefers_the_exact_spelling() {
    for (entries, expected) in [
        ([("Baggage", "other"), ("baggage", "exact")], Some("exact")),
        ([("baggage", "exact"), ("Baggage", "other")], Some("exact")),
        ([("BAGGAGE", "first"), ("Baggage", "last")], Some("last")),
        ([("baggage", ""), ("Baggage", "other")], Some("other")),
        ([("baggag", "x"), ("baggages", "x")], None),
    ] {
        let headers = headers(entries);
        let extractor: &dyn Extractor = &headers;
        assert_eq!(extractor.get("baggage"), expected, "{entries:?}");
        let all = extractor.get_all("baggage");
        assert_eq!(all.and_then(|all| all.last().copied()), expected, "{entries:?}");
    }
}

// PROP-K-02, PROP-K-03, PROP-12: the last usable value wins, and all usable ones are given in order.
#[test]
fn get_reads_repeated_values() {
    let mut headers = headers([("b3", "first"), ("b3", "last"), ("b3", "")]);
    headers.append("b3", &b"\xff\xfe"[..]);
    let extractor: &dyn Extractor = &headers;
    assert_eq!(extractor.get("b3"), Some("last"));
    assert_eq!(extractor.get_all("b3"), Some(vec!["first", "last"]));
    assert_eq!(extractor.get_all("baggage"), None);
    assert_eq!(extractor.keys(), ["b3", "b3", "b3", "b3"]);
}

// PROP-K-02: empty and non-UTF-8 values are absent.
#[test]
fn get_treats_unusable_values_as_absent() {
    let mut headers = headers([("traceparent", "")]);
    headers.append("baggage", &b"\xc3("[..]);
    let extractor: &dyn Extractor = &headers;
    assert_eq!(extractor.get("traceparent"), None);
    assert_eq!(extractor.get("baggage"), None);
    assert_eq!(extractor.get_all("baggage"), None);
}

// PROP-05: copied headers of the formats do not survive, other headers do.
#[test]
fn inject_overwrites_copied_headers() {
    let mut headers = headers([
        ("Traceparent", "00-00000000000000000000000000000001-0000000000000001-00"),
        ("tracestate", "stale=1"),
        ("BAGGAGE", "stale=1"),
        ("tenant", "acme"),
    ]);
    inject(&Propagators::default(), &with_span(1, TraceState::NONE), &mut headers);
    assert_eq!(names(&headers), ["tenant", "traceparent"]);
    assert_eq!(headers.get("traceparent"), Some(TRACEPARENT));
}

// PROP-05: of B3 and Jaeger too, also the headers that are not written this time.
#[test]
fn inject_removes_headers_of_every_format() {
    let mut copied = headers([("X-B3-Flags", "1"), ("x-b3-parentspanid", "00f067aa0ba902b7"), ("X-B3-TraceId", "1")]);
    inject(&B3Propagator::multi(), &with_span(1, TraceState::NONE), &mut copied);
    assert_eq!(names(&copied), ["X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled"]);

    let mut copied = headers([("Uberctx-Stale", "1"), ("uber-trace-id", "1:2:0:1"), ("uberctxt", "kept")]);
    let cx = Context::new().with_baggage([KeyValue::new("tenant", "acme")]);
    inject(&JaegerPropagator::new(), &cx, &mut copied);
    assert_eq!(names(&copied), ["uberctxt", "uberctx-tenant"]);
}

// PROP-01, PROP-12: what one message carries is what the next hop reads.
#[test]
fn carries_a_context_over_a_hop() {
    let state = TraceState::from_key_value([("a", "1"), ("b", "2")]).unwrap();
    let cx = with_span(1, state).with_baggage([KeyValue::new("k", "v %")]);
    let mut headers = Headers::new();
    let propagators = Propagators::default();
    inject(&propagators, &cx, &mut headers);
    let read = propagators.extract_with_context(&Context::new(), &headers);
    assert!(read.span().span_context().is_remote());
    assert_eq!(read.span().span_context().span_id(), cx.span().span_context().span_id());
    assert_eq!(read.span().span_context().trace_state(), cx.span().span_context().trace_state());
    assert_eq!(read.baggage().get("k").unwrap().as_str(), "v %");
}
