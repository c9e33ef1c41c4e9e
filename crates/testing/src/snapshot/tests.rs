use opentelemetry::trace::{
    Link, Span, SpanContext, SpanKind, TraceContextExt, TraceFlags, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, SpanId, TraceId};

use crate::capture::Capture;

/// A consumer of a remote message that publishes another one.
fn story() -> Capture {
    let capture = Capture::new();
    let scope = InstrumentationScope::builder("shop").with_version("1.2.3").with_schema_url("https://schema/1.43.0");
    let tracer = capture.tracer_provider().tracer_with_scope(scope.build());
    let state = TraceState::from_key_value([("vendor", "1")]).unwrap();
    let remote = SpanContext::new(TraceId::from(7), SpanId::from(8), TraceFlags::SAMPLED, true, state);
    let parent = Context::new().with_remote_span_context(remote.clone());
    let process = tracer
        .span_builder("process orders")
        .with_kind(SpanKind::Consumer)
        .with_attributes([KeyValue::new("z", "text"), KeyValue::new("a", 1)])
        .with_links(vec![Link::new(remote, vec![KeyValue::new("id", "m-1")], 0)])
        .start_with_context(&tracer, &parent);
    let context = parent.with_span(process);
    let publish = tracer.span_builder("publish replies").with_kind(SpanKind::Producer);
    let mut publish = publish.start_with_context(&tracer, &context);
    publish.add_event("retry", vec![KeyValue::new("attempt", 2)]);
    publish.end();
    context.span().end();
    capture
}

#[test]
fn a_snapshot_shows_everything_but_ids_and_times() {
    assert_eq!(
        story().tree().snapshot(),
        r#"T1
  S1 process orders
    kind: consumer
    scope: shop (https://schema/1.43.0)
    parent: S3 (remote)
    trace state: vendor=1
    attribute: a = 1
    attribute: z = "text"
    link: T1/S3 {id = "m-1"}
    S2 publish replies
      kind: producer
      scope: shop (https://schema/1.43.0)
      parent: S1
      trace state: vendor=1
      event: retry {attempt = 2}
"#
    );
}

#[test]
fn two_runs_give_the_same_snapshot() {
    assert_eq!(story().tree().snapshot(), story().tree().snapshot());
}
