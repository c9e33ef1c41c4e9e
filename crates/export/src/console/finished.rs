//! A span of the SDK as it is drawn.

use std::sync::Arc;

use opentelemetry_sdk::trace::SpanData;
use throughline_waterfall::{Event, Link, Span};

/// Takes what is drawn out of `data`: `order` is the span's place in the order in which spans were started, `baggage` what its parent
/// context carried.
pub(super) fn span(data: SpanData, service: Arc<str>, order: u64, baggage: Vec<(String, String)>) -> Span {
    let context = &data.span_context;
    let mut span = Span::new(context.trace_id(), context.span_id(), service, data.name, data.start_time, data.end_time);
    span.parent = data.parent_span_id;
    span.kind = data.span_kind;
    span.order = order;
    span.attributes = data.attributes;
    span.status = data.status;
    let linked = data.links.iter().map(|link| &link.span_context);
    span.links = linked.map(|linked| Link { trace_id: linked.trace_id(), span_id: linked.span_id() }).collect();
    span.events = data.events.iter().map(|event| Event { time: event.timestamp, name: event.name.clone() }).collect();
    span.baggage = baggage;
    span
}
