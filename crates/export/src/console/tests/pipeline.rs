use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{
    Link, Span, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};
use throughline_waterfall::Screen;

use super::super::collector::Collector;
use super::super::processor::ConsoleSpans;
use super::super::{ColorChoice, console};
use super::{Paper, draft, quiet_console, telemetry, tracer};
use crate::error::ExportErrorKind;
use crate::report::ShutdownReport;
use crate::telemetry::Telemetry;

fn with_variable(name: &'static str, value: &'static str) -> (Telemetry, Paper) {
    let paper = Paper::default();
    let lookup = move |asked: &str| (asked == name).then(|| value.to_owned());
    (quiet_console(paper.clone()).build_in(&lookup).unwrap(), paper)
}

fn works(provider: &SdkTracerProvider) -> bool {
    provider.tracer("test").start_with_context("probe", &Context::new()).span_context().is_valid()
}

// ENV-02.
#[tokio::test]
async fn a_disabled_sdk_makes_no_spans_and_draws_nothing() {
    let (telemetry, paper) = with_variable("OTEL_SDK_DISABLED", "TRUE");
    assert!(telemetry.is_disabled());
    assert!(!works(&telemetry.tracer_provider()));
    assert!(!works(&telemetry.service("stock").tracer_provider()));
    telemetry.meter_provider().meter("test").u64_counter("sent").build().add(1, &[]);
    assert_eq!(telemetry.shutdown().await.unwrap(), ShutdownReport::default());
    assert_eq!(paper.text(), "");
}

// ENV-02, ENV-15.
#[test]
fn an_odd_value_leaves_telemetry_on_and_is_reported() {
    let (telemetry, _) = with_variable("OTEL_SDK_DISABLED", "yes");
    assert!(works(&telemetry.tracer_provider()));
    assert_eq!(telemetry.warnings().len(), 1);
}

// ENV-03.
#[tokio::test]
async fn traces_can_be_switched_off_alone() {
    let (telemetry, paper) = with_variable("OTEL_TRACES_EXPORTER", "none");
    telemetry.tracer_provider().tracer("test").in_span("publish", |_| ());
    telemetry.meter_provider().meter("test").u64_counter("sent").build().add(1, &[]);
    telemetry.shutdown().await.unwrap();
    assert!(paper.text().starts_with("metrics"), "{}", paper.text());
    assert!(paper.text().contains("  shop"), "{}", paper.text());
}

// ENV-03.
#[tokio::test]
async fn metrics_can_be_switched_off_alone() {
    let (telemetry, paper) = with_variable("OTEL_METRICS_EXPORTER", "none");
    telemetry.tracer_provider().tracer("test").in_span("publish", |_| ());
    telemetry.meter_provider().meter("test").u64_counter("sent").build().add(1, &[]);
    telemetry.shutdown().await.unwrap();
    assert!(paper.text().starts_with("trace ") && !paper.text().contains("metrics"), "{}", paper.text());
}

// ENV-16.
#[tokio::test]
async fn the_code_draws_whatever_exporter_the_environment_names() {
    let (telemetry, paper) = with_variable("OTEL_TRACES_EXPORTER", "otlp");
    telemetry.tracer_provider().tracer("test").in_span("publish", |_| ());
    telemetry.shutdown().await.unwrap();
    assert!(paper.text().starts_with("trace "), "{}", paper.text());
}

#[test]
fn the_width_comes_from_the_code_else_from_the_environment() {
    let columns = |name: &str| (name == "COLUMNS").then(|| "60".to_owned());
    let widest = |width: Option<usize>| {
        let paper = Paper::default();
        let console = quiet_console(paper.clone());
        let console = if let Some(width) = width { console.width(width) } else { console };
        let telemetry = console.build_in(&columns).unwrap();
        draft("work", 0, 10).done(&tracer(&telemetry.tracer_provider()), &Context::new());
        drop(telemetry);
        paper.text().lines().map(|line| line.chars().count()).max()
    };
    assert_eq!((widest(None), widest(Some(90))), (Some(60), Some(90)));
}

#[test]
fn a_writer_that_is_no_terminal_gets_no_colours() {
    let paper = Paper::default();
    let telemetry = quiet_console(paper.clone()).color(ColorChoice::Auto).build_in(&|_| None).unwrap();
    draft("work", 0, 10).fails("no").done(&tracer(&telemetry.tracer_provider()), &Context::new());
    drop(telemetry);
    assert!(!paper.text().contains('\x1b') && paper.text().contains("✗ no"));
}

#[test]
fn finished_traces_are_drawn_even_without_shutdown() {
    let (telemetry, paper) = telemetry(80);
    let providers = telemetry.service("stock");
    draft("work", 0, 10).done(&tracer(&providers.tracer_provider()), &Context::new());
    drop(telemetry);
    assert!(paper.text().contains("stock work"));
}

#[test]
fn a_quiet_trace_is_drawn_by_itself() {
    let paper = Paper::default();
    let console = quiet_console(paper.clone()).quiet(Duration::from_millis(20));
    let telemetry = console.build_in(&|_| None).unwrap();
    let shop = tracer(&telemetry.tracer_provider());
    let open = draft("open", 0, 10).start(&shop, &Context::new());
    draft("child", 0, 10).done(&shop, &open);
    draft("quiet", 0, 10).done(&shop, &Context::new());
    let deadline = Instant::now() + Duration::from_secs(60);
    while !paper.text().contains("quiet") {
        assert!(Instant::now() < deadline, "the trace was not drawn");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!paper.text().contains("child"), "its parent may still fail");
    open.span().end();
}

