//! Receives log records.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::AnyValue;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use throughline_waterfall::{Remark, clean};

use super::collector::Collector;

/// Feeds log records to the collector: those of a span are drawn under it, others at once.
#[derive(Debug)]
pub(super) struct ConsoleLogs {
    collector: Arc<Collector>,
}

impl ConsoleLogs {
    pub(super) fn new(collector: Arc<Collector>) -> Self {
        Self { collector }
    }

    fn write(&self, text: &str) {
        self.collector.screen.write(&format!("{}\n", clean(text)));
    }
}

impl LogProcessor for ConsoleLogs {
    fn emit(&self, record: &mut SdkLogRecord, _scope: &InstrumentationScope) {
        let text = text(record);
        let Some(context) = record.trace_context() else {
            return self.write(&text);
        };
        let remark = Remark {
            span: context.span_id,
            time: record.timestamp().or(record.observed_timestamp()).unwrap_or_else(SystemTime::now),
            text,
            exception: attribute(record, "exception.type").is_some(),
        };
        if let Err(remark) = self.collector.remarked(context.trace_id, remark) {
            self.write(&remark.text);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// One line: severity, name of the event, body, or the exception it tells of.
fn text(record: &SdkLogRecord) -> String {
    let severity = record.severity_text().or(record.severity_number().map(|severity| severity.name()));
    let body = record.body().map(any);
    let exception = [attribute(record, "exception.type"), attribute(record, "exception.message")];
    let exception: Vec<String> = exception.into_iter().flatten().collect();
    let exception = (!exception.is_empty()).then(|| exception.join(": "));
    let parts = [severity.map(str::to_owned), record.event_name().map(str::to_owned), body, exception];
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn attribute(record: &SdkLogRecord, key: &str) -> Option<String> {
    record.attributes_iter().find(|(name, _)| name.as_str() == key).map(|(_, value)| any(value))
}

fn any(value: &AnyValue) -> String {
    match value {
        AnyValue::String(text) => text.to_string(),
        AnyValue::Int(number) => number.to_string(),
        AnyValue::Double(number) => number.to_string(),
        AnyValue::Boolean(truth) => truth.to_string(),
        other => format!("{other:?}"),
    }
}
