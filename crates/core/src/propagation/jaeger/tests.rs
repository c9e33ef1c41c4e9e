use opentelemetry::KeyValue;

use super::super::BaggagePropagator;
use super::super::dropped_members;
use super::super::testing::{SPAN, TRACE, headers, pairs, read, span_context, with_span, write};
use super::*;
use crate::message::Headers;

const PROPAGATOR: JaegerPropagator = JaegerPropagator::new();

fn entries(baggage: &Baggage) -> Vec<(String, String)> {
    let mut entries: Vec<_> = baggage.iter().map(|(key, (value, _))| (key.to_string(), value.to_string())).collect();
    entries.sort();
    entries
}

// PROP-B-07: short ids are padded, `%3A` is a colon, the parent id is ignored.
#[test]
fn reads_the_span_context() {
    for value in [
        "0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:1",
        "af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:1",
        "AF7651916CD43DD8448EB211C80319C:B7AD6B7169203331:0:1",
        "0af7651916cd43dd8448eb211c80319c%3Ab7ad6b7169203331%3a0%3A1",
        " 0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:1\t",
        "0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:00f067aa0ba902b7:01",
        "0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:whatever:1",
        "0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331::9",
    ] {
        let cx = read(&PROPAGATOR, [("Uber-Trace-Id", value)]);
        assert_eq!(cx.span().span_context(), &span_context(1, TraceState::NONE, true), "{value:?}");
    }
    let cx = read(&PROPAGATOR, [("uber-trace-id", "1f:2:0:0")]);
    let (trace, span) = (cx.span().span_context().trace_id(), cx.span().span_context().span_id());
    assert_eq!((trace, span), (TraceId::from(0x1f), SpanId::from(2)));
}

// PROP-B-07: bit 1 is sampled, bit 2 is debug and counts only with it; both are passed on.
#[test]
fn reads_and_writes_the_flags() {
    for (flags, sampled, written) in [("0", false, 0), ("1", true, 1), ("2", false, 0), ("3", true, 3), ("0f", true, 3)]
    {
        let value = format!("{TRACE:032x}:{SPAN:016x}:0:{flags}");
        let cx = read(&PROPAGATOR, [("uber-trace-id", &value)]);
        assert_eq!(cx.span().span_context().is_sampled(), sampled, "{flags}");
        let expected = format!("{TRACE:032x}:{SPAN:016x}:0:{written}");
        assert_eq!(write(&PROPAGATOR, &cx), pairs([("uber-trace-id", &expected)]), "{flags}");
    }
}

// PROP-08: what is malformed is absent and leaves the given context.
#[test]
fn treats_malformed_values_as_absent() {
    let given = with_span(1, TraceState::NONE);
    for value in [
        "",
        ":::",
        "1:2:0",
        "1:2:0:1:1",
        "0:2:0:1",
        "1:0:0:1",
        "+1:2:0:1",
        "1:-2:0:1",
        "x:2:0:1",
        "1:2:0:x",
        "1:2:0:",
        "1:2:0:100",
        "10af7651916cd43dd8448eb211c80319c:2:0:1",
        "1:1b7ad6b7169203331:0:1",
        "1%3B2:0:1",
        "é:2:0:1",
    ] {
        let headers = headers([("uber-trace-id", value)]);
        let cx = PROPAGATOR.extract_with_context(&given, &headers);
        assert_eq!(cx.span().span_context(), given.span().span_context(), "{value:?}");
    }
}

// PROP-B-07: nothing of baggage gets into the trace state.
#[test]
fn keeps_baggage_out_of_the_trace_state() {
    let cx = read(&PROPAGATOR, [("uber-trace-id", "1:2:0:1"), ("uberctx-tenant", "acme")]);
    assert_eq!(cx.span().span_context().trace_state(), &TraceState::NONE);
    assert_eq!(entries(cx.baggage()), pairs([("tenant", "acme")]));
}

// PROP-B-07, PROP-03: baggage is read from any spelling of the prefix, with a span and without.
#[test]
fn reads_baggage() {
    let cx = read(&PROPAGATOR, [("Uberctx-Tenant", "acme"), ("uberctx-share", "50%20%25"), ("uberctx", "x")]);
    assert!(!cx.has_active_span());
    assert_eq!(entries(cx.baggage()), pairs([("Tenant", "acme"), ("share", "50 %")]));
}

// BAGG-10: headers that say nothing leave the baggage; those that do are added to it.
#[test]
fn adds_to_existing_baggage() {
    let given = Context::new().with_baggage([KeyValue::new("kept", "1"), KeyValue::new("tenant", "old")]);
    let extract = |entries| PROPAGATOR.extract_with_context(&given, &headers(entries));
    let cx = extract([("uberctx-", "x"), ("uberctx-a b", "x"), ("uberctx-with_batch", "True")]);
    assert_eq!(entries(cx.baggage()), pairs([("kept", "1"), ("tenant", "old")]));
    let cx = extract([("uberctx-tenant", "new"), ("uberctx-a", "2"), ("other", "x")]);
    assert_eq!(entries(cx.baggage()), pairs([("a", "2"), ("kept", "1"), ("tenant", "new")]));
}

// BAGG-02: values arrive as they were, and every header can be written.
#[test]
fn writes_baggage_that_arrives_unchanged() {
    let values = [("a", "50 %"), ("b", "a=b,c;d\\\"\r\n"), ("c", "é🦀"), ("d", "%20")];
    let cx = Context::new().with_baggage(values.map(|(key, value)| KeyValue::new(key, value)));
    let written = write(&PROPAGATOR, &cx);
    assert_eq!(written[0], ("uberctx-a".to_owned(), "50%20%25".to_owned()));
    let headers: Headers = written.into_iter().collect();
    let read = PROPAGATOR.extract_with_context(&Context::new(), &headers);
    assert_eq!(entries(read.baggage()), pairs(values));
}

// BAGG-08, BAGG-09: the limits of baggage hold here too.
#[test]
fn keeps_the_limits() {
    let before = dropped_members();
    let cx = Context::new().with_baggage([KeyValue::new("big", " ".repeat(4_000)), KeyValue::new("z", "1")]);
    assert_eq!(write(&PROPAGATOR, &cx), pairs([("uberctx-z", "1")]));
    assert!(dropped_members() > before);

    let big = "x".repeat(8_192);
    let cx = read(&PROPAGATOR, [("uber-trace-id", "1:2:0:1"), ("uberctx-big", &big)]);
    assert!(cx.has_active_span());
    assert!(cx.baggage().is_empty());

    let many: Headers = (0..70).map(|n| (format!("uberctx-k{n}"), "v".to_owned())).collect();
    let cx = PROPAGATOR.extract_with_context(&Context::new(), &many);
    assert_eq!(cx.baggage().len(), 64);
}

// PROP-B-06: beside the baggage propagator, both carry the same.
#[test]
fn works_beside_the_baggage_propagator() {
    let headers = headers([("baggage", "a=1;p,b=2"), ("uberctx-b", "3")]);
    let cx = BaggagePropagator::new().extract_with_context(&Context::new(), &headers);
    let cx = PROPAGATOR.extract_with_context(&cx, &headers);
    assert_eq!(write(&BaggagePropagator::new(), &cx), pairs([("baggage", "a=1;p,b=3")]));
}
