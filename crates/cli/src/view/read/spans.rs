//! Spans.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1 as otlp;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use throughline_waterfall::{Event, Link, Span};

use super::value::{LONGEST, attributes};
use super::{NAME, Reading, Sender, span_id, trace_id};

/// How many links a span has at most: as many as `throughline-export` keeps.
const LINKS: usize = 1024;

/// How many events a span has at most. The SDKs keep as many by default.
const EVENTS: usize = 128;

/// What stands before a key of baggage, where somebody writes it so.
const BAGGAGE: &str = "baggage.";

/// Reads spans; those whose ids are not as OTLP says are refused. Attributes with a key of `baggage` are the span's baggage.
pub(in super::super) fn spans(
    request: ExportTraceServiceRequest,
    baggage: &[String],
    reading: &mut Reading,
) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let sender = reading.sender(resource.resource);
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            match span_of(span, &sender, baggage, reading) {
                Ok(span) => spans.push(span),
                Err(reason) => reading.refuse(reason),
            }
        }
    }
    spans
}

fn span_of(span: otlp::Span, sender: &Sender, baggage: &[String], reading: &mut Reading) -> Result<Span, String> {
    let wrong = |what: &str, bytes: &[u8], right: usize| {
        format!("a {what} has {right} bytes that are not all zero; one has {} bytes", bytes.len())
    };
    let trace = trace_id(&span.trace_id).ok_or_else(|| wrong("trace_id", &span.trace_id, 16))?;
    let id = span_id(&span.span_id).ok_or_else(|| wrong("span_id", &span.span_id, 8))?;
    let parent = match &span.parent_span_id[..] {
        // Some write zeros where there is none.
        [] | [0, 0, 0, 0, 0, 0, 0, 0] => SpanId::INVALID,
        bytes => span_id(bytes).ok_or_else(|| wrong("parent_span_id", bytes, 8))?,
    };
    let kind = kind(span.kind());
    let end = time(span.end_time_unix_nano);
    let start = if span.start_time_unix_nano == 0 { end } else { time(span.start_time_unix_nano) };
    let mut read = Span::new(trace, id, sender.service.clone(), reading.cut(span.name, NAME), start, end);
    (read.parent, read.kind) = (parent, kind);
    read.status = match span.status {
        Some(status) if status.code == StatusCode::Error as i32 => Status::error(reading.cut(status.message, LONGEST)),
        Some(status) if status.code == StatusCode::Ok as i32 => Status::Ok,
        _ => Status::Unset,
    };
    let links = reading.first(span.links, LINKS).into_iter();
    read.links = links
        .filter_map(|link| Some((trace_id(&link.trace_id)?, span_id(&link.span_id)?)))
        .map(|(trace_id, span_id)| Link { trace_id, span_id })
        .collect();
    let events = reading.first(span.events, EVENTS).into_iter();
    read.events = events
        .map(|event| Event { time: time(event.time_unix_nano), name: reading.cut(event.name, NAME).into() })
        .collect();
    for attribute in attributes(span.attributes, reading) {
        let key = attribute.key.as_str();
        let prefixed = key.strip_prefix(BAGGAGE);
        match prefixed.or_else(|| baggage.iter().any(|listed| listed == key).then_some(key)) {
            Some(key) => read.baggage.push((key.to_owned(), attribute.value.to_string())),
            None => read.attributes.push(attribute),
        }
    }
    Ok(read)
}

fn kind(kind: Kind) -> SpanKind {
    match kind {
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
        Kind::Internal | Kind::Unspecified => SpanKind::Internal,
    }
}

pub(super) fn time(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}
