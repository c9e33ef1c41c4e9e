use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use super::engine::{Clock, Engine, ErrorReport, Started};
use super::prepared::Prepared;
use crate::guard::Foreign;

/// An operation that is under way: it ends its span and records its duration once, also when it is dropped.
// TRAP-03, -04.
pub(crate) struct Operation {
    pub(crate) prepared: Arc<Prepared>,
    span: Option<Started>,
    clock: Clock,
    finished: bool,
}

impl Operation {
    pub(crate) fn new(prepared: &Arc<Prepared>, span: Option<Started>, clock: Clock) -> Self {
        Self { prepared: Arc::clone(prepared), span, clock, finished: false }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.prepared.engine
    }

    pub(crate) fn context(&self) -> Option<&Context> {
        self.span.as_ref().map(|span| &span.context)
    }

    /// Ends the operation. Attributes that became known meanwhile are added first. Returns a clock that starts at the end.
    pub(crate) fn finish(mut self, late: Vec<KeyValue>, error: Option<&ErrorReport>) -> Clock {
        self.end(late, error)
    }

    fn end(&mut self, late: Vec<KeyValue>, error: Option<&ErrorReport>) -> Clock {
        if std::mem::replace(&mut self.finished, true) {
            return Clock::default();
        }
        let engine = &self.prepared.engine;
        let mut end = self.clock.end();
        if let Some(span) = self.span.as_ref().filter(|span| span.is_recording) {
            let span = span.context.span();
            // After whatever the handler has set: the last one counts.
            if !late.is_empty() {
                span.set_attributes(late);
            }
            if let Some(error) = error {
                error.mark(&span);
            }
            span.end_with_timestamp(*end.time.get_or_insert_with(SystemTime::now));
        }
        if let (Some(error), Some(events)) = (error, &engine.events) {
            let span = self.context().map(|context| context.span().span_context().clone());
            let span = span.unwrap_or(SpanContext::NONE);
            engine.guard().run(Foreign::Logger, || events.record(self.prepared.operation, error, &span));
        }
        // None where nobody measured when it began.
        if let Some(elapsed) = end.elapsed {
            let error_type = error.map(|error| error.error_type.as_ref());
            engine.metrics.duration(self.prepared.operation, elapsed, &self.prepared.durations, error_type);
        }
        end.followed()
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if !self.finished {
            let error = ErrorReport::named(if std::thread::panicking() { "panic" } else { "cancelled" });
            self.end(Vec::new(), Some(&error));
        }
    }
}
