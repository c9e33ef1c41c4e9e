use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

use super::{Carrier, hex, trace_state};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The flags that are read and written: sampled, and random of level 2.
const FLAGS: TraceFlags = TraceFlags::new(0x03);

/// A `traceparent` of version 00 whose ids and flags are still to be filled in.
const BLANK: [u8; 55] = *b"00-00000000000000000000000000000000-0000000000000000-00";

static FIELDS: LazyLock<[String; 2]> = LazyLock::new(|| [TRACEPARENT.into(), TRACESTATE.into()]);

/// A propagator of the span context in the headers `traceparent` and `tracestate` (W3C Trace Context, level 2).
///
/// It replaces the propagator of the SDK, which accepts malformed ids, reads only the first `tracestate` header and
/// passes line breaks in it on. What it does:
///
/// - A `traceparent` that breaks the grammar is treated as absent: the given context comes back unchanged.
/// - A version above 00 is read as 00 and written back as 00.
/// - `tracestate` is read only beside a valid `traceparent`, and a bad one is dropped alone; several headers
///   are joined in order; limits cut whole members. An empty one is not written.
///
/// Of the trace flags the sampled bit and the random bit of level 2 (0x02) are read and written. The SDK keeps the random bit of a
/// sampled trace that goes on; to a trace that begins, and to spans that are not sampled, it gives none.
///
/// # Examples
///
/// ```
/// use opentelemetry::Context;
/// use opentelemetry::propagation::TextMapPropagator;
/// use opentelemetry::trace::TraceContextExt;
/// use throughline_core::Headers;
/// use throughline_core::propagation::{TraceContextPropagator};
///
/// let propagator = TraceContextPropagator::new();
/// let mut headers = Headers::new();
/// headers.append("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
///
/// let cx = propagator.extract_with_context(&Context::new(), &headers);
/// assert!(cx.span().span_context().is_sampled());
///
/// propagator.inject_context(&cx, &mut headers);
/// assert_eq!(headers.get("traceparent"), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct TraceContextPropagator {
    _private: (),
}

impl TraceContextPropagator {
    /// Creates the propagator; it has no settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::propagation::TextMapPropagator;
    /// use throughline_core::propagation::TraceContextPropagator;
    ///
    /// assert!(TraceContextPropagator::new().fields().eq(["traceparent", "tracestate"]));
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { _private: () }
    }

    /// Returns the context with the remote span of the headers, or `None` when they hold no valid one.
    pub(super) fn find(&self, cx: &Context, extractor: &dyn Extractor) -> Option<Context> {
        Some(cx.with_remote_span_context(self.read(extractor)?))
    }

    /// Returns the remote span of the headers alone.
    pub(super) fn read(&self, extractor: &dyn Extractor) -> Option<SpanContext> {
        let (trace_id, span_id, flags) = parse(extractor.get(TRACEPARENT)?)?;
        let state = match extractor.get_all(TRACESTATE) {
            Some(headers) => trace_state::parse(&headers),
            None => TraceState::NONE,
        };
        Some(SpanContext::new(trace_id, span_id, flags, true, state))
    }

    /// Writes a span's context into headers that hold none of these names.
    pub(super) fn put(&self, span_context: &SpanContext, carrier: &mut dyn Carrier) {
        if !span_context.is_valid() {
            return;
        }
        carrier.put(TRACEPARENT, &format(span_context));
        if let Some(state) = trace_state::format(span_context.trace_state()) {
            carrier.put(TRACESTATE, state.as_bytes());
        }
    }
}

impl TextMapPropagator for TraceContextPropagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let span = cx.span();
        let span_context = span.span_context();
        if !span_context.is_valid() {
            return;
        }
        injector.set(TRACEPARENT, String::from_utf8_lossy(&format(span_context)).into_owned());
        if let Some(state) = trace_state::format(span_context.trace_state()) {
            injector.set(TRACESTATE, state);
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        self.find(cx, extractor).unwrap_or_else(|| cx.clone())
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(FIELDS.as_slice())
    }
}

/// Reads a `traceparent` value.
// PROP-09, PROP-10, PROP-15.
fn parse(value: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let text = if value.len() == BLANK.len() { value } else { value.trim_matches([' ', '\t']) }.as_bytes();
    let ([version], rest) = hex::take::<1>(text)?;
    let (trace_id, rest) = hex::take::<16>(rest.strip_prefix(b"-")?)?;
    let (span_id, rest) = hex::take::<8>(rest.strip_prefix(b"-")?)?;
    let ([flags], rest) = hex::take::<1>(rest.strip_prefix(b"-")?)?;

    let ends_well = match version {
        0x00 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest.starts_with(b"-"),
    };
    let (trace_id, span_id) = (TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id));
    let valid = ends_well && trace_id != TraceId::INVALID && span_id != SpanId::INVALID;
    valid.then(|| (trace_id, span_id, TraceFlags::new(flags) & FLAGS))
}

/// Writes a `traceparent` value of version 00.
fn format(span_context: &SpanContext) -> [u8; 55] {
    let mut text = BLANK;
    hex::put(&span_context.trace_id().to_bytes(), &mut text[3..35]);
    hex::put(&span_context.span_id().to_bytes(), &mut text[36..52]);
    hex::put(&[(span_context.trace_flags() & FLAGS).to_u8()], &mut text[53..55]);
    text
}

#[cfg(test)]
mod tests;
