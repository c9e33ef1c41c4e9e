//! Every detail of the spans as text, without what differs between two runs.

use std::collections::HashMap;
use std::fmt::Write;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceId};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

use crate::tree::TraceTree;

#[cfg(test)]
mod tests;

impl TraceTree {
    /// Returns every detail of the spans as text that is the same in each run.
    ///
    /// Trace ids become `T1`, `T2`, span ids `S1`, `S2`, in the order of their first appearance; times are left out;
    /// attributes are sorted. Name, kind, scope, status, parent, links, events and attributes are all there, so it
    /// serves as the content of a snapshot test.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    /// use opentelemetry::KeyValue;
    ///
    /// let capture = throughline_testing::Capture::new();
    /// let tracer = capture.tracer_provider().tracer("shop");
    /// let span = tracer.span_builder("checkout").with_attributes([KeyValue::new("items", 3)]);
    /// drop(span.start(&tracer));
    ///
    /// assert_eq!(capture.tree().snapshot(), r#"T1
    ///   S1 checkout
    ///     kind: internal
    ///     scope: shop
    ///     attribute: items = 3
    /// "#);
    /// ```
    pub fn snapshot(&self) -> String {
        let rows = self.rows();
        let mut ids = Ids::default();
        for row in rows.iter().flatten() {
            ids.trace(row.span.span_context.trace_id());
            ids.span(&row.span.span_context);
        }
        let mut text = String::new();
        for rows in rows {
            if let Some(first) = rows.first() {
                text.push_str(&ids.trace(first.span.span_context.trace_id()));
                text.push('\n');
            }
            for row in rows {
                let indent = "  ".repeat(row.depth + 1);
                let _ = writeln!(text, "{indent}{} {}", ids.span(&row.span.span_context), row.span.name);
                for line in details(row.span, &mut ids) {
                    let _ = writeln!(text, "{indent}  {line}");
                }
            }
        }
        text
    }
}

/// The names that ids have in the text.
#[derive(Default)]
struct Ids {
    traces: HashMap<TraceId, usize>,
    spans: HashMap<(TraceId, SpanId), usize>,
}

impl Ids {
    fn trace(&mut self, id: TraceId) -> String {
        let next = self.traces.len() + 1;
        format!("T{}", self.traces.entry(id).or_insert(next))
    }

    fn span(&mut self, context: &SpanContext) -> String {
        self.span_of(context.trace_id(), context.span_id())
    }

    fn span_of(&mut self, trace: TraceId, span: SpanId) -> String {
        let next = self.spans.len() + 1;
        format!("S{}", self.spans.entry((trace, span)).or_insert(next))
    }
}

fn details(span: &SpanData, ids: &mut Ids) -> Vec<String> {
    let mut lines = vec![format!("kind: {}", kind(&span.span_kind)), format!("scope: {}", scope(span))];
    lines.extend(parent(span, ids));
    let state = span.span_context.trace_state().header();
    lines.extend((!state.is_empty()).then(|| format!("trace state: {state}")));
    lines.extend(status(span));
    lines.extend(sorted(&span.attributes).iter().map(|attribute| format!("attribute: {attribute}")));
    for link in span.links.iter() {
        let (trace, target) = (ids.trace(link.span_context.trace_id()), ids.span(&link.span_context));
        lines.push(format!("link: {trace}/{target}{}", braced(&link.attributes)));
    }
    for event in span.events.iter() {
        lines.push(format!("event: {}{}", event.name, braced(&event.attributes)));
    }
    lines.extend(dropped(span));
    lines
}

fn parent(span: &SpanData, ids: &mut Ids) -> Option<String> {
    if span.parent_span_id == SpanId::INVALID {
        return None;
    }
    let parent = ids.span_of(span.span_context.trace_id(), span.parent_span_id);
    Some(format!("parent: {parent}{}", if span.parent_span_is_remote { " (remote)" } else { "" }))
}

fn status(span: &SpanData) -> Option<String> {
    match &span.status {
        Status::Unset => None,
        Status::Ok => Some("status: ok".to_owned()),
        Status::Error { description } if description.is_empty() => Some("status: error".to_owned()),
        Status::Error { description } => Some(format!("status: error {:?}", description.as_ref())),
    }
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

/// The name of the scope only: its version changes with each release.
fn scope(span: &SpanData) -> String {
    let scope = &span.instrumentation_scope;
    match scope.schema_url() {
        Some(schema) => format!("{} ({schema})", scope.name()),
        None => scope.name().to_owned(),
    }
}

fn sorted(attributes: &[KeyValue]) -> Vec<String> {
    let mut lines: Vec<String> =
        attributes.iter().map(|attribute| format!("{} = {}", attribute.key, value(&attribute.value))).collect();
    lines.sort();
    lines
}

fn value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.as_str()),
        other => other.to_string(),
    }
}

fn braced(attributes: &[KeyValue]) -> String {
    if attributes.is_empty() {
        return String::new();
    }
    format!(" {{{}}}", sorted(attributes).join(", "))
}

/// What the limits of the SDK cut off.
fn dropped(span: &SpanData) -> Option<String> {
    let counts = [
        (span.dropped_attributes_count, "attributes"),
        (span.events.dropped_count, "events"),
        (span.links.dropped_count, "links"),
    ];
    let lost: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    (!lost.is_empty()).then(|| format!("dropped: {}", lost.join(", ")))
}
