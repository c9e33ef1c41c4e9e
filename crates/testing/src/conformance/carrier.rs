use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use throughline_core::propagation::{
    NativeCarrier, NativeExtractor, NativeInjector, Propagators, inject, is_writable, refused_headers,
};

type Entries<'a> = &'a [(&'a str, &'a str)];

/// Checks that the headers of a client are read and written by the rules of propagation.
///
/// # Panics
///
/// Panics where a rule does not hold; the text names it.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::NativeCarrier;
/// use throughline_testing::conformance;
///
/// fn the_carriers_keep_the_rules<N: NativeCarrier<Written: Default>>() {
///     conformance::assert_carrier::<N>();
/// }
/// ```
pub fn assert_carrier<N: NativeCarrier<Written: Default>>() {
    writing_replaces_every_spelling::<N>();
    what_no_broker_carries_is_dropped_and_counted::<N>();
    reading_ignores_case_and_prefers_the_exact_name::<N>();
}

fn writing_replaces_every_spelling<N: NativeCarrier<Written: Default>>() {
    let entries = [("Traceparent", "a"), ("tenant", "acme"), ("TRACEPARENT", "b"), ("traceparent", "c")];
    let mut headers = made::<N>(&entries);
    NativeInjector::<N>::new(&mut headers).set("traceparent", "d".to_owned());
    assert_eq!(pairs::<N>(&headers), [("tenant", "acme"), ("traceparent", "d")], "PROP-02, PROP-04");
    NativeInjector::<N>::new(&mut headers).set("TENANT", String::new());
    assert_eq!(pairs::<N>(&headers), [("traceparent", "d")], "PROP-06");
}

fn what_no_broker_carries_is_dropped_and_counted<N: NativeCarrier<Written: Default>>() {
    let before = refused_headers();
    let mut headers = made::<N>(&[("baggage", "stale=1")]);
    for (name, value) in [("baggage", "a\r\nb"), ("bad name", "x"), ("bad:name", "x"), ("", "x"), ("baggage", "ü")] {
        NativeInjector::<N>::new(&mut headers).set(name, value.to_owned());
    }
    assert_eq!(pairs::<N>(&headers), [], "PROP-07");
    assert!(refused_headers() >= before + 5, "PROP-07");
}

fn reading_ignores_case_and_prefers_the_exact_name<N: NativeCarrier<Written: Default>>() {
    for (entries, expected) in [
        ([("traceparent", "exact"), ("Traceparent", "other")], Some("exact")),
        ([("Traceparent", "other"), ("traceparent", "exact")], Some("exact")),
        ([("TraceParent", "other"), ("tracestate", "x")], Some("other")),
        ([("traceparent", ""), ("Traceparent", "other")], Some("other")),
        ([("traceparen", "x"), ("traceparents", "x")], None),
    ] {
        let headers = made::<N>(&entries);
        let extractor = NativeExtractor::<N>::new(N::as_read(&headers));
        assert_eq!(extractor.get("traceparent"), expected, "PROP-03, PROP-06: {entries:?}");
        let all = expected.map(|expected| vec![expected]);
        assert_eq!(extractor.get_all("traceparent"), all, "PROP-12: {entries:?}");
        assert_eq!(extractor.keys().len(), 2, "{entries:?}");
    }
    let none = NativeExtractor::<N>::new(None);
    assert_eq!((none.get("traceparent"), none.get_all("traceparent"), none.keys()), (None, None, Vec::new()));
}

/// Checks the same on any headers: a header that is written over them is read back, and a context stands there alone. Call it from
/// a property test.
///
/// # Panics
///
/// Panics where a rule does not hold; the text names it.
///
/// # Examples
///
/// ```
/// use throughline_core::propagation::NativeCarrier;
/// use throughline_testing::conformance;
///
/// fn any_headers_keep_the_rules<N: NativeCarrier<Written: Default>>(entries: &[(&str, &str)], name: &str, value: &str) {
///     conformance::assert_carrier_on::<N>(entries, name, value);
/// }
/// ```
pub fn assert_carrier_on<N: NativeCarrier<Written: Default>>(entries: Entries<'_>, name: &str, value: &str) {
    let mut headers = made::<N>(entries);
    NativeInjector::<N>::new(&mut headers).set(name, value.to_owned());
    let written = (!value.is_empty() && is_writable(name, value)).then_some(value);
    let read = NativeExtractor::<N>::new(N::as_read(&headers));
    assert_eq!(read.get(name), written, "PROP-04, PROP-06, PROP-07: {name:?} {value:?}");
    assert_eq!(read.get_all(name), written.map(|value| vec![value]), "PROP-04: {name:?} {value:?}");

    let propagators = Propagators::default();
    let cx = propagators.extract_with_context(&Context::new(), &read);
    assert!(!cx.has_active_span() || cx.span().span_context().is_valid());
    inject(&propagators, &cx, &mut NativeInjector::<N>::new(&mut headers));
    let mut fresh = made::<N>(&[]);
    propagators.inject_context(&cx, &mut NativeInjector::<N>::new(&mut fresh));
    for field in propagators.fields() {
        let spelled = |headers| {
            let named = pairs::<N>(headers).into_iter().filter(|(name, _)| name.eq_ignore_ascii_case(field));
            named.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(spelled(&headers), spelled(&fresh), "PROP-05, PROP-12: {entries:?}");
        assert!(spelled(&fresh).len() <= 1, "PROP-04: {entries:?}");
    }
}

fn made<N: NativeCarrier<Written: Default>>(entries: Entries<'_>) -> N::Written {
    let mut headers = N::Written::default();
    for (name, value) in entries {
        N::append(&mut headers, name, value);
    }
    headers
}

/// The headers that are text, in the order of their names: some clients keep none.
fn pairs<N: NativeCarrier>(headers: &N::Written) -> Vec<(&str, &str)> {
    let all = N::iter(N::as_read(headers));
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let mut pairs: Vec<_> = all.filter_map(|(name, value)| text(name).zip(text(value.unwrap_or_default()))).collect();
    pairs.sort_unstable();
    pairs
}
