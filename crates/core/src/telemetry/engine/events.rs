use opentelemetry::logs::{LogRecord, Logger, Severity};
use opentelemetry::trace::SpanContext;

use super::error_report::ErrorReport;
use crate::message::OperationType;
use crate::telemetry::semconv::{EXCEPTION_MESSAGE, EXCEPTION_TYPE};

/// Records failed operations as log events, whatever the logger's type.
// STAT-13 to -19.
pub(crate) trait RecordException: Send + Sync {
    fn record(&self, operation: OperationType, error: &ErrorReport, span: &SpanContext);
}

impl<L: Logger + Send + Sync> RecordException for L {
    fn record(&self, operation: OperationType, error: &ErrorReport, span: &SpanContext) {
        let mut record = self.create_log_record();
        record.set_event_name(event_name(operation));
        let (severity, text) = severity(operation);
        record.set_severity_number(severity);
        record.set_severity_text(text);
        record.add_attribute(EXCEPTION_TYPE, error.exception_type.clone());
        if let Some(message) = &error.message {
            record.add_attribute(EXCEPTION_MESSAGE, message.clone());
        }
        if span.is_valid() {
            record.set_trace_context(span.trace_id(), span.span_id(), Some(span.trace_flags()));
        }
        self.emit(record);
    }
}

// STAT-14.
const fn event_name(operation: OperationType) -> &'static str {
    match operation {
        OperationType::Create => "messaging.create.exception",
        OperationType::Process => "messaging.process.exception",
        OperationType::Receive => "messaging.receive.exception",
        OperationType::Send => "messaging.send.exception",
        OperationType::Settle => "messaging.settle.exception",
    }
}

// STAT-15.
const fn severity(operation: OperationType) -> (Severity, &'static str) {
    match operation {
        OperationType::Process => (Severity::Error, "ERROR"),
        _ => (Severity::Warn, "WARN"),
    }
}
