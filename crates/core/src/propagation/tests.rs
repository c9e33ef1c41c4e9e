// Interoperation with what other programs write (VERF-13) and properties of all formats (VERF-12).

mod identity;
mod w3c;

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt, KeyValueMetadata};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use proptest::collection::vec;
use proptest::prelude::*;

use super::testing::{read, span_context, write};
use super::{B3Propagator, BaggagePropagator, JaegerPropagator, Propagators, TraceContextPropagator, baggage};
use crate::message::Headers;

fn all() -> Propagators {
    Propagators::from_names("tracecontext,baggage,b3multi,b3,jaeger").unwrap()
}

fn entries(baggage: &Baggage) -> Vec<(String, String, String)> {
    let text = |text: &str| text.to_owned();
    let mut entries: Vec<_> = baggage
        .iter()
        .map(|(key, (value, meta))| (text(key.as_str()), text(value.as_str()), text(meta.as_str())))
        .collect();
    entries.sort();
    entries
}

fn value<'a>(cx: &'a Context, key: &str) -> Option<&'a str> {
    cx.baggage().get(key).map(|value| value.as_str())
}

fn state() -> TraceState {
    TraceState::from_key_value([("rojo", "00f067aa0ba902b7"), ("congo", "t61rcWkgMzE")]).unwrap()
}

// VERF-13: the Java agent on Kafka, RabbitMQ and NATS alike; the values are what its API 1.50 wrote.
#[test]
fn reads_what_the_java_agent_writes() {
    let cx = read(
        &Propagators::default(),
        [
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            (
                "baggage",
                "expr=a%3Db%2Cc%3Bd%2Be%5C%22;source%3Djava%3Binternal,share=50%20%25,tenant=M%C3%BCller%20&%20S%C3%B6hne",
            ),
        ],
    );
    assert_eq!(cx.span().span_context(), &span_context(1, state(), true));
    assert_eq!(value(&cx, "expr"), Some("a=b,c;d+e\\\""));
    assert_eq!(value(&cx, "share"), Some("50 %"));
    assert_eq!(value(&cx, "tenant"), Some("Müller & Söhne"));
    assert_eq!(cx.baggage().get_with_metadata("expr").unwrap().1.as_str(), "source%3Djava%3Binternal");
}

// VERF-13: the Java API's B3 headers, mixed case.
#[test]
fn reads_what_java_writes_as_b3() {
    let multi = [
        ("X-B3-Sampled", "1"),
        ("X-B3-SpanId", "b7ad6b7169203331"),
        ("X-B3-TraceId", "0af7651916cd43dd8448eb211c80319c"),
    ];
    let single = [("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1")];
    let expected = span_context(1, TraceState::NONE, true);
    for propagator in [B3Propagator::single(), B3Propagator::multi()] {
        assert_eq!(read(&propagator, multi).span().span_context(), &expected);
        assert_eq!(read(&propagator, single).span().span_context(), &expected);
    }
}

// VERF-13: the Java API's Jaeger headers, whose baggage is not encoded at all.
#[test]
fn reads_what_java_writes_as_jaeger() {
    let cx = read(
        &JaegerPropagator::new(),
        [
            ("uber-trace-id", "0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:1"),
            ("uberctx-expr", "a=b,c;d+e\\\""),
            ("uberctx-share", "50 %"),
            ("uberctx-tenant", "Müller & Söhne"),
        ],
    );
    assert_eq!(cx.span().span_context(), &span_context(1, TraceState::NONE, true));
    assert_eq!(value(&cx, "expr"), Some("a=b,c;d+e\\\""));
    assert_eq!(value(&cx, "share"), Some("50 %"));
    assert_eq!(value(&cx, "tenant"), Some("Müller & Söhne"));
}

