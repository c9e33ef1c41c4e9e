//! What both users of the drawing get. The text is the behaviour, so whole pictures are compared.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use throughline_waterfall::{Link, Screen, Span, Trace, in_order};

fn span(id: u64, parent: u64, kind: SpanKind, name: &'static str, from: u64, to: u64) -> Span {
    let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let mut span = Span::new(TraceId::from(0xabcdef01_u128 << 96), SpanId::from(id), "shop", name, at(from), at(to));
    (span.parent, span.kind) = (SpanId::from(parent), kind);
    span
}

fn draw(spans: Vec<Span>, width: usize) -> String {
    let screen = Screen::new(Box::new(Vec::new()), false, width);
    Trace::new(spans, &[], false).unwrap().draw(&screen)
}

fn publish() -> Span {
    span(1, 0, SpanKind::Producer, "publish orders", 0, 10)
}

#[test]
fn the_time_in_a_queue_is_a_gap_with_its_length() {
    let mut process = span(2, 1, SpanKind::Consumer, "process orders", 40, 100);
    process.attributes.push(KeyValue::new("items", 3));
    assert_eq!(
        draw(vec![publish(), process], 100),
        "\
trace abcdef01  2 spans  1 service  100.0 ms                          0 ms           50
shop publish orders                                          10.0 ms  ███
shop └─ process orders  items=3             queued 30.0 ms   60.0 ms     ░░░░░░░░███████████████████

"
    );
}

#[test]
fn a_message_that_comes_again_waited_since_the_time_before() {
    let spans = vec![
        publish(),
        span(2, 1, SpanKind::Consumer, "process orders", 20, 50),
        span(3, 1, SpanKind::Consumer, "process orders", 80, 100),
        span(4, 1, SpanKind::Consumer, "process the same elsewhere", 70, 100),
    ];
    let trace = Trace::new(spans, &[], false).unwrap();
    let queued: Vec<_> =
        trace.rows().iter().map(|row| (row.span.id, row.queued.map(|time| time.as_millis()))).collect();
    assert_eq!(
        queued,
        [1, 2, 4, 3].map(SpanId::from).into_iter().zip([None, Some(10), Some(60), Some(30)]).collect::<Vec<_>>()
    );
}

#[test]
fn a_dead_letter_waited_since_it_was_forwarded() {
    let to = |mut span: Span, destination: &'static str| {
        span.attributes.push(KeyValue::new("messaging.destination.name", destination));
        span
    };
    // It has the context that the message had, so it is a client.
    let mut forward = to(span(3, 2, SpanKind::Client, "publish orders.dead", 40, 45), "orders.dead");
    forward.attributes.push(KeyValue::new("messaging.operation.type", "send"));
    let spans = vec![
        to(publish(), "orders"),
        to(span(2, 1, SpanKind::Consumer, "process orders", 20, 50), "orders"),
        forward,
        to(span(4, 1, SpanKind::Consumer, "process orders.dead", 60, 70), "orders.dead"),
        // The consumer names more than the publisher, as on RabbitMQ.
        to(span(5, 1, SpanKind::Consumer, "process orders:stock", 60, 70), "orders:stock"),
    ];
    let trace = Trace::new(spans, &[], false).unwrap();
    let queued = |id| trace.rows().iter().find(|row| row.span.id == SpanId::from(id)).unwrap().queued;
    assert_eq!([2, 4, 5].map(queued), [10, 15, 50].map(|millis| Some(Duration::from_millis(millis))));
}

#[test]
fn only_what_was_published_waits_in_a_queue() {
    for (parent, child) in [
        (SpanKind::Client, SpanKind::Consumer),
        (SpanKind::Producer, SpanKind::Internal),
        (SpanKind::Internal, SpanKind::Internal),
    ] {
        let spans = vec![span(1, 0, parent, "first", 0, 10), span(2, 1, child, "second", 40, 100)];
        assert!(!draw(spans, 100).contains("queued"));
    }
}

#[test]
fn a_handler_that_begins_before_the_publish_is_confirmed_did_not_wait() {
    let picture = draw(vec![publish(), span(2, 1, SpanKind::Consumer, "process orders", 5, 100)], 100);
    assert!(!picture.contains("queued") && !picture.contains('░'), "{picture}");
}

#[test]
fn a_gap_that_would_be_too_narrow_to_see_is_not_drawn() {
    let trace = vec![publish(), span(2, 1, SpanKind::Consumer, "process orders", 12, 100)];
    let picture = draw(trace, 100);
    assert!(!picture.contains("queued") && !picture.contains('░'), "{picture}");
}

#[test]
fn the_time_in_a_queue_goes_below_where_there_is_no_room_beside_the_name() {
    let mut process = span(2, 1, SpanKind::Consumer, "process orders", 40, 100);
    process.attributes.push(KeyValue::new("items", 3));
    let picture = draw(vec![publish(), process], 60);
    assert!(picture.contains("\n          queued 30.0 ms items=3\n"), "{picture}");
    for width in 40..=120 {
        let mut process = span(2, 1, SpanKind::Consumer, "process orders", 40, 100);
        process.attributes.push(KeyValue::new("items", "x".repeat(width / 4)));
        for line in draw(vec![publish(), process], width).lines() {
            assert!(line.chars().count() <= width, "wider than {width}: {line}");
        }
    }
}

#[test]
fn a_deep_span_keeps_its_name() {
    for width in [80, 100, 140] {
        let spans = (1..=80).map(|id| span(id, id - 1, SpanKind::Internal, "descend", id, 100)).collect();
        let picture = draw(spans, width);
        assert_eq!(picture.matches("descend").count(), 80, "{picture}");
    }
}

#[test]
fn traces_that_are_linked_in_a_circle_are_ordered_by_their_start() {
    let traces = (1..=4_u64).map(|id| {
        let mut span = span(id, 0, SpanKind::Internal, "work", id, 100);
        span.trace_id = TraceId::from(u128::from(id));
        let linked = if id == 4 { 3 } else { id % 3 + 1 };
        span.links.push(Link { trace_id: TraceId::from(u128::from(linked)), span_id: SpanId::from(1) });
        Trace::new(vec![span], &[], false).unwrap()
    });
    let ids: Vec<TraceId> = in_order(traces.rev().collect()).iter().map(Trace::id).collect();
    assert_eq!(ids, [1, 3, 2, 4].map(TraceId::from));
}

#[test]
fn many_traces_are_ordered_in_time() {
    let traces = (1..=20_000_u64).map(|id| {
        let mut span = span(id, 0, SpanKind::Internal, "work", id, 100_000);
        span.trace_id = TraceId::from(u128::from(id));
        span.links.push(Link { trace_id: TraceId::from(u128::from(id + 1)), span_id: SpanId::from(1) });
        Trace::new(vec![span], &[], false).unwrap()
    });
    let ordered = in_order(traces.collect());
    assert_eq!(ordered.first().map(Trace::id), Some(TraceId::from(20_000)));
    assert_eq!(ordered.len(), 20_000);
}
