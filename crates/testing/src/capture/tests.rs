use std::time::Duration;

use opentelemetry::logs::{LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt, TraceFlags, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, SpanId, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision};

use super::{Capture, MetricKind};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn captures_do_not_see_each_other() {
    let (one, other) = (Capture::new(), Capture::new());
    one.tracer_provider().tracer("test").in_span("work", |_| ());
    assert_eq!((one.spans().len(), other.spans().len()), (1, 0));
}

#[test]
fn measurements_add_up_until_reset() {
    let capture = Capture::new();
    let meter = capture.meter_provider().meter("test");
    let sent = meter.u64_counter("sent").build();
    let duration = meter.f64_histogram("duration").with_boundaries(vec![1.0]).build();
    let in_flight = meter.i64_up_down_counter("in_flight").build();
    let read = || capture.metrics().into_iter().map(|point| (point.name, point.sum, point.count)).collect::<Vec<_>>();

    for _ in 0..2 {
        sent.add(2, &[]);
        duration.record(0.5, &[]);
        in_flight.add(1, &[]);
        capture.metrics();
    }
    let expected = [("duration", 1.0, 2), ("in_flight", 2.0, 0), ("sent", 4.0, 0)];
    assert_eq!(read(), expected.map(|(name, sum, count)| (name.to_owned(), sum, count)));

    sent.add(100, &[]);
    capture.reset();
    sent.add(1, &[]);
    in_flight.add(-1, &[]);
    let expected = [("in_flight", 1.0, 0), ("sent", 1.0, 0)];
    assert_eq!(read(), expected.map(|(name, sum, count)| (name.to_owned(), sum, count)));
}

#[test]
fn a_histogram_grows_over_several_readings() {
    let capture = Capture::new();
    let duration = capture.meter_provider().meter("test").f64_histogram("duration").with_boundaries(vec![1.0]).build();
    for seconds in [0.5, 4.0, 0.25, 2.0] {
        duration.record(seconds, &[]);
        capture.metrics();
    }
    let point = &capture.metrics()[0];
    assert_eq!((point.count, point.sum, point.min, point.max), (4, 6.75, Some(0.25), Some(4.0)));
    assert_eq!(point.buckets.iter().map(|bucket| bucket.count).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_time_series_has_its_own_point() {
    let capture = Capture::new();
    let duration = capture.meter_provider().meter("test").f64_histogram("duration").with_unit("s").build();
    duration.record(2.0, &[KeyValue::new("to", "a")]);
    duration.record(4.0, &[KeyValue::new("to", "b")]);
    duration.record(8.0, &[KeyValue::new("to", "b")]);

    let points = capture.metrics();
    assert_eq!(points.len(), 2);
    let second = &points[1];
    assert_eq!((second.kind, second.unit.as_str()), (MetricKind::Histogram, "s"));
    assert_eq!((second.count, second.sum, second.min, second.max), (2, 12.0, Some(4.0), Some(8.0)));
    assert_eq!(second.attributes, [("to".to_owned(), "b".into())].into());
    assert_eq!(second.buckets.iter().map(|bucket| bucket.count).sum::<u64>(), 2);
}

#[test]
fn metrics_survive_the_shutdown_of_the_provider() {
    let capture = Capture::new();
    capture.meter_provider().meter("test").u64_counter("sent").build().add(1, &[]);
    capture.meter_provider().shutdown().unwrap();
    assert_eq!(capture.metrics()[0].sum, 1.0);
}

#[test]
fn a_log_carries_the_context_of_its_span() {
    let capture = Capture::new();
    let tracer = capture.tracer_provider().tracer("test");
    let logger = capture.logger_provider().logger("test");
    tracer.in_span("work", |_| {
        let mut record = logger.create_log_record();
        record.set_event_name("exception");
        record.set_severity_number(Severity::Error);
        record.add_attribute("b", 1);
        record.add_attribute("a", 2);
        logger.emit(record);
    });

    let (log, span) = (&capture.logs()[0], &capture.spans()[0].span_context);
    assert_eq!((log.trace_id, log.span_id), (Some(span.trace_id()), Some(span.span_id())));
    assert_eq!(log.trace_flags, Some(TraceFlags::SAMPLED));
    assert_eq!((log.severity_number(), log.scope.name()), (Some(17), "test"));
    assert_eq!(log.attributes, [("a".to_owned(), 2.into()), ("b".to_owned(), 1.into())]);
}

// VERF-03.
#[test]
fn the_sampler_shows_links_and_parent() {
    let capture = Capture::with_sampler(Sampler::AlwaysOff);
    let tracer = capture.tracer_provider().tracer("test");
    let context =
        |id: u64| SpanContext::new(TraceId::from(9), SpanId::from(id), TraceFlags::SAMPLED, true, Default::default());
    let parent = Context::new().with_remote_span_context(context(1));
    let builder = tracer.span_builder("process orders").with_kind(SpanKind::Consumer);
    builder.with_links(vec![Link::with_context(context(2))]).start_with_context(&tracer, &parent);

    let call = &capture.sampled()[0];
    assert_eq!((call.name.as_str(), &call.kind), ("process orders", &SpanKind::Consumer));
    assert_eq!((call.trace_id, call.parent.span_id()), (TraceId::from(9), SpanId::from(1)));
    assert_eq!(call.links[0].span_context.span_id(), SpanId::from(2));
    assert_eq!(call.decision, SamplingDecision::Drop);
}

#[tokio::test]
async fn waiting_ends_with_the_last_span() {
    let capture = Capture::new();
    let tracer = capture.tracer_provider().tracer("test");
    let worker = std::thread::spawn(move || (0..20).for_each(|_| tracer.in_span("work", |_| ())));
    assert_eq!(capture.wait_for_spans(20, MINUTE).await.len(), 20);
    worker.join().unwrap();
}

#[tokio::test]
async fn waiting_for_a_certain_span_ignores_others() {
    let capture = Capture::new();
    let tracer = capture.tracer_provider().tracer("test");
    tokio::spawn(async move {
        tracer.in_span("first", |_| ());
        tokio::task::yield_now().await;
        tracer.in_span("second", |_| ());
    });
    let spans = capture.wait_until(|spans| spans.iter().any(|span| span.name == "second"), MINUTE).await;
    assert_eq!(spans.len(), 2);
}

#[tokio::test]
#[should_panic(expected = "2 spans had not ended after 0ns (waited for at")]
async fn waiting_in_vain_says_where() {
    let capture = Capture::new();
    capture.tracer_provider().tracer("test").in_span("work", |_| ());
    capture.wait_for_spans(2, Duration::ZERO).await;
}

#[tokio::test]
#[should_panic(expected = "these had:\n  work (Internal)")]
async fn waiting_in_vain_lists_what_ended() {
    let capture = Capture::new();
    capture.tracer_provider().tracer("test").in_span("work", |_| ());
    capture.wait_for_spans(2, Duration::ZERO).await;
}
