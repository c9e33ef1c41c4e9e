//! Log records.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use throughline_waterfall::Remark;

use super::spans::time;
use super::value::{LONGEST, text};
use super::{Reading, Sender, span_id, trace_id};
use crate::view::held::{Loose, Said};

/// Log records: those of spans, and those that stand alone.
#[derive(Debug, Default)]
pub(in super::super) struct Records {
    pub(in super::super) said: Vec<Said>,
    pub(in super::super) loose: Vec<Loose>,
}

/// Reads log records; those whose ids are not as OTLP says stand alone.
pub(in super::super) fn records(request: ExportLogsServiceRequest, reading: &mut Reading) -> Records {
    let mut records = Records::default();
    for resource in request.resource_logs {
        let sender = reading.sender(resource.resource);
        for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            add(record, &sender, &mut records, reading);
        }
    }
    records
}

fn add(record: LogRecord, sender: &Sender, records: &mut Records, reading: &mut Reading) {
    let (service, severe) = (sender.service.clone(), record.severity_number >= SeverityNumber::Error as i32);
    let exception = attribute(&record.attributes, "exception.type").is_some();
    let (trace, span) = (trace_id(&record.trace_id), span_id(&record.span_id));
    let time = match (record.time_unix_nano, record.observed_time_unix_nano) {
        (0, 0) => SystemTime::now(),
        (0, nanos) | (nanos, _) => time(nanos),
    };
    let text = line(record, reading);
    match (trace, span) {
        (Some(trace), Some(span)) => {
            records.said.push(Said { trace, service, severe, remark: Remark { span, time, text, exception } });
        }
        (trace, _) => records.loose.push(Loose { service, severe, text, trace }),
    }
}

/// One line: severity, name of the event, body, or the exception it tells of.
fn line(record: LogRecord, reading: &mut Reading) -> String {
    let exception =
        [attribute(&record.attributes, "exception.type"), attribute(&record.attributes, "exception.message")];
    let exception = exception.into_iter().flatten().collect::<Vec<_>>().join(": ");
    let severity = if record.severity_text.is_empty() { named(record.severity_number) } else { record.severity_text };
    let body = record.body.as_ref().map(text).unwrap_or_default();
    let parts = [severity, record.event_name, body, exception];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    reading.cut(parts.join(" "), LONGEST)
}

/// The name of a severity as far as its number has one; `INFO2` is `INFO`.
fn named(severity: i32) -> String {
    let names = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let place = usize::try_from(severity.saturating_sub(1)).ok().map(|place| place / 4);
    place.and_then(|place| names.get(place)).copied().unwrap_or_default().to_owned()
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref().map(text)
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn severities_have_names() {
        assert_eq!([1, 4, 5, 9, 13, 17, 24].map(named), ["TRACE", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]);
        assert_eq!([i32::MIN, -1, 0, 25, i32::MAX].map(named), [""; 5]);
    }
}
