//! Where log records and events go, flattened for assertions.

use std::sync::{Arc, Mutex};

use opentelemetry::logs::{AnyValue, Severity};
use opentelemetry::{InstrumentationScope, SpanId, TraceFlags, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SdkLogRecord};

use super::lock::lock;

/// One captured log record.
///
/// # Examples
///
/// ```
/// use opentelemetry::logs::{LogRecord, Logger, LoggerProvider, Severity};
///
/// let capture = throughline_testing::Capture::new();
/// let logger = capture.logger_provider().logger("shop");
/// let mut record = logger.create_log_record();
/// record.set_severity_number(Severity::Error);
/// record.add_attribute("exception.type", "OutOfStock");
/// logger.emit(record);
///
/// let log = &capture.logs()[0];
/// assert_eq!(log.severity_number(), Some(17));
/// assert_eq!(log.attribute("exception.type"), Some(&"OutOfStock".into()));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CapturedLog {
    /// The event name, for records that are events.
    pub event_name: Option<String>,
    /// The severity.
    pub severity: Option<Severity>,
    /// The body.
    pub body: Option<AnyValue>,
    /// The attributes sorted by key; a key that was set twice is there twice.
    pub attributes: Vec<(String, AnyValue)>,
    /// The trace the record belongs to.
    pub trace_id: Option<TraceId>,
    /// The span the record belongs to.
    pub span_id: Option<SpanId>,
    /// The trace flags of that span.
    pub trace_flags: Option<TraceFlags>,
    /// The instrumentation scope that emitted the record.
    pub scope: InstrumentationScope,
}

impl CapturedLog {
    /// Returns the severity as the number of the data model, 1 (`TRACE`) to 24 (`FATAL4`).
    pub fn severity_number(&self) -> Option<i32> {
        self.severity.map(|severity| severity as i32)
    }

    /// Returns the value of an attribute.
    pub fn attribute(&self, key: &str) -> Option<&AnyValue> {
        self.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn new(record: &SdkLogRecord, scope: &InstrumentationScope) -> Self {
        let context = record.trace_context();
        let mut attributes: Vec<(String, AnyValue)> =
            record.attributes_iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
        attributes.sort_by(|(left, _), (right, _)| left.cmp(right));
        Self {
            event_name: record.event_name().map(str::to_owned),
            severity: record.severity_number(),
            body: record.body().cloned(),
            attributes,
            trace_id: context.map(|context| context.trace_id),
            span_id: context.map(|context| context.span_id),
            trace_flags: context.and_then(|context| context.trace_flags),
            scope: scope.clone(),
        }
    }
}

/// A log exporter that keeps the records. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct LogSink {
    logs: Arc<Mutex<Vec<CapturedLog>>>,
}

impl LogSink {
    pub(super) fn records(&self) -> Vec<CapturedLog> {
        lock(&self.logs).clone()
    }

    pub(super) fn clear(&self) {
        lock(&self.logs).clear();
    }
}

impl LogExporter for LogSink {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        lock(&self.logs).extend(batch.iter().map(|(record, scope)| CapturedLog::new(record, scope)));
        Ok(())
    }
}
