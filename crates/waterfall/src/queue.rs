//! How long messages waited between their publisher and their handler.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use opentelemetry::Value;
use opentelemetry::trace::SpanKind;

use crate::family::Family;
use crate::span::Span;

/// Returns for each span how long its message waited, `None` for one that processes none that was published in this trace.
///
/// A message waits from the end of the span that published it, which is its parent. One that was forwarded since, such as a dead letter,
/// still has that parent: it waits from the end of the last span that published to the destination it comes from. One that is delivered again
/// waits from the end of the delivery before. `spans` are in the order of their start.
pub(crate) fn queued(spans: &[Span], family: &Family) -> Vec<Option<Duration>> {
    let mut last: HashMap<&str, usize> = HashMap::new();
    let mut since: HashMap<(usize, &str, &str), SystemTime> = HashMap::new();
    let mut queued = vec![None; spans.len()];
    for (index, span) in spans.iter().enumerate() {
        if is_publish(span) {
            last.extend(destination(span).map(|destination| (destination, index)));
        }
        let parent = family.parent(index).filter(|&parent| spans[parent].kind == SpanKind::Producer);
        let Some(parent) = parent.filter(|_| span.kind == SpanKind::Consumer) else { continue };
        let forwarded =
            destination(span).filter(|&name| destination(&spans[parent]).is_some_and(|first| first != name));
        let publish = forwarded.and_then(|name| last.get(name).copied()).unwrap_or(parent);
        let since = since.entry((publish, &span.service, &span.name)).or_insert(spans[publish].end);
        queued[index] = span.start.duration_since(*since).ok();
        *since = span.end.max(*since);
    }
    queued
}

/// Whether it published. What only passes a message on, with the context it had, is a client.
fn is_publish(span: &Span) -> bool {
    span.kind == SpanKind::Producer
        || (span.kind == SpanKind::Client && text(span, "messaging.operation.type") == Some("send"))
}

fn destination(span: &Span) -> Option<&str> {
    text(span, "messaging.destination.name")
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key.as_str() == key)?;
    if let Value::String(text) = &attribute.value { Some(text.as_str()) } else { None }
}
