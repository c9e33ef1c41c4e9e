use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use super::scope::Scope;
use crate::message::{Failure, OperationType};
use crate::telemetry::choices::OperationInfo;
use crate::telemetry::engine::{Clock, ErrorReport, Keys, Start};
use crate::telemetry::semconv::{ATTEMPT, RETRY_CAUSE};

/// The span of one further attempt inside a process span: `retry`, INTERNAL, the project's own.
pub(crate) struct AttemptSpan<'a> {
    scope: &'a Scope,
    context: Option<Context>,
}

impl Scope {
    /// Starts the span of an attempt; `cause` is the failure of the one before.
    // ATTR-C-27, -28.
    pub(crate) fn start_attempt(&self, attempt: u32, cause: Option<&Failure>) -> AttemptSpan<'_> {
        let context = self.engine().filter(|_| self.context().span().is_recording()).and_then(|engine| {
            let info = OperationInfo {
                operation_type: OperationType::Process,
                operation_name: "retry",
                system: "",
                destination: "",
                template: None,
            };
            let mut attributes = vec![KeyValue::new(ATTEMPT, i64::from(attempt))];
            if let Some(cause) = cause {
                let error_type = ErrorReport::error_type_of(cause, &engine.settings).into_owned();
                attributes.push(KeyValue::new(RETRY_CAUSE, error_type));
            }
            let start = Start {
                info,
                name: "retry".into(),
                kind: SpanKind::Internal,
                keys: Keys::of(&attributes),
                attributes,
                links: Vec::new(),
                clock: Clock::default(),
            };
            let started = engine.start_span(start, &mut |_| {}, self.context());
            started.map(|started| started.context)
        });
        AttemptSpan { scope: self, context }
    }
}

impl AttemptSpan<'_> {
    pub(crate) fn context(&self) -> Option<Context> {
        self.context.clone()
    }

    pub(crate) fn finish(mut self, failure: Option<&Failure>) {
        let engine = self.scope.engine();
        let report = failure.zip(engine).map(|(failure, engine)| ErrorReport::of_failure(failure, &engine.settings));
        self.end(report.as_ref());
    }

    fn end(&mut self, error: Option<&ErrorReport>) {
        if let Some(context) = self.context.take() {
            if let Some(error) = error {
                error.mark(&context.span());
            }
            context.span().end();
        }
    }
}

/// An attempt that is cut off, by a timeout or at shutdown, must not end as if nothing had happened.
// TRAP-04.
impl Drop for AttemptSpan<'_> {
    fn drop(&mut self) {
        self.end(Some(&ErrorReport::named("cancelled")));
    }
}
