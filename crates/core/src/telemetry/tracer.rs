use opentelemetry::Context;
use opentelemetry::trace::{Span, SpanBuilder, TraceContextExt, Tracer};

/// Starts spans, whatever the tracer's type. A trait of our own so that the span is boxed once and not twice, as the global tracer would (TRAP-16).
pub(crate) trait StartSpan: Send + Sync {
    /// Starts a span and returns the parent context with that span in it (TRAP-07).
    fn start(&self, builder: SpanBuilder, parent: &Context) -> Context;
}

impl<T> StartSpan for T
where
    T: Tracer + Send + Sync,
    T::Span: Span + Send + Sync + 'static,
{
    fn start(&self, builder: SpanBuilder, parent: &Context) -> Context {
        let span = self.build_with_context(builder, parent);
        parent.with_span(span)
    }
}
