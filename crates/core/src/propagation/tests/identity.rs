// What is written is read as it was, in every format and on every carrier, and arbitrary input hurts none of them (VERF-12).

use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;

use super::super::{B3Propagator, JaegerPropagator, Propagators, hex, inject, is_writable, percent};
use super::{all, entries, is_well_formed, names, values};
use crate::message::Headers;

/// The debug flag, which B3 and Jaeger know.
const DEBUG: u8 = 0x04;

fn span_contexts() -> impl Strategy<Value = SpanContext> {
    let flags = prop::sample::select(vec![0, 1, 1 | DEBUG]);
    (1..=u128::MAX, 1..=u64::MAX, flags).prop_map(|(trace, span, flags)| {
        let (trace, span) = (TraceId::from(trace), SpanId::from(span));
        SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::NONE)
    })
}

/// Writes and reads again.
fn hop(propagator: &dyn TextMapPropagator, cx: &Context) -> Context {
    let mut headers = Headers::new();
    propagator.inject_context(cx, &mut headers);
    propagator.extract_with_context(&Context::new(), &headers)
}

fn headers() -> impl Strategy<Value = Headers> {
    vec((names(), values()), 0..12).prop_map(|entries| entries.into_iter().collect())
}

/// A grammar of its own for a value in a baggage header: octets, and each percent sign with two capital digits.
fn is_encoded(text: &str) -> bool {
    let octets = text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e));
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    octets && text.split('%').skip(1).all(|part| part.len() >= 2 && part.bytes().take(2).all(is_digit))
}

proptest! {
    // PROP-B-01, PROP-B-02, PROP-B-07: the formats that know the debug flag carry a span context unchanged.
    #[test]
    fn a_span_context_arrives_unchanged_in_b3_and_jaeger(given in span_contexts()) {
        let cx = Context::new().with_remote_span_context(given.clone());
        let formats: [&dyn TextMapPropagator; 3] = [&B3Propagator::single(), &B3Propagator::multi(), &JaegerPropagator::new()];
        for format in formats {
            let read = hop(format, &cx);
            let (read, sampled) = (read.span().span_context().clone(), given.is_sampled());
            prop_assert_eq!((read.trace_id(), read.span_id()), (given.trace_id(), given.span_id()), "{:?}", format);
            // The several headers of B3 have either the debug flag or the decision, and the one implies the other.
            prop_assert_eq!(read.is_sampled(), sampled, "{:?}", format);
            prop_assert!(read.is_remote());
        }
    }

    // PROP-B-07, BAGG-02: Jaeger's headers carry values of any characters.
    #[test]
    fn baggage_arrives_unchanged_in_jaeger(given in hash_map("[!#$%&'*+.^_`|~a-zA-Z0-9-]{1,8}", ".{1,20}", 0..20)) {
        // Header names are compared without regard to case, so that keys which differ in nothing else are one.
        let mut lower: Vec<_> = given.keys().map(|key| key.to_ascii_lowercase()).collect();
        lower.sort();
        lower.dedup();
        prop_assume!(lower.len() == given.len());
        let given: Baggage = given.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
        let expected = entries(&given);
        let read = hop(&JaegerPropagator::new(), &Context::new().with_baggage(given));
        prop_assert_eq!(entries(read.baggage()), expected);
    }

    // BAGG-02, BAGG-03: encoding is undone by decoding, and its text matches the grammar.
    #[test]
    fn what_is_encoded_is_decoded(value in any::<String>()) {
        let mut text = String::new();
        percent::encode_into(&mut text, &value);
        prop_assert!(is_encoded(&text), "{}", text);
        prop_assert_eq!(percent::decode(&text), value);
    }

    // BAGG-03: any text is decoded; what has no escape stays as it is.
    #[test]
    fn any_text_is_decoded(text in "(%[0-9a-fA-F]{0,3}|[ -~é]){0,30}") {
        let decoded = percent::decode(&text);
        prop_assert!(decoded.len() <= 3 * text.len());
        prop_assert!(text.contains('%') || decoded == text);
    }

    // PROP-09: of any bytes those are taken that are digits.
    #[test]
    fn any_bytes_are_no_id_unless_they_are_digits(bytes in vec(any::<u8>(), 0..40)) {
        let digits = bytes.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count();
        let taken = hex::take::<8>(&bytes);
        prop_assert_eq!(taken.is_some(), digits >= 16);
        if let Some((id, rest)) = taken {
            let mut text = [0; 16];
            hex::put(&id, &mut text);
            prop_assert_eq!((&text[..], rest), bytes.split_at(16));
        }
    }

    // ENV-01, ENV-15, ENV-16: any value of `OTEL_PROPAGATORS` gives propagators, each once.
    #[test]
    fn any_names_give_propagators(text in prop_oneof![any::<String>(), "((tracecontext|BAGGAGE|b3|b3multi|Jaeger|none|xray| )[, ]{0,2}){0,8}"]) {
        let found: Vec<_> = Propagators::from_env_value(Some(&text)).names().collect();
        let mut once = found.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), found.len());
        if let Ok(strict) = Propagators::from_names(&text) {
            prop_assert_eq!(strict.names().collect::<Vec<_>>(), found);
        }
    }

    // PROP-03, PROP-04, PROP-06, PROP-07: after writing under a name, in any headers, what is written is what is read.
    #[test]
    fn what_is_set_is_read(given in headers(), name in names(), value in any::<String>()) {
        let mut given = given;
        Injector::set(&mut given, &name, value.clone());
        let expected = (!value.is_empty() && is_writable(&name, &value)).then_some(value.as_str());
        prop_assert_eq!(Extractor::get(&given, &name), expected);
        prop_assert!(given.get_all(&name).count() <= 1);
    }

    // PROP-05: written over arbitrary headers, a context stands there alone, and well-formed.
    #[test]
    fn injecting_leaves_nothing_of_what_was_there(given in headers()) {
        let mut given = given;
        let cx = all().extract_with_context(&Context::new(), &given);
        inject(&all(), &cx, &mut given);
        let mut fresh = Headers::new();
        all().inject_context(&cx, &mut fresh);
        for (name, value) in fresh.iter() {
            prop_assert!(is_well_formed(name, std::str::from_utf8(value).unwrap()), "{}", name);
        }
        let fields: Vec<String> = all().fields().map(str::to_ascii_lowercase).collect();
        let is_ours = |name: &str| {
            let name = name.to_ascii_lowercase();
            fields.contains(&name) || name.starts_with("uberctx-")
        };
        let left: Vec<_> = given.iter().filter(|(name, _)| is_ours(name)).collect();
        prop_assert_eq!(left, fresh.iter().collect::<Vec<_>>());
    }
}
