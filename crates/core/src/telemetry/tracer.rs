use std::time::SystemTime;

use opentelemetry::trace::{Span, SpanBuilder, SpanContext, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};

use super::operation::Started;

/// Starts spans, whatever the tracer's type. A trait of our own so that the span is boxed once and not twice, as the global tracer would (TRAP-16).
pub(crate) trait StartSpan: Send + Sync {
    /// Starts a span and puts it into the parent's context (TRAP-07). If it records, `late` sets further attributes on it.
    fn start(&self, builder: SpanBuilder, parent: &Context, late: &mut Late<'_>) -> Started;

    /// Starts a span and ends it at once. Only its context is left; `end` gives the time, or the SDK's clock is read.
    fn make(
        &self,
        builder: SpanBuilder,
        parent: &Context,
        late: &mut Late<'_>,
        end: &mut dyn FnMut() -> Option<SystemTime>,
    ) -> SpanContext;
}

/// Hands over the attributes that samplers need not see, one by one; asked only for a span that records.
pub(crate) type Late<'a> = dyn FnMut(&mut dyn FnMut(KeyValue)) + 'a;

impl<T> StartSpan for T
where
    T: Tracer + Send + Sync,
    T::Span: Span + Send + Sync + 'static,
{
    fn start(&self, builder: SpanBuilder, parent: &Context, late: &mut Late<'_>) -> Started {
        let span = build(self, builder, parent, late);
        let is_recording = span.is_recording();
        if is_recording {
            return Started { context: parent.with_span(span), is_recording };
        }
        // Of a span that records nothing only the context matters; the span itself is large and would be boxed.
        Started { context: parent.with_remote_span_context(span.span_context().clone()), is_recording }
    }

    fn make(
        &self,
        builder: SpanBuilder,
        parent: &Context,
        late: &mut Late<'_>,
        end: &mut dyn FnMut() -> Option<SystemTime>,
    ) -> SpanContext {
        let mut span = build(self, builder, parent, late);
        match end() {
            Some(time) => span.end_with_timestamp(time),
            None => span.end(),
        }
        span.span_context().clone()
    }
}

fn build<T: Tracer>(tracer: &T, builder: SpanBuilder, parent: &Context, late: &mut Late<'_>) -> T::Span {
    let mut span = tracer.build_with_context(builder, parent);
    if span.is_recording() {
        late(&mut |attribute| span.set_attribute(attribute));
    }
    span
}
