//! What a picture of one trace contains, worked out from its spans.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, Status, TraceId};
use opentelemetry_sdk::trace::SpanData;

use super::style::clean;

/// Attributes that the picture shows in another way, or that say nothing to somebody who wrote the program.
const PLUMBING: [&str; 12] = [
    "busy_ns",
    "code.",
    "error.type",
    "exception.",
    "idle_ns",
    "level",
    "messaging.",
    "network.",
    "otel.",
    "server.",
    "target",
    "thread.",
];

/// A finished span, with what is not in its data.
#[derive(Debug)]
pub(super) struct Finished {
    /// Its place in the order in which spans were started.
    pub(super) order: u64,
    pub(super) service: Arc<str>,
    /// What its parent context carried.
    pub(super) baggage: Vec<(String, String)>,
    pub(super) data: SpanData,
}

/// A log record or span event, to be shown under its span.
#[derive(Clone, Debug)]
pub(super) struct Remark {
    pub(super) span: SpanId,
    pub(super) time: SystemTime,
    pub(super) text: String,
    /// Whether it tells of an exception.
    pub(super) exception: bool,
}

/// The content of one picture.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) id: TraceId,
    /// Whether an earlier picture showed the beginning.
    pub(super) continued: bool,
    pub(super) rows: Vec<Row>,
    pub(super) start: SystemTime,
    pub(super) length: Duration,
    /// Other traces that spans of this one are linked from, in the order of the links.
    pub(super) linked: Vec<TraceId>,
    /// Baggage of all spans; several values of a key are joined by `|`.
    pub(super) baggage: Vec<(String, String)>,
}

/// One span of the picture.
#[derive(Debug)]
pub(super) struct Row {
    /// The lines and corners to the left of the name.
    pub(super) branch: String,
    /// The lines to the left of what stands below the name.
    pub(super) below: String,
    pub(super) service: Arc<str>,
    pub(super) name: String,
    pub(super) notes: Vec<String>,
    pub(super) error: Option<String>,
    pub(super) remarks: Vec<String>,
    /// When the span started, counted from the start of the trace.
    pub(super) offset: Duration,
    pub(super) length: Duration,
}

impl Trace {
    /// Works out the picture of `spans`, which belong to one trace; `None` if there are none.
    pub(super) fn new(id: TraceId, continued: bool, mut spans: Vec<Finished>, remarks: &[Remark]) -> Option<Self> {
        spans.sort_by_key(|span| (span.data.start_time, span.order));
        let start = spans.first()?.data.start_time;
        let end = spans.iter().map(|span| span.data.end_time).max()?;
        let mut trace = Self {
            id,
            continued,
            rows: Vec::with_capacity(spans.len()),
            start,
            length: since(start, end),
            linked: linked(id, &spans),
            baggage: baggage(&spans),
        };
        let family = Family::new(&spans);
        for &root in &family.roots {
            let detached = spans[root].data.parent_span_id != SpanId::INVALID;
            let branch = if detached { "┄ " } else { "" };
            trace.push(&spans, &family, remarks, root, branch.to_owned(), "");
        }
        Some(trace)
    }

    /// How many services took part.
    pub(super) fn services(&self) -> usize {
        self.rows.iter().map(|row| &row.service).collect::<BTreeSet<_>>().len()
    }

    /// How many spans failed.
    pub(super) fn errors(&self) -> usize {
        self.rows.iter().filter(|row| row.error.is_some()).count()
    }

    fn push(
        &mut self,
        spans: &[Finished],
        family: &Family,
        remarks: &[Remark],
        index: usize,
        branch: String,
        indent: &str,
    ) {
        let span = &spans[index];
        let children = &family.children[index];
        let error = error(&span.data);
        self.rows.push(Row {
            below: format!("{indent}{}", if children.is_empty() { "  " } else { "│ " }),
            branch,
            service: span.service.clone(),
            name: clean(&span.data.name),
            notes: notes(&span.data),
            remarks: told(&span.data, remarks, error.is_some()),
            error,
            offset: since(self.start, span.data.start_time),
            length: since(span.data.start_time, span.data.end_time),
        });
        for (position, &child) in children.iter().enumerate() {
            let (corner, line) = if position + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.push(spans, family, remarks, child, format!("{indent}{corner}"), &format!("{indent}{line}"));
        }
    }
}

/// Who is whose child, as indices into the spans.
struct Family {
    roots: Vec<usize>,
    children: Vec<Vec<usize>>,
}