// VERF-13, BAGG-03: a batch of FastStream; the values are what OpenTelemetry for Python wrote. Its `+` for a space
// stays, the marker goes.
#[test]
fn reads_what_faststream_writes() {
    let cx = read(
        &Propagators::default(),
        [
            ("content-type", "application/json"),
            ("correlation_id", "5c9c3b1e-8a3f-4d8e-9d0c-0b8c7f6f0a11"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            ("baggage", "with_batch=True,tenant=M%C3%BCller+%26+S%C3%B6hne,share=50+%25,expr=a%3Db%2Cc%3Bd%2Be%5C%22"),
        ],
    );
    assert_eq!(cx.span().span_context(), &span_context(1, state(), true));
    assert_eq!(cx.baggage().len(), 3);
    assert_eq!(value(&cx, "tenant"), Some("Müller+&+Söhne"));
    assert_eq!(value(&cx, "expr"), Some("a=b,c;d+e\\\""));
    let spaced = Propagators::none().with(BaggagePropagator::new().plus_as_space());
    let header = "tenant=M%C3%BCller+%26+S%C3%B6hne,expr=a%3Db%2Cc%3Bd%2Be%5C%22,share=50+%25";
    let python = read(&spaced, [("baggage", header)]);
    assert_eq!(value(&python, "tenant"), Some("Müller & Söhne"));
    assert_eq!((value(&python, "expr"), value(&python, "share")), (Some("a=b,c;d+e\\\""), Some("50 %")));
    let written = write(&Propagators::default(), &cx);
    assert!(written.iter().all(|(_, value)| !value.contains("with_batch")), "{written:?}");
}

// VERF-13: OpenTelemetry for Python as B3 and Jaeger.
#[test]
fn reads_what_python_writes_in_other_formats() {
    let cx = read(
        &all(),
        [
            ("x-b3-traceid", "0af7651916cd43dd8448eb211c80319c"),
            ("x-b3-spanid", "b7ad6b7169203331"),
            ("x-b3-sampled", "1"),
        ],
    );
    assert_eq!(cx.span().span_context(), &span_context(1, TraceState::NONE, true));
    let cx = read(
        &JaegerPropagator::new(),
        [
            ("uber-trace-id", "0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0000000000000000:03"),
            ("uberctx-with_batch", "True"),
            ("uberctx-tenant", "M%C3%BCller%20%26%20S%C3%B6hne"),
        ],
    );
    assert!(cx.span().span_context().is_sampled());
    assert_eq!((cx.baggage().len(), value(&cx, "tenant")), (1, Some("Müller & Söhne")));
}

// VERF-13, PROP-03: a Go service with an HTTP-style carrier changes the case of names.
#[test]
fn reads_what_go_writes_through_http_headers() {
    let cx = read(
        &Propagators::default(),
        [
            ("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("Tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            ("Baggage", "tenant=M%C3%BCller%20&%20S%C3%B6hne"),
        ],
    );
    assert_eq!(cx.span().span_context(), &span_context(1, state(), true));
    assert_eq!(value(&cx, "tenant"), Some("Müller & Söhne"));
}

/// A checker of its own for the grammar of what is written: `^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$`, ids not zero.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let digits = |part: &str, length| {
        part.len() == length && part.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    };
    let [version, trace, span, flags] = parts[..] else {
        return false;
    };
    let not_zero = |part: &str| part.chars().any(|c| c != '0');
    version == "00"
        && digits(trace, 32)
        && not_zero(trace)
        && digits(span, 16)
        && not_zero(span)
        && matches!(flags, "00" | "01" | "02" | "03")
}

fn is_tracestate(text: &str) -> bool {
    let members: Vec<_> = text.split(',').map(|member| member.split_once('=')).collect();
    let key = |key: &str| {
        key.len() <= 256
            && key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-*/@".contains(c))
    };
    let value = |value: &str| {
        (1..=256).contains(&value.len())
            && !value.ends_with(' ')
            && value.chars().all(|c| (' '..='~').contains(&c) && c != '=')
    };
    members.len() <= 32 && members.iter().all(|member| member.is_some_and(|(k, v)| key(k) && value(v)))
}

