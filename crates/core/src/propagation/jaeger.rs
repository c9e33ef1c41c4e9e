use std::borrow::Cow;
use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

use super::limits::{self, MAX_BYTES, MAX_MEMBERS};
use super::{baggage, percent};

pub(super) const UBER_TRACE_ID: &str = "uber-trace-id";

/// What the name of a header with one baggage entry starts with.
const BAGGAGE_PREFIX: &str = "uberctx-";

const SAMPLED: u8 = 0x01;
const DEBUG: u8 = 0x02;

/// The bit of the span context that keeps the debug flag; B3 uses the same.
const DEBUG_FLAG: TraceFlags = TraceFlags::new(0x04);

static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [UBER_TRACE_ID.into()]);

/// A propagator of the span context in `uber-trace-id` and baggage in `uberctx-{key}`, for services that still speak Jaeger's
/// own format.
///
/// The format is deprecated and off unless `jaeger` is named in `OTEL_PROPAGATORS`. Short ids are padded
/// on the left, `%3A` stands for `:` too, the parent id is ignored on reading and written as `0`. Baggage
/// values are percent-encoded as in a `baggage` header and under the same limits; what is read is added to the baggage
/// of the given context.
///
/// # Examples
///
/// ```
/// use opentelemetry::Context;
/// use opentelemetry::propagation::TextMapPropagator;
/// use throughline_core::Headers;
/// use throughline_core::propagation::{JaegerPropagator};
///
/// let propagator = JaegerPropagator::new();
/// let mut headers = Headers::new();
/// headers.append("uber-trace-id", "af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:1");
/// headers.append("uberctx-tenant", "acme");
/// let cx = propagator.extract_with_context(&Context::new(), &headers);
///
/// let mut outgoing = Headers::new();
/// propagator.inject_context(&cx, &mut outgoing);
/// assert_eq!(outgoing.get("uber-trace-id"), Some("0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:1"));
/// assert_eq!(outgoing.get("uberctx-tenant"), Some("acme"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct JaegerPropagator {
    _private: (),
}

impl JaegerPropagator {
    /// Creates the propagator; it has no settings.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::propagation::TextMapPropagator;
    /// use throughline_core::propagation::JaegerPropagator;
    ///
    /// assert!(JaegerPropagator::new().fields().eq(["uber-trace-id"]));
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { _private: () }
    }

    /// Returns the context with what the headers hold, or `None` when they hold nothing valid.
    pub(super) fn find(&self, cx: &Context, extractor: &dyn Extractor) -> Option<Context> {
        let span_context = extractor.get(UBER_TRACE_ID).and_then(parse);
        let with_span = span_context.map(|span_context| cx.with_remote_span_context(span_context));
        let entries = read_baggage(extractor);
        if entries.is_empty() {
            return with_span;
        }
        let cx = with_span.as_ref().unwrap_or(cx);
        Some(cx.with_baggage(merge(cx.baggage(), &entries)))
    }
}

impl TextMapPropagator for JaegerPropagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let span = cx.span();
        if span.span_context().is_valid() {
            injector.set(UBER_TRACE_ID, format(span.span_context()));
        }
        write_baggage(cx.baggage(), injector);
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        self.find(cx, extractor).unwrap_or_else(|| cx.clone())
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(FIELDS.as_slice())
    }
}

/// Reads `{trace}:{span}:{parent}:{flags}`.
fn parse(value: &str) -> Option<SpanContext> {
    let value = unescape(value.trim_matches([' ', '\t']));
    let mut parts = value.split(':');
    let (trace, span) = (parts.next()?, parts.next()?);
    let (_parent, flags) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let trace_id = TraceId::from(hex(trace, 32)?);
    let span_id = SpanId::from(u64::try_from(hex(span, 16)?).ok()?);
    let flags = u8::try_from(hex(flags, 2)?).ok()?;
    let flags = match (flags & SAMPLED, flags & DEBUG) {
        (0, _) => TraceFlags::NOT_SAMPLED,
        (_, 0) => TraceFlags::SAMPLED,
        _ => TraceFlags::SAMPLED | DEBUG_FLAG,
    };
    let span_context = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
    span_context.is_valid().then_some(span_context)
}

/// Replaces `%3A`, which some clients write for `:`.
fn unescape(value: &str) -> Cow<'_, str> {
    if value.contains('%') { Cow::Owned(value.replace("%3A", ":").replace("%3a", ":")) } else { Cow::Borrowed(value) }
}

/// Reads a number of 1 to `digits` hexadecimal digits; the sign the standard parser allows is refused.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let well_formed = text.len() <= digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if well_formed { u128::from_str_radix(text, 16).ok() } else { None }
}

fn format(span_context: &SpanContext) -> String {
    let debug = span_context.trace_flags() & DEBUG_FLAG == DEBUG_FLAG;
    let flags = match (span_context.is_sampled(), debug) {
        (false, _) => 0,
        (true, false) => SAMPLED,
        (true, true) => SAMPLED | DEBUG,
    };
    format!("{}:{}:0:{flags:x}", span_context.trace_id(), span_context.span_id())
}

/// Reads the `uberctx-*` headers; over 8192 bytes of them count as none.
// BAGG-09.
fn read_baggage(extractor: &dyn Extractor) -> Vec<(&str, Cow<'_, str>)> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for name in extractor.keys() {
        let Some(key) = baggage_key(name) else {
            continue;
        };
        let Some(value) = extractor.get(name).map(percent::decode) else {
            continue;
        };
        if baggage::is_sent(key, &value) {
            bytes += key.len() + value.len();
            entries.push((key, value));
        }
    }
    if limits::may_read(bytes) { entries } else { Vec::new() }
}

/// Returns what follows the prefix in a header name, whose case may have changed on the way.
// PROP-03.
pub(super) fn baggage_key(name: &str) -> Option<&str> {
    let (prefix, key) = name.split_at_checked(BAGGAGE_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(BAGGAGE_PREFIX).then_some(key)
}

/// Returns the known entries and the new ones; on the same key the new one wins.
fn merge(known: &Baggage, entries: &[(&str, Cow<'_, str>)]) -> Baggage {
    let mut merged: Baggage = known.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
    let refused = |(key, value): &&(&str, Cow<'_, str>)| {
        !limits::insert(&mut merged, key, value.clone().into_owned(), String::new())
    };
    limits::count_dropped(entries.iter().filter(refused).count());
    merged
}

/// Writes one header an entry, in the order of the keys, under the limits of baggage.
// BAGG-08.
fn write_baggage(baggage: &Baggage, injector: &mut dyn Injector) {
    let (mut written, mut bytes, mut dropped) = (0, 0, 0);
    for (key, value, _) in baggage::sent_entries(baggage) {
        let mut text = String::new();
        percent::encode_into(&mut text, value);
        let size = key.len() + text.len();
        if written == MAX_MEMBERS || bytes + size > MAX_BYTES {
            dropped += 1;
            continue;
        }
        (written, bytes) = (written + 1, bytes + size);
        injector.set(&format!("{BAGGAGE_PREFIX}{key}"), text);
    }
    limits::count_dropped(dropped);
}

#[cfg(test)]
mod tests;
