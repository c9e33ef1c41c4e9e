use opentelemetry::trace::TraceState;

use super::super::TraceContextPropagator;
use super::super::testing::{TRACEPARENT, headers, pairs, read, with_span, write};
use super::*;

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN_ID: &str = "b7ad6b7169203331";

fn both() -> [B3Propagator; 2] {
    [B3Propagator::single(), B3Propagator::multi()]
}

fn with_flag(flag: &str) -> String {
    format!("{TRACE_ID}-{SPAN_ID}{flag}")
}

// PROP-B-02: `b3` writes the single header and nothing else.
#[test]
fn single_writes_one_header() {
    for (flags, text) in [(0, "-0"), (1, "-1")] {
        let written = write(&B3Propagator::single(), &with_span(flags, TraceState::NONE));
        assert_eq!(written, pairs([("b3", &with_flag(text))]));
    }
}

// PROP-B-02, PROP-B-05: `b3multi` writes the several headers, as B3 spells them, and nothing else.
#[test]
fn multi_writes_the_several_headers() {
    for (flags, text) in [(0, "0"), (1, "1")] {
        let written = write(&B3Propagator::multi(), &with_span(flags, TraceState::NONE));
        let ids = [("X-B3-TraceId", TRACE_ID), ("X-B3-SpanId", SPAN_ID), ("X-B3-Sampled", text)];
        assert_eq!(written, pairs(ids));
    }
}

// PROP-B-04: without a valid span nothing is written.
#[test]
fn writes_nothing_without_a_valid_span() {
    for propagator in both() {
        assert_eq!(write(&propagator, &Context::new()), [], "{propagator:?}");
        let invalid = Context::new().with_remote_span_context(SpanContext::NONE);
        assert_eq!(write(&propagator, &invalid), [], "{propagator:?}");
    }
}

// PROP-B-01: both forms are read, whichever is written; debug implies sampled.
#[test]
fn reads_the_single_header() {
    for (text, sampled) in [("-1", true), ("-0", false), ("-d", true), ("", false), ("-1-00f067aa0ba902b7", true)] {
        for propagator in both() {
            let cx = read(&propagator, [("b3", &with_flag(text))]);
            let found = cx.span().span_context().clone();
            assert_eq!(found.trace_id().to_string(), TRACE_ID, "{text}");
            assert_eq!(found.span_id().to_string(), SPAN_ID, "{text}");
            assert_eq!((found.is_sampled(), found.is_remote()), (sampled, true), "{text}");
        }
    }
}

// PROP-B-01, PROP-B-05: the several headers are read in any case, `true` is `1`.
#[test]
fn reads_the_several_headers() {
    for (name, value, sampled) in [
        ("X-B3-Sampled", "1", true),
        ("X-B3-Sampled", "0", false),
        ("x-b3-sampled", "true", true),
        ("x-b3-sampled", "false", false),
        ("X-B3-Flags", "1", true),
    ] {
        for propagator in both() {
            let ids = [("X-B3-TraceId", TRACE_ID), ("X-B3-SpanId", SPAN_ID), (name, value)];
            let cx = read(&propagator, ids);
            assert_eq!(cx.span().span_context().trace_id().to_string(), TRACE_ID, "{name} {value}");
            assert_eq!(cx.span().span_context().is_sampled(), sampled, "{name} {value}");
        }
    }
}

// PROP-B-01: the single header goes first, and the others are read when it is malformed.
#[test]
fn prefers_the_single_header() {
    let other = "00000000000000000000000000000001";
    let multi = |single| [("b3", single), ("x-b3-traceid", other), ("x-b3-spanid", SPAN_ID), ("x-b3-sampled", "1")];
    let single = with_flag("-1");
    for propagator in both() {
        let cx = read(&propagator, multi(&single));
        assert_eq!(cx.span().span_context().trace_id().to_string(), TRACE_ID);
        let cx = read(&propagator, multi("garbage"));
        assert_eq!(cx.span().span_context().trace_id().to_string(), other);
    }
}

// PROP-B-01: an id of 64 bits is padded.
#[test]
fn pads_a_short_trace_id() {
    let cx = read(&B3Propagator::single(), [("b3", "8448eb211c80319c-b7ad6b7169203331-1")]);
    assert_eq!(cx.span().span_context().trace_id().to_string(), "00000000000000008448eb211c80319c");
}

// PROP-08: what is malformed is absent and leaves the given context.
#[test]
fn treats_malformed_values_as_absent() {
    let given = with_span(0, TraceState::NONE);
    for value in [
        "",
        "0",
        "1",
        "d",
        "-",
        "1-1-1",
        "+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        "0af7651916cd43dd8448eb211c80319c-+7ad6b7169203331-1",
        "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1-",
        "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-2",
        "0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-1",
        "00000000000000000000000000000000-b7ad6b7169203331-1",
        "0af7651916cd43dd8448eb211c80319c-0000000000000000-1",
        "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1-x",
        "0af7651916cd43dd8448eb211c80319c-é-1",
    ] {
        for propagator in both() {
            let cx = propagator.extract_with_context(&given, &headers([("b3", value)]));
            assert_eq!(cx.span().span_context(), given.span().span_context(), "{value:?}");
        }
    }
}

// PROP-20: a context that is passed on is the one that came, debug and a missing decision included.
#[test]
fn passes_on_what_was_read() {
    for text in ["", "-0", "-1", "-d"] {
        let cx = read(&B3Propagator::single(), [("b3", &with_flag(text))]);
        assert_eq!(write(&B3Propagator::single(), &cx), pairs([("b3", &with_flag(text))]));
    }
}

// PROP-15: the flags B3 keeps in the context do not reach a `traceparent`, and a decision replaces "not decided".
#[test]
fn does_not_mix_flags_with_other_formats() {
    let cx = read(&B3Propagator::single(), [("b3", &with_flag("-d"))]);
    assert_eq!(write(&TraceContextPropagator::new(), &cx), pairs([("traceparent", TRACEPARENT)]));

    // No decision is not the random flag, which has the same bit in the wrapped crate.
    let undecided = read(&B3Propagator::single(), [("b3", &with_flag(""))]);
    let unsampled = TRACEPARENT.replace("-01", "-00");
    assert_eq!(write(&TraceContextPropagator::new(), &undecided), pairs([("traceparent", &unsampled)]));
    for (flags, text) in [("02", "-0"), ("03", "-1")] {
        let random =
            read(&TraceContextPropagator::new(), [("traceparent", &TRACEPARENT.replace("-01", &format!("-{flags}")))]);
        assert_eq!(write(&B3Propagator::single(), &random), pairs([("b3", &with_flag(text))]));
    }

    let undecided = undecided.span().span_context().clone();
    let sampled = with_flags(&undecided, undecided.trace_flags().with_sampled(true));
    let decided = Context::new().with_remote_span_context(sampled);
    assert_eq!(write(&B3Propagator::single(), &decided), pairs([("b3", &with_flag("-1"))]));
}