fn is_baggage(text: &str) -> bool {
    let token = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
    };
    let octets = |text: &str| text.chars().all(|c| ('!'..='~').contains(&c) && !"\",;\\".contains(c));
    let property = |text: &str| text.split_once('=').map_or(token(text), |(k, v)| token(k) && octets(v));
    let member = |member: &str| {
        let mut parts = member.split(';');
        let pair = parts.next().and_then(|pair| pair.split_once('='));
        pair.is_some_and(|(k, v)| token(k) && octets(v)) && parts.all(property)
    };
    text.len() <= 8192 && text.split(',').count() <= 64 && text.split(',').all(member)
}

fn is_b3(text: &str) -> bool {
    let ids = text.strip_suffix("-1").or(text.strip_suffix("-0")).or(text.strip_suffix("-d")).unwrap_or(text);
    is_traceparent(&format!("00-{ids}-01"))
}

fn is_jaeger(text: &str) -> bool {
    let ids = ["0", "1", "3"].iter().find_map(|flags| text.strip_suffix(&format!(":0:{flags}")));
    ids.is_some_and(|ids| is_traceparent(&format!("00-{}-01", ids.replace(':', "-"))))
}

/// Tells whether a written header is one of a known format and matches its grammar.
fn is_well_formed(name: &str, text: &str) -> bool {
    match name {
        "traceparent" => is_traceparent(text),
        "tracestate" => is_tracestate(text),
        "baggage" => is_baggage(text),
        "b3" => is_b3(text),
        "uber-trace-id" => is_jaeger(text),
        "X-B3-TraceId" => is_b3(&format!("{text}-b7ad6b7169203331")),
        "X-B3-SpanId" => is_b3(&format!("0af7651916cd43dd8448eb211c80319c-{text}")),
        "X-B3-Sampled" => matches!(text, "0" | "1"),
        "X-B3-Flags" => text == "1",
        _ => name.starts_with("uberctx-") && is_baggage(&format!("k={text}")),
    }
}

fn check_written(cx: &Context) {
    for (name, text) in write(&all(), cx) {
        assert!(is_well_formed(&name, &text), "{name}: {text:?}");
        assert!(super::is_writable(&name, &text), "{name}: {text:?}");
    }
}

fn names() -> impl Strategy<Value = String> {
    let fixed = all().fields().map(str::to_owned).collect::<Vec<_>>();
    let upper = fixed.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>();
    prop_oneof![prop::sample::select(fixed), prop::sample::select(upper), "uberctx-[ -~]{0,4}", any::<String>(),]
}

/// Bytes that are anything, or nearly right.
fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..80),
        "[0-9a-f]{2}-[0-9a-f]{31,33}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,5})?".prop_map(String::into_bytes),
        "[0-9a-f]{15,33}(-|:|%3A)[0-9a-f]{15,17}(-|:)?[0-9a-fd]?:?[0-3]?".prop_map(String::into_bytes),
        "([a-z@ ]{1,4}=[ -~\t]{0,6}[,;]{0,2}){0,9}".prop_map(String::into_bytes),
        "([!-~]{1,3}=(%[0-9a-fA-F]{2}|[ -~é]){0,6}[,;]?){0,90}".prop_map(String::into_bytes),
    ]
}

fn contents() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ %,;=+\"\\\\a-cé🦀\r\n]{0,12}", "(%[0-9A-F]{2}){0,4}"]
}

fn member() -> impl Strategy<Value = KeyValueMetadata> {
    let property = "[!#$%&'*+.^_`|~a-zA-Z0-9-]{1,6}(=[!#-+./0-:<-\\[\\]-~-]{0,6})?";
    let properties = vec(property, 0..4).prop_map(|list| list.join(";"));
    ("[!#$%&'*+.^_`|~a-zA-Z0-9-]{1,8}", contents(), properties)
        .prop_map(|(key, value, properties)| KeyValueMetadata::new(key, value, properties.as_str()))
}

/// Baggage that fits the limits when it is written.
fn small_baggage() -> impl Strategy<Value = Baggage> {
    let fits = |baggage: &Baggage| {
        baggage.iter().map(|(k, (v, m))| k.as_str().len() + 3 * v.as_str().len() + m.as_str().len() + 3).sum::<usize>()
            < 8_192
    };
    vec(member(), 0..20).prop_map(Baggage::from_iter).prop_filter("over the limits", fits)
}

