//! What the tests of this module share.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

use crate::message::Headers;

pub(super) const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
pub(super) const SPAN: u64 = 0xb7ad_6b71_6920_3331;

/// A valid sampled `traceparent` of [`TRACE`] and [`SPAN`].
pub(super) const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(super) fn headers<const N: usize>(entries: [(&str, &str); N]) -> Headers {
    let entries = entries.map(|(name, value)| (name.to_owned(), value.to_owned()));
    entries.into_iter().collect()
}

/// Reads the entries with nothing in the context before.
pub(super) fn read<const N: usize>(propagator: &dyn TextMapPropagator, entries: [(&str, &str); N]) -> Context {
    propagator.extract_with_context(&Context::new(), &headers(entries))
}

/// Returns what is written into empty headers.
pub(super) fn write(propagator: &dyn TextMapPropagator, cx: &Context) -> Vec<(String, String)> {
    let mut headers = Headers::new();
    propagator.inject_context(cx, &mut headers);
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    headers.iter().map(|(name, value)| (name.to_owned(), text(value))).collect()
}

/// A context with a local span of [`TRACE`] and [`SPAN`].
pub(super) fn with_span(flags: u8, state: TraceState) -> Context {
    Context::new().with_remote_span_context(span_context(flags, state, false))
}

pub(super) fn span_context(flags: u8, state: TraceState, remote: bool) -> SpanContext {
    let flags = TraceFlags::new(flags);
    SpanContext::new(TraceId::from(TRACE), SpanId::from(SPAN), flags, remote, state)
}

pub(super) fn pairs<const N: usize>(entries: [(&str, &str); N]) -> Vec<(String, String)> {
    entries.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Runs `action` and returns the text of what it logged, with the level of each event.
pub(super) fn logged(action: impl FnOnce()) -> String {
    let log = Log::default();
    // With one dispatcher alone, a thread of another test may switch an event off for all.
    let _second = Dispatch::new(Log::default());
    tracing::subscriber::with_default(log.clone(), action);
    log.0.lock().unwrap().clone()
}

/// Collects the text of every log event.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.lock().unwrap().push_str(&format!("{field}={value:?} "));
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push_str(&format!("{} ", event.metadata().level()));
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
