use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, Span, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue, SpanId, TraceId};
use opentelemetry_sdk::trace::SdkTracer;

use super::{attributes, unindented};
use crate::capture::Capture;

fn tracer(capture: &Capture) -> SdkTracer {
    capture.tracer_provider().tracer("test")
}

/// A span that started `at` milliseconds into the test and ended at once.
fn span(tracer: &SdkTracer, name: &'static str, at: u64, parent: &Context, links: Vec<Link>) -> Context {
    let start = SystemTime::UNIX_EPOCH + Duration::from_millis(at);
    let builder = tracer.span_builder(name).with_start_time(start).with_links(links);
    let context = parent.with_span(builder.start_with_context(tracer, parent));
    context.span().end_with_timestamp(start);
    context
}

fn link(context: &Context) -> Link {
    Link::with_context(context.span().span_context().clone())
}

#[test]
fn children_stand_in_the_order_of_their_start() {
    let (capture, root) = (Capture::new(), Context::new());
    let tracer = tracer(&capture);
    let publish = span(&tracer, "publish orders.placed", 0, &root, vec![]);
    span(&tracer, "process by billing", 20, &publish, vec![]);
    let stock = span(&tracer, "process by stock", 10, &publish, vec![]);
    span(&tracer, "publish stock.reserved", 12, &stock, vec![]);

    capture.tree().assert_tree(
        "
        publish orders.placed
        ├─ process by stock
        │  └─ publish stock.reserved
        └─ process by billing
    ",
    );
}

#[test]
fn a_link_to_another_trace_is_written_down_and_one_to_the_parent_is_not() {
    let (capture, root) = (Capture::new(), Context::new());
    let tracer = tracer(&capture);
    let first = span(&tracer, "publish first", 0, &root, vec![]);
    let second = span(&tracer, "publish second", 10, &root, vec![]);
    span(&tracer, "process first", 20, &first, vec![link(&first)]);
    span(&tracer, "process batch", 30, &root, vec![link(&first), link(&second)]);

    capture.tree().assert_tree(
        "
        publish first
        └─ process first

        publish second

        process batch ~ linked from publish first, publish second
        ",
    );
}

#[test]
fn what_was_not_captured_is_marked() {
    let capture = Capture::new();
    let remote = SpanContext::new(TraceId::from(7), SpanId::from(8), TraceFlags::SAMPLED, true, Default::default());
    let parent = Context::new().with_remote_span_context(remote.clone());
    let other = SpanContext::new(TraceId::from(9), SpanId::from(8), TraceFlags::SAMPLED, true, Default::default());
    span(&tracer(&capture), "process orders", 0, &parent, vec![Link::with_context(remote), Link::with_context(other)]);

    capture.tree().assert_tree("process orders ~ parent not captured ~ linked from (not captured)");
}

#[test]
fn two_roots_of_one_trace_are_not_two_traces() {
    let capture = Capture::new();
    let remote = SpanContext::new(TraceId::from(7), SpanId::from(8), TraceFlags::SAMPLED, true, Default::default());
    let parent = Context::new().with_remote_span_context(remote);
    span(&tracer(&capture), "a", 0, &parent, vec![]);
    span(&tracer(&capture), "b", 1, &parent, vec![]);

    let picture = capture.tree().to_string();
    assert_eq!(picture, "a ~ parent not captured\nb ~ parent not captured\n");
    assert_eq!(capture.tree().traces(), [TraceId::from(7)]);
}

#[test]
fn a_failed_assertion_shows_both_trees_and_the_details() {
    let capture = Capture::new();
    let mut failed = tracer(&capture)
        .span_builder("process orders")
        .with_kind(SpanKind::Consumer)
        .with_attributes([KeyValue::new("error.type", "timeout")])
        .start(&tracer(&capture));
    failed.set_status(Status::error("too slow"));
    failed.end();
    let tree = capture.tree();

    let failure = std::panic::catch_unwind(|| tree.assert_tree("publish orders")).unwrap_err();
    let message = failure.downcast_ref::<String>().unwrap();
    assert_eq!(
        message,
        "the spans form another tree\n\nexpected:\npublish orders\n\nfound:\nprocess orders\n\nin detail:\nT1
  S1 process orders
    kind: consumer
    scope: test
    status: error \"too slow\"
    attribute: error.type = \"timeout\"
"
    );
}

#[test]
#[should_panic(expected = "no span is called \"b\"; there are:\n  a (Internal)\n")]
fn looking_for_what_is_not_there_lists_what_is() {
    let capture = Capture::new();
    tracer(&capture).in_span("a", |_| ());
    capture.tree().find("b");
}

#[test]
#[should_panic(expected = "2 spans are called \"a\", use find_all")]
fn an_ambiguous_name_is_refused() {
    let capture = Capture::new();
    tracer(&capture).in_span("a", |_| ());
    tracer(&capture).in_span("a", |_| ());
    capture.tree().find("a");
}

// GEN-06.
#[test]
#[should_panic(expected = "attribute k is there twice")]
fn a_doubled_attribute_is_refused() {
    attributes(&[KeyValue::new("k", 1), KeyValue::new("k", 2)]);
}

#[test]
fn indentation_and_outer_lines_do_not_count() {
    assert_eq!(unindented("\n    a\n    └─ b  \n\n    c\n  "), "a\n└─ b\n\nc");
    assert_eq!(unindented(""), "");
}
