//! The order of pictures.

use std::collections::{BTreeSet, HashMap, HashSet};

use opentelemetry::trace::TraceId;

use crate::trace::Trace;

/// Puts traces in the order of their start, but each one after those it is linked from.
///
/// Traces that are linked in a circle are ordered by their start.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use opentelemetry::trace::{SpanId, TraceId};
/// use throughline_waterfall::{Link, Span, Trace, in_order};
///
/// let start = SystemTime::UNIX_EPOCH;
/// let late = Span::new(TraceId::from(1), SpanId::from(1), "shop", "publish", start + Duration::from_secs(1), start);
/// let mut early = Span::new(TraceId::from(2), SpanId::from(2), "billing", "process", start, start);
/// early.links.push(Link { trace_id: TraceId::from(1), span_id: SpanId::from(1) });
///
/// let traces = [early, late].into_iter().filter_map(|span| Trace::new(vec![span], &[], false)).collect();
/// let ids: Vec<TraceId> = in_order(traces).iter().map(Trace::id).collect();
/// assert_eq!(ids, [TraceId::from(1), TraceId::from(2)]);
/// ```
pub fn in_order(mut traces: Vec<Trace>) -> Vec<Trace> {
    traces.sort_by_key(|trace| (trace.start(), trace.id().to_bytes()));
    let places: HashMap<TraceId, usize> = traces.iter().enumerate().map(|(place, trace)| (trace.id(), place)).collect();
    // How many others each one comes after, and which ones come after it.
    let mut before = vec![0_usize; traces.len()];
    let mut after = vec![Vec::new(); traces.len()];
    for (place, trace) in traces.iter().enumerate() {
        let linked: HashSet<usize> = trace.linked().iter().filter_map(|id| places.get(id).copied()).collect();
        for linked in linked.into_iter().filter(|&linked| linked != place) {
            before[place] += 1;
            after[linked].push(place);
        }
    }
    let mut waiting: BTreeSet<usize> = (0..traces.len()).collect();
    let mut free: BTreeSet<usize> = waiting.iter().copied().filter(|&place| before[place] == 0).collect();
    let mut traces: Vec<Option<Trace>> = traces.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(traces.len());
    while let Some(next) = free.pop_first().or_else(|| waiting.first().copied()) {
        waiting.remove(&next);
        ordered.extend(traces[next].take());
        for &place in &after[next] {
            before[place] -= 1;
            if before[place] == 0 && waiting.contains(&place) {
                free.insert(place);
            }
        }
    }
    ordered
}