// TRAP-09.
#[tokio::test(flavor = "current_thread")]
async fn a_second_shutdown_succeeds_with_the_same_report() {
    let (telemetry, paper) = telemetry(80);
    let shop = tracer(&telemetry.tracer_provider());
    draft("done", 0, 10).done(&shop, &Context::new());
    let _open = draft("open", 0, 10).start(&shop, &Context::new());
    telemetry.tracer_provider().shutdown().unwrap();

    let report = telemetry.shutdown().await.unwrap();
    assert_eq!((report.exported_spans, report.dropped_spans, report.unfinished_spans), (1, 0, 1));
    assert_eq!(telemetry.shutdown().await.unwrap(), report);
    assert_eq!(paper.text().matches("done").count(), 1);
}

#[test]
fn shutdown_needs_no_runtime() {
    let (telemetry, paper) = telemetry(80);
    draft("done", 0, 10).done(&tracer(&telemetry.tracer_provider()), &Context::new());
    let mut shutdown = std::pin::pin!(telemetry.shutdown());
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    assert!(shutdown.as_mut().poll(&mut context).is_ready());
    assert!(paper.text().contains("done"));
}

#[tokio::test]
async fn what_does_not_fit_in_memory_is_dropped_and_counted() {
    let (telemetry, _) = telemetry(80);
    let shop = tracer(&telemetry.tracer_provider());
    let root = draft("root", 0, 10).start(&shop, &Context::new());
    for _ in 0..10_005 {
        draft("work", 0, 10).done(&shop, &root);
    }
    let report = telemetry.shutdown().await.unwrap();
    assert_eq!((report.exported_spans, report.dropped_spans, report.unfinished_spans), (10_000, 5, 1));
    assert_eq!(report.to_string(), "10000 spans exported, 5 dropped, 1 never ended");
}

/// A terminal that went away.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(ErrorKind::BrokenPipe))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_console_that_cannot_be_written_is_an_error_with_its_cause() {
    let telemetry = console().writer(Gone).build_in(&|_| None).unwrap();
    draft("work", 0, 10).done(&tracer(&telemetry.tracer_provider()), &Context::new());
    let error = telemetry.shutdown().await.unwrap_err();
    assert_eq!(error.kind(), ExportErrorKind::Write);
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.map(io::Error::kind), Some(ErrorKind::BrokenPipe));
}

// ENV-04, ENV-16.
#[test]
fn the_code_names_the_service() {
    let named = crate::resource::Service::named("shop".to_owned()).resource();
    assert_eq!(named.get(&Key::new("service.name")), Some("shop".into()));
}

// LINK-17.
#[test]
fn a_batch_of_several_hundred_messages_keeps_all_its_links() {
    let (telemetry, _paper) = telemetry(80);
    let links: Vec<Link> = (1..=300).map(|id| Link::new(draft_context(id), Vec::new(), 0)).collect();
    let tracer = telemetry.tracer_provider().tracer("test");
    let builder = tracer.span_builder("process orders").with_links(links);
    let span = tracer.build_with_context(builder, &Context::new());
    assert_eq!(span.exported_data().unwrap().links.len(), 300);
}

fn draft_context(id: u64) -> SpanContext {
    SpanContext::new(TraceId::from(u128::from(id)), SpanId::from(id), TraceFlags::SAMPLED, true, TraceState::default())
}

#[tokio::test]
async fn a_service_is_made_once() {
    let (telemetry, paper) = telemetry(80);
    for _ in 0..2 {
        telemetry.service("stock").meter_provider().meter("test").u64_counter("sent").build().add(1, &[]);
    }
    telemetry.flush().await.unwrap();
    assert_eq!(
        paper.text().split_whitespace().collect::<Vec<_>>()[..8],
        ["metrics", "count", "~p50", "~p95", "max", "sent", "stock", "2"]
    );
}

#[tokio::test]
async fn nothing_is_drawn_again_after_shutdown() {
    let (telemetry, paper) = telemetry(80);
    telemetry.tracer_provider().tracer("test").in_span("publish", |_| ());
    telemetry.meter_provider().meter("test").u64_counter("sent").build().add(1, &[]);
    telemetry.shutdown().await.unwrap();
    let text = paper.text();
    telemetry.flush().await.unwrap();
    drop(telemetry);
    assert_eq!(paper.text(), text);
}

/// Records each span, but samples none.
#[derive(Clone, Debug)]
struct RecordOnly;

impl ShouldSample for RecordOnly {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace_id: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        SamplingResult {
            decision: SamplingDecision::RecordOnly,
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        }
    }
}

#[test]
fn a_span_that_is_not_sampled_is_not_drawn() {
    let paper = Paper::default();
    let screen = Screen::new(Box::new(paper.clone()), false, 80);
    let collector = Collector::new(screen, Duration::from_secs(3600));
    let processor = ConsoleSpans::new(collector.clone());
    let provider = SdkTracerProvider::builder().with_sampler(RecordOnly).with_span_processor(processor).build();
    provider.tracer("test").in_span("unseen", |_| ());
    collector.draw_all();
    assert_eq!((paper.text().as_str(), collector.close()), ("", ShutdownReport::default()));
}
