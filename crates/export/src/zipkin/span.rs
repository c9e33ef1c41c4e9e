//! A span in Zipkin's format.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;
use serde::Serialize;

/// A span as Zipkin's API takes it, version 2.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ZipkinSpan<'a> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// Microseconds since 1970.
    timestamp: u64,
    /// Microseconds, from one on.
    duration: u64,
    local_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_endpoint: Option<RemoteEndpoint>,
    annotations: Vec<Annotation<'a>>,
    tags: BTreeMap<&'a str, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    service_name: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RemoteEndpoint {
    service_name: String,
}

/// An event of the span.
#[derive(Debug, Serialize)]
struct Annotation<'a> {
    timestamp: u64,
    value: &'a str,
}

impl<'a> ZipkinSpan<'a> {
    pub(super) fn new(service_name: &'a str, span: &'a SpanData) -> Self {
        let duration = span.end_time.duration_since(span.start_time).unwrap_or_default();
        Self {
            trace_id: span.span_context.trace_id().to_string(),
            id: span.span_context.span_id().to_string(),
            parent_id: (span.parent_span_id != SpanId::INVALID).then(|| span.parent_span_id.to_string()),
            name: &span.name,
            kind: kind(&span.span_kind),
            timestamp: micros(span.start_time),
            // Zipkin takes zero for unknown.
            duration: whole_micros(duration).max(1),
            local_endpoint: Endpoint { service_name },
            remote_endpoint: remote(span),
            annotations: annotations(span),
            tags: tags(span),
        }
    }
}

fn kind(kind: &SpanKind) -> Option<&'static str> {
    match kind {
        SpanKind::Client => Some("CLIENT"),
        SpanKind::Server => Some("SERVER"),
        SpanKind::Producer => Some("PRODUCER"),
        SpanKind::Consumer => Some("CONSUMER"),
        SpanKind::Internal => None,
    }
}

/// Who is at the other end, where the span says so.
fn remote(span: &SpanData) -> Option<RemoteEndpoint> {
    let said = |key: &str| span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    let name = said("peer.service").or_else(|| said("server.address"))?;
    Some(RemoteEndpoint { service_name: name.value.to_string() })
}

fn annotations(span: &SpanData) -> Vec<Annotation<'_>> {
    let events = span.events.iter();
    events.map(|event| Annotation { timestamp: micros(event.timestamp), value: &event.name }).collect()
}

fn tags(span: &SpanData) -> BTreeMap<&str, String> {
    // Zipkin takes a tag `error`, whatever its value, for a failure.
    let attributes = span.attributes.iter().filter(|attribute| attribute.key.as_str() != "error");
    let mut tags: BTreeMap<&str, String> =
        attributes.map(|attribute| (attribute.key.as_str(), attribute.value.to_string())).collect();
    tags.insert("otel.scope.name", span.instrumentation_scope.name().to_owned());
    if let Some(version) = span.instrumentation_scope.version() {
        tags.insert("otel.scope.version", version.to_owned());
    }
    match &span.status {
        Status::Unset => {}
        Status::Ok => {
            tags.insert("otel.status_code", "OK".to_owned());
        }
        Status::Error { description } => {
            tags.insert("otel.status_code", "ERROR".to_owned());
            tags.insert("error", description.to_string());
        }
    }
    tags
}

fn micros(time: SystemTime) -> u64 {
    whole_micros(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn whole_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
