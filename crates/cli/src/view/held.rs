//! A trace that is not drawn yet.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use throughline_waterfall::{Remark, Span, Trace};

/// What a span or a record takes beside its texts and lists, in bytes; roughly. A trace of one has room for four.
const ITEM: usize = 1000;

/// What an entry of a list takes beside its texts.
const ENTRY: usize = 80;

/// What is known of a trace.
#[derive(Debug)]
pub(super) struct Held {
    spans: Vec<Span>,
    said: Vec<Said>,
    changed: Instant,
    pub(super) weight: usize,
    /// Whether nothing seems to be missing; `None` until somebody asks.
    complete: Option<bool>,
}

/// A log record of a span.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) trace: TraceId,
    pub(super) service: Arc<str>,
    /// Whether it is an error.
    pub(super) severe: bool,
    pub(super) remark: Remark,
}

/// A log record that stands alone.
#[derive(Clone, Debug)]
pub(super) struct Loose {
    pub(super) service: Arc<str>,
    /// Whether it is an error.
    pub(super) severe: bool,
    pub(super) text: String,
    /// Its trace, where its span is not in the picture.
    pub(super) trace: Option<TraceId>,
}

impl Held {
    pub(super) fn new() -> Self {
        Self { spans: Vec::new(), said: Vec::new(), changed: Instant::now(), weight: 0, complete: None }
    }

    pub(super) fn add_span(&mut self, span: Span) {
        self.weight += weight_of_span(&span);
        self.spans.push(span);
        self.changed();
    }

    pub(super) fn add_record(&mut self, said: Said) {
        self.weight += weight_of_record(&said);
        self.said.push(said);
        self.changed();
    }

    /// Whether it has been silent long enough: `quiet`, or `wait` where something seems to be missing. Of a trace that was there before,
    /// the beginning is not missing.
    pub(super) fn is_ready(&mut self, now: Instant, quiet: Duration, wait: Duration, was_there: bool) -> bool {
        let silent = now.saturating_duration_since(self.changed);
        silent >= wait || (silent >= quiet && (was_there || self.is_complete()))
    }

    /// Makes a picture of its spans, if there are any, and returns the records that have no place in it.
    pub(super) fn picture(mut self, continued: bool) -> (Option<Trace>, Vec<Loose>) {
        self.drop_repeated();
        let known: HashSet<SpanId> = self.spans.iter().map(|span| span.id).collect();
        let (inside, outside): (Vec<Said>, Vec<Said>) =
            self.said.into_iter().partition(|said| known.contains(&said.remark.span));
        let remarks: Vec<Remark> = inside.into_iter().map(|said| said.remark).collect();
        let others = outside.into_iter().map(|said| Loose {
            service: said.service,
            severe: said.severe,
            text: said.remark.text,
            trace: Some(said.trace),
        });
        (Trace::new(self.spans, &remarks, continued), others.collect())
    }

    fn changed(&mut self) {
        self.changed = Instant::now();
        self.complete = None;
    }

    /// Whether each span has its parent, and each published message what became of it.
    fn is_complete(&mut self) -> bool {
        let spans = &self.spans;
        *self.complete.get_or_insert_with(|| {
            let ids: HashSet<SpanId> = spans.iter().map(|span| span.id).collect();
            let parents: HashSet<SpanId> = spans.iter().map(|span| span.parent).collect();
            let has_parent = |span: &Span| span.parent == SpanId::INVALID || ids.contains(&span.parent);
            let is_followed = |span: &Span| span.kind != SpanKind::Producer || parents.contains(&span.id);
            !spans.is_empty() && spans.iter().all(|span| has_parent(span) && is_followed(span))
        })
    }

    /// An exporter sends again what it is not sure of.
    fn drop_repeated(&mut self) {
        let mut known = HashSet::new();
        self.spans.retain(|span| known.insert((span.id, span.parent, span.service.clone(), span.start, span.end)));
    }
}

/// What a span takes, in bytes; roughly.
pub(super) fn weight_of_span(span: &Span) -> usize {
    let attributes = span.attributes.iter().map(|attribute| {
        let value = if let opentelemetry::Value::String(text) = &attribute.value { text.as_str().len() } else { 0 };
        ENTRY + attribute.key.as_str().len() + value
    });
    let baggage = span.baggage.iter().map(|(key, value)| ENTRY + key.len() + value.len());
    let events = span.events.iter().map(|event| ENTRY + event.name.len());
    ITEM + span.name.len() + ENTRY * span.links.len() + attributes.chain(baggage).chain(events).sum::<usize>()
}

/// What a record takes, in bytes; roughly.
pub(super) fn weight_of_record(said: &Said) -> usize {
    ITEM + said.remark.text.len()
}
