//! What a picture of one trace contains, worked out from its spans.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, TraceId};

use crate::family::Family;
use crate::queue::queued;
use crate::span::{Remark, Span};
use crate::style::clean;

/// How many values of a key of baggage are shown at most. The line ends before.
const VALUES: usize = 32;

/// The content of one picture.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use opentelemetry::trace::{SpanId, TraceId};
/// use throughline_waterfall::{Span, Trace};
///
/// let (id, start) = (TraceId::from(7), SystemTime::UNIX_EPOCH);
/// let publish = Span::new(id, SpanId::from(1), "shop", "publish orders", start, start + Duration::from_millis(2));
/// let mut process = Span::new(id, SpanId::from(2), "stock", "process orders", start, start + Duration::from_millis(9));
/// process.parent = publish.id;
///
/// let trace = Trace::new(vec![process, publish], &[], false).ok_or("no spans")?;
/// assert_eq!((trace.rows().len(), trace.services(), trace.errors()), (2, 2, 0));
/// assert_eq!(trace.length(), Duration::from_millis(9));
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug)]
pub struct Trace {
    id: TraceId,
    continued: bool,
    rows: Vec<Row>,
    start: SystemTime,
    length: Duration,
    linked: Vec<TraceId>,
    baggage: Vec<(String, String)>,
}

/// One span of a picture.
#[derive(Debug)]
#[non_exhaustive]
pub struct Row {
    /// The span.
    pub span: Span,
    /// When the span started, counted from the start of the trace.
    pub offset: Duration,
    /// How long the message that the span processes waited, where the span that published it is in the picture.
    pub queued: Option<Duration>,
    /// What its log records and events say, in the order of time.
    pub remarks: Vec<String>,
    /// The lines and corners to the left of the name.
    pub(crate) branch: String,
    /// The lines to the left of what stands below the name.
    pub(crate) below: String,
}

impl Trace {
    /// Works out the picture of `spans`, which belong to one trace; returns `None` if there are none.
    ///
    /// `remarks` of other spans are left out. `continued` says that an earlier picture showed the beginning.
    pub fn new(mut spans: Vec<Span>, remarks: &[Remark], continued: bool) -> Option<Self> {
        spans.sort_by_key(|span| (span.start, span.order));
        let first = spans.first()?;
        let (id, start) = (first.trace_id, first.start);
        let end = spans.iter().map(|span| span.end).max()?;
        let length = since(start, end);
        let (linked, baggage) = (linked(id, &spans), baggage(&spans));
        let rows = rows(spans, remarks, start);
        Some(Self { id, continued, rows, start, length, linked, baggage })
    }

    /// Returns its id.
    pub fn id(&self) -> TraceId {
        self.id
    }

    /// Returns whether an earlier picture showed the beginning.
    pub fn is_continued(&self) -> bool {
        self.continued
    }

    /// Returns its spans in the order of the picture, each after its parent.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns when its first span started.
    pub fn start(&self) -> SystemTime {
        self.start
    }

    /// Returns the time from the start of its first span to the end of its last one.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Returns the other traces that its spans are linked from, in the order of the links.
    pub fn linked(&self) -> &[TraceId] {
        &self.linked
    }

    /// Returns the baggage of all spans. Several values of a key are joined by `|`.
    pub fn baggage(&self) -> &[(String, String)] {
        &self.baggage
    }

    /// Returns how many services took part.
    pub fn services(&self) -> usize {
        self.rows.iter().map(|row| &row.span.service).collect::<BTreeSet<_>>().len()
    }

    /// Returns how many spans failed.
    pub fn errors(&self) -> usize {
        self.rows.iter().filter(|row| row.span.error().is_some()).count()
    }
}

fn rows(spans: Vec<Span>, remarks: &[Remark], start: SystemTime) -> Vec<Row> {
    let family = Family::new(&spans);
    let places = family.places(&spans);
    let queued = queued(&spans, &family);
    let mut said: HashMap<SpanId, Vec<&Remark>> = HashMap::new();
    for remark in remarks {
        said.entry(remark.span).or_default().push(remark);
    }
    let mut spans: Vec<Option<Span>> = spans.into_iter().map(Some).collect();
    let mut rows = Vec::with_capacity(spans.len());
    for place in places {
        // Each span has one place.
        let Some(span) = spans[place.span].take() else { continue };
        let remarks = told(&span, said.remove(&span.id).unwrap_or_default());
        let (offset, queued) = (since(start, span.start), queued[place.span]);
        rows.push(Row { span, offset, queued, remarks, branch: place.branch, below: place.below });
    }
    rows
}

pub(crate) fn since(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

fn linked(id: TraceId, spans: &[Span]) -> Vec<TraceId> {
    let others = spans.iter().flat_map(|span| &span.links).map(|link| link.trace_id);
    let mut known = HashSet::from([id, TraceId::INVALID]);
    others.filter(|other| known.insert(*other)).collect()
}

fn baggage(spans: &[Span]) -> Vec<(String, String)> {
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, value) in spans.iter().flat_map(|span| &span.baggage) {
        let known = values.entry(key).or_default();
        if known.len() < VALUES && !known.contains(&value.as_str()) {
            known.push(value);
        }
    }
    values.into_iter().map(|(key, values)| (clean(key), clean(&values.join("|")))).collect()
}

/// Events and log records of a span in the order of time. Its error is shown already: no exception repeats it.
fn told(span: &Span, remarks: Vec<&Remark>) -> Vec<String> {
    let failed = span.error().is_some();
    let events = span.events.iter().map(|event| (event.time, event.name.as_ref(), event.name == "exception"));
    let said = remarks.iter().map(|remark| (remark.time, remark.text.as_str(), remark.exception));
    let mut told: Vec<(SystemTime, &str, bool)> = said.chain(events).filter(|told| !(failed && told.2)).collect();
    told.sort_by_key(|told| told.0);
    told.into_iter().map(|told| clean(told.1)).collect()
}
