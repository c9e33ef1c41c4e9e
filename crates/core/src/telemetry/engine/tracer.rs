use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::noop::NoopTracer;
use opentelemetry::trace::{Span, SpanBuilder, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, Tracer};
use opentelemetry::{Context, KeyValue};

use super::settings::Settings;
use super::span::{EngineSpan, Keys};
use crate::guard::Foreign;

/// Starts spans, whatever the tracer's type. A trait of our own so that the span is boxed once and not twice, as the global tracer would.
// TRAP-16.
pub(crate) trait StartSpan: Send + Sync {
    /// Starts a span and puts it into the parent's context. If it records, `late` sets further attributes on it. `None` when
    /// what starts it panicked.
    // TRAP-07.
    fn start(&self, settings: &Arc<Settings>, build: Build, parent: &Context, late: &mut Late<'_>) -> Option<Started>;

    /// Starts a span and ends it at once. Only its context is left; `end` gives the time, or the SDK's clock is read.
    fn make(
        &self,
        settings: &Arc<Settings>,
        build: Build,
        parent: &Context,
        late: &mut Late<'_>,
        end: &mut dyn FnMut() -> Option<SystemTime>,
    ) -> Option<SpanContext>;

    /// Tells whether this is the API's own tracer that makes no spans; `None` where its type does not say so and
    /// [`is_noop`](Self::is_noop) would.
    fn is_known_noop(&self) -> Option<bool>;

    /// Finds out whether this is the API's own tracer that makes no spans: it alone hands a parent back, whatever the parent says. The
    /// parent forbids telemetry, so that no other makes a span of it.
    fn is_noop(&self) -> bool;
}

/// What a span is made of.
pub(crate) struct Build {
    pub(crate) builder: SpanBuilder,
    /// The keys of the attributes in the builder.
    pub(crate) keys: Keys,
    /// Attributes that give way to those of the engine's that come at the end.
    pub(crate) deferred: Vec<KeyValue>,
}

/// A span that was started.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    /// The parent's context with the span in it.
    pub(crate) context: Context,
    pub(crate) is_recording: bool,
}

/// Hands over the attributes that samplers need not see, one by one; asked only for a span that records.
pub(crate) type Late<'a> = dyn FnMut(&mut dyn FnMut(KeyValue)) + 'a;

impl<T> StartSpan for T
where
    T: Tracer + Send + Sync + 'static,
    T::Span: Span + Send + Sync + 'static,
{
    fn start(&self, settings: &Arc<Settings>, build: Build, parent: &Context, late: &mut Late<'_>) -> Option<Started> {
        let span = start(self, settings, build, parent, late)?;
        let is_recording = span.is_recording();
        if is_recording {
            return Some(Started { context: parent.with_span(span), is_recording });
        }
        // Of a span that records nothing only the context matters; the span itself is large and would be boxed.
        Some(Started { context: parent.with_remote_span_context(span.span_context().clone()), is_recording })
    }

    fn make(
        &self,
        settings: &Arc<Settings>,
        build: Build,
        parent: &Context,
        late: &mut Late<'_>,
        end: &mut dyn FnMut() -> Option<SystemTime>,
    ) -> Option<SpanContext> {
        let mut span = start(self, settings, build, parent, late)?;
        match end() {
            Some(time) => span.end_with_timestamp(time),
            None => span.end(),
        }
        Some(span.span_context().clone())
    }

    fn is_known_noop(&self) -> Option<bool> {
        let tracer: &dyn Any = self;
        // What is global says nothing of its type.
        (!tracer.is::<BoxedTracer>()).then(|| tracer.is::<NoopTracer>())
    }

    fn is_noop(&self) -> bool {
        let (trace, span) = (TraceId::from(1), SpanId::from(1));
        let asked = SpanContext::new(trace, span, TraceFlags::default(), true, Default::default());
        let parent = Context::new().with_remote_span_context(asked).with_telemetry_suppressed();
        self.build_with_context(SpanBuilder::from_name(""), &parent).span_context().span_id() == span
    }
}

fn start<T: Tracer>(
    tracer: &T,
    settings: &Arc<Settings>,
    build: Build,
    parent: &Context,
    late: &mut Late<'_>,
) -> Option<EngineSpan<T::Span>> {
    let Build { builder, keys, deferred } = build;
    let span = settings.guard.run(Foreign::SpanStart, || tracer.build_with_context(builder, parent))?;
    let mut span = EngineSpan::new(span, settings, keys, deferred);
    if span.is_recording() {
        late(&mut |attribute| span.set_first(attribute));
    }
    Some(span)
}