/// Text of the wire, and any other.
fn texts() -> impl Strategy<Value = String> {
    let wire = values().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    prop_oneof![contents(), wire]
}

/// Values of which a few exceed the limits.
fn long() -> impl Strategy<Value = String> {
    (0..2_000_usize).prop_map(|length| "é".repeat(length))
}

proptest! {
    // VERF-12, PROP-08: arbitrary headers never panic, and give a valid context or none.
    #[test]
    fn arbitrary_headers_give_a_valid_context_or_none(entries in vec((names(), values()), 0..8)) {
        let headers: Headers = entries.into_iter().collect();
        let cx = all().extract_with_context(&Context::new(), &headers);
        if cx.has_active_span() {
            prop_assert!(cx.span().span_context().is_valid());
            prop_assert!(cx.span().span_context().is_remote());
        }
        check_written(&cx);
    }

    // VERF-12: the pure reader takes any text, and what it read is written and read again as it is.
    #[test]
    fn arbitrary_baggage_text_reads_the_same_again(text in texts()) {
        let first = baggage::parse(&text);
        let written = baggage::format(&first);
        prop_assert!(written.as_deref().is_none_or(is_baggage), "{written:?}");
        let second = baggage::parse(&written.unwrap_or_default());
        prop_assert_eq!(entries(&first), entries(&second));
    }

    // VERF-12, BAGG-02, BAGG-06, BAGG-07: write then read is the identity for baggage within the limits.
    #[test]
    fn baggage_within_limits_arrives_unchanged(given in small_baggage()) {
        let expected = entries(&given);
        let cx = Context::new().with_baggage(given);
        let mut headers = Headers::new();
        let propagator = BaggagePropagator::new();
        propagator.inject_context(&cx, &mut headers);
        let read = propagator.extract_with_context(&Context::new(), &headers);
        prop_assert_eq!(entries(read.baggage()), expected);
    }

    // VERF-12, PROP-13: a span context with a trace state within the limits arrives unchanged.
    #[test]
    fn a_span_context_arrives_unchanged(
        ids in (1..=u128::MAX, 1..=u64::MAX, any::<bool>(), any::<bool>()),
        members in prop::collection::hash_map("[a-z][a-z0-9_*/-]{0,9}", "[!-+./0-9:;<>-~ ]{0,9}[!-+.-;]", 0..20),
    ) {
        let state = TraceState::from_key_value(members).unwrap();
        let (trace_id, span_id) = (TraceId::from(ids.0), SpanId::from(ids.1));
        let flags = TraceFlags::new(if ids.3 { 0x02 } else { 0x00 }).with_sampled(ids.2);
        let sent = |remote| SpanContext::new(trace_id, span_id, flags, remote, state.clone());
        let cx = Context::new().with_remote_span_context(sent(false));
        let mut headers = Headers::new();
        let propagator = TraceContextPropagator::new();
        propagator.inject_context(&cx, &mut headers);
        let read = propagator.extract_with_context(&Context::new(), &headers);
        let span = read.span();
        prop_assert_eq!(span.span_context(), &sent(true));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    // VERF-12, BAGG-08: whatever is in the context, what is written matches the grammar and the limits.
    #[test]
    fn what_is_written_matches_the_grammar(
        members in vec(("[a-z]{1,3}", prop_oneof![contents(), long()], contents()), 0..70),
        state in vec(("[a-z0-9][a-z0-9@_*/-]{0,12}", "[^,=]{0,40}"), 0..40),
        ids in any::<(u128, u64, u8)>(),
    ) {
        let state = TraceState::from_key_value(state).unwrap_or_default();
        let (trace_id, span_id) = (TraceId::from(ids.0), SpanId::from(ids.1));
        let span = SpanContext::new(trace_id, span_id, TraceFlags::new(ids.2), false, state);
        let members = members.into_iter();
        let members = members.map(|(k, v, p)| KeyValueMetadata::new(k, v, p.as_str()));
        let cx = Context::new().with_remote_span_context(span).with_baggage(members);
        check_written(&cx);
    }
}
