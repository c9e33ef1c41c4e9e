//! A trace as a line of JSON.

use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::Value;
use opentelemetry::trace::{SpanId, SpanKind};
use serde_json::{Map, Value as Json, json};
use throughline_waterfall::{Row, Trace, is_harmful};

/// Returns the line. What could steer a terminal is escaped, too.
pub(super) fn line(trace: &Trace) -> String {
    let services: std::collections::BTreeSet<&str> = trace.rows().iter().map(|row| &*row.span.service).collect();
    let baggage: Map<String, Json> =
        trace.baggage().iter().map(|(key, value)| (key.clone(), Json::from(value.as_str()))).collect();
    let start = trace.start().duration_since(UNIX_EPOCH).unwrap_or_default();
    let object = json!({
        "trace_id": trace.id().to_string(),
        "continued": trace.is_continued(),
        // As text: it has more digits than a number of JavaScript.
        "start_unix_nano": start.as_nanos().to_string(),
        "duration_ms": millis(trace.length()),
        "services": services,
        "errors": trace.errors(),
        "linked_from": trace.linked().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "baggage": baggage,
        "spans": trace.rows().iter().map(span).collect::<Vec<_>>(),
    });
    let mut line = String::new();
    for character in object.to_string().chars() {
        if is_harmful(character) {
            line.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    line
}

fn span(row: &Row) -> Json {
    let span = &row.span;
    let attributes: Map<String, Json> =
        span.attributes.iter().map(|attribute| (attribute.key.to_string(), value(&attribute.value))).collect();
    let link = |link: &throughline_waterfall::Link| json!({"trace_id": link.trace_id.to_string(), "span_id": link.span_id.to_string()});
    json!({
        "span_id": span.id.to_string(),
        "parent_span_id": (span.parent != SpanId::INVALID).then(|| span.parent.to_string()),
        "service": &*span.service,
        "name": &*span.name,
        "kind": kind(&span.kind),
        "offset_ms": millis(row.offset),
        "duration_ms": millis(span.duration()),
        "queued_ms": row.queued.map(millis),
        "error": span.error(),
        "attributes": attributes,
        "links": span.links.iter().map(link).collect::<Vec<_>>(),
        "said": row.remarks,
    })
}

fn kind(kind: &SpanKind) -> &'static str {
    match kind {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
    }
}

fn value(value: &Value) -> Json {
    match value {
        Value::Bool(truth) => Json::from(*truth),
        Value::I64(number) => Json::from(*number),
        Value::F64(number) => Json::from(*number),
        other => Json::from(other.to_string()),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}