impl Family {
    fn new(spans: &[Finished]) -> Self {
        let known: HashMap<SpanId, usize> =
            spans.iter().enumerate().map(|(index, span)| (span.data.span_context.span_id(), index)).collect();
        let mut family = Self { roots: Vec::new(), children: vec![Vec::new(); spans.len()] };
        for (index, span) in spans.iter().enumerate() {
            match known.get(&span.data.parent_span_id) {
                Some(&parent) => family.children[parent].push(index),
                None => family.roots.push(index),
            }
        }
        family
    }
}

/// Puts traces in the order of their start, but each one after those it is linked from.
pub(super) fn in_order(mut traces: Vec<Trace>) -> Vec<Trace> {
    traces.sort_by_key(|trace| (trace.start, trace.id.to_bytes()));
    let mut ordered = Vec::with_capacity(traces.len());
    let mut waiting: Vec<Trace> = traces;
    while !waiting.is_empty() {
        let ids: HashSet<TraceId> = waiting.iter().map(|trace| trace.id).collect();
        let free = |trace: &Trace| trace.linked.iter().all(|linked| !ids.contains(linked));
        // Traces that are linked in a circle are drawn by their start.
        let next = waiting.iter().position(free).unwrap_or(0);
        ordered.push(waiting.remove(next));
    }
    ordered
}

fn since(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

fn linked(id: TraceId, spans: &[Finished]) -> Vec<TraceId> {
    let mut linked = Vec::new();
    for link in spans.iter().flat_map(|span| span.data.links.iter()) {
        let other = link.span_context.trace_id();
        if other != id && other != TraceId::INVALID && !linked.contains(&other) {
            linked.push(other);
        }
    }
    linked
}

fn baggage(spans: &[Finished]) -> Vec<(String, String)> {
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in spans.iter().flat_map(|span| &span.baggage) {
        let known = values.entry(key).or_default();
        if !known.contains(&value.as_str()) {
            known.push(value);
        }
    }
    values.into_iter().map(|(key, values)| (clean(key), clean(&values.join("|")))).collect()
}

/// The size of a batch, then the attributes of the user.
fn notes(span: &SpanData) -> Vec<String> {
    let batch = span.attributes.iter().filter(|attribute| attribute.key.as_str() == "messaging.batch.message_count");
    let own = span.attributes.iter().filter(|attribute| !is_plumbing(attribute.key.as_str()));
    let own = own.map(|attribute| {
        let key = attribute.key.as_str();
        clean(&format!("{}={}", key.strip_prefix("throughline.").unwrap_or(key), attribute.value))
    });
    batch.map(|attribute| format!("batch of {}", attribute.value)).chain(own).collect()
}

fn is_plumbing(key: &str) -> bool {
    PLUMBING.iter().any(|plumbing| if plumbing.ends_with('.') { key.starts_with(plumbing) } else { key == *plumbing })
}

/// What went wrong: the type, the description, or both.
fn error(span: &SpanData) -> Option<String> {
    let kind = span.attributes.iter().find(|attribute| attribute.key.as_str() == "error.type");
    let kind = kind.map(|attribute| attribute.value.to_string());
    let description = match &span.status {
        Status::Error { description } => Some(description.as_ref()),
        Status::Ok | Status::Unset => None,
    };
    let text = match (kind, description) {
        (None, None) => return None,
        (None, Some("")) => "error".to_owned(),
        (None, Some(description)) => description.to_owned(),
        (Some(kind), Some(description)) if !description.is_empty() && !description.starts_with(&kind) => {
            format!("{kind}: {description}")
        }
        (Some(_), Some(description)) if !description.is_empty() => description.to_owned(),
        (Some(kind), _) => kind,
    };
    Some(clean(&text))
}

/// Events and log records of a span in the order of time. Its error is shown already: no exception repeats it.
fn told(span: &SpanData, remarks: &[Remark], failed: bool) -> Vec<String> {
    let id = span.span_context.span_id();
    let events = span.events.iter().map(|event| {
        let exception = event.name == "exception";
        Remark { span: id, time: event.timestamp, text: event.name.to_string(), exception }
    });
    let mut told: Vec<Remark> = remarks.iter().filter(|remark| remark.span == id).cloned().chain(events).collect();
    told.retain(|remark| !(failed && remark.exception));
    told.sort_by_key(|remark| remark.time);
    told.into_iter().map(|remark| clean(&remark.text)).collect()
}
