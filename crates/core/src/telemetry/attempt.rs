use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use super::operation::{Clock, ErrorReport, Start};
use super::scope::Scope;
use super::semconv::ATTEMPT;
use super::settings::OperationInfo;
use crate::message::{Failure, OperationType};

/// The span of one further attempt inside a process span: `retry`, INTERNAL, the project's own.
pub(crate) struct AttemptSpan<'a> {
    scope: &'a Scope,
    context: Option<Context>,
}

impl Scope {
    pub(crate) fn start_attempt(&self, attempt: u32) -> AttemptSpan<'_> {
        let context =
            self.instrumentation().filter(|_| self.context().span().is_recording()).and_then(|instrumentation| {
                let info = OperationInfo {
                    operation_type: OperationType::Process,
                    operation_name: "retry",
                    system: "",
                    destination: "",
                    template: None,
                };
                let attributes = vec![KeyValue::new(ATTEMPT, i64::from(attempt))];
                let start = Start {
                    info,
                    name: "retry".into(),
                    kind: SpanKind::Internal,
                    attributes,
                    links: Vec::new(),
                    clock: Clock::start(),
                };
                instrumentation.engine.start_span(start, self.context())
            });
        AttemptSpan { scope: self, context }
    }
}

impl AttemptSpan<'_> {
    pub(crate) fn context(&self) -> Option<Context> {
        self.context.clone()
    }

    pub(crate) fn finish(self, failure: Option<&Failure>) {
        let (Some(context), Some(instrumentation)) = (&self.context, self.scope.instrumentation()) else { return };
        if let Some(failure) = failure {
            ErrorReport::of_failure(failure, &instrumentation.engine).mark(&context.span());
        }
        context.span().end();
    }
}
