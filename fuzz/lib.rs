//! What the fuzz targets share.

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use throughline_core::Headers;
use throughline_testing::conformance::hostile::grammar;

/// Separates names from values and headers from each other in the bytes of the fuzzer: it is in no UTF-8 text.
const SEPARATOR: u8 = 0xff;

/// Reads headers out of any bytes: name, value, name, value, …
pub fn headers(bytes: &[u8]) -> Headers {
    let parts: Vec<&[u8]> = bytes.split(|byte| *byte == SEPARATOR).collect();
    let (pairs, _) = parts.as_chunks::<2>();
    pairs.iter().map(|[name, value]| (String::from_utf8_lossy(name).into_owned(), value.to_vec())).collect()
}

/// Headers of one name whose values are the lines of the input.
pub fn lines(name: &'static str, bytes: &[u8]) -> Headers {
    bytes.split(|byte| *byte == b'\n').map(|value| (name, value.to_vec())).collect()
}

/// Reads, and checks what must be true of whatever was read: the span is valid and remote or there is none, what is written is
/// well-formed, and reading that again gives the same.
pub fn check(propagator: &dyn TextMapPropagator, headers: &Headers) {
    let first = propagator.extract_with_context(&Context::new(), headers);
    if first.has_active_span() {
        let span = first.span();
        assert!(span.span_context().is_valid() && span.span_context().is_remote());
    }
    let written = write(propagator, &first);
    for (name, value) in written.iter() {
        let text = std::str::from_utf8(value).expect("what is written is text");
        grammar::check(name, text).unwrap_or_else(|wrong| panic!("{wrong}: {text:?}"));
    }
    let second = propagator.extract_with_context(&Context::new(), &written);
    assert_eq!(write(propagator, &second), written, "what was written is read and written differently");
}

/// Returns what a propagator writes into empty headers.
pub fn write(propagator: &dyn TextMapPropagator, cx: &Context) -> Headers {
    let mut headers = Headers::new();
    propagator.inject_context(cx, &mut headers);
    headers
}
