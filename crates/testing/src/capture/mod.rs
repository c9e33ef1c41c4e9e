//! Everything one test emits, kept in memory: spans, metrics, log events and what the sampler was shown.

mod lock;
mod logs;
mod metrics;
mod sampler;
mod spans;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, ShouldSample, SpanData};
use throughline_core::propagation::Propagators;
use throughline_core::telemetry::{Builder, Instrumentation};

pub use self::logs::CapturedLog;
pub use self::metrics::{Bucket, MetricKind, MetricPoint};
pub use self::sampler::SamplerCall;

use self::logs::LogSink;
use self::metrics::MetricSink;
use self::sampler::{RecordingSampler, SamplerCalls};
use self::spans::SpanSink;
use crate::tree::TraceTree;

/// The collecting period of the metric reader: never, because reading the metrics collects them.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The telemetry of one test, captured without touching a global.
///
/// Give its providers to what is tested, then read what came out. Each capture is independent, so tests can run
/// at the same time.
///
/// # Examples
///
/// ```
/// use opentelemetry::trace::{Tracer, TracerProvider};
/// use throughline_testing::Capture;
///
/// let capture = Capture::new();
/// capture.tracer_provider().tracer("shop").in_span("publish orders.placed", |_| ());
///
/// assert_eq!(capture.spans().len(), 1);
/// capture.tree().assert_tree("publish orders.placed");
/// ```
#[derive(Debug)]
pub struct Capture {
    tracer_provider: SdkTracerProvider,
    meter_provider: SdkMeterProvider,
    logger_provider: SdkLoggerProvider,
    spans: SpanSink,
    metrics: MetricSink,
    logs: LogSink,
    sampler: SamplerCalls,
}

impl Default for Capture {
    fn default() -> Self {
        Self::new()
    }
}

impl Capture {
    /// Creates a capture that samples like an unconfigured SDK: what the parent says, else everything.
    ///
    /// The environment is not read, so `OTEL_TRACES_SAMPLER` on a developer's machine changes no test.
    ///
    /// # Examples
    ///
    /// ```
    /// let capture = throughline_testing::Capture::new();
    /// assert!(capture.spans().is_empty());
    /// ```
    pub fn new() -> Self {
        Self::with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
    }

    /// Starts a telemetry builder that sends everything here and touches no global.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::SettleSpans;
    /// use throughline_testing::Capture;
    ///
    /// let capture = Capture::new();
    /// let engine = capture.instrumentation().settle_spans(SettleSpans::Always).build();
    /// # let _ = engine;
    /// ```
    #[must_use]
    pub fn instrumentation(&self) -> Builder<Instrumentation> {
        self.receive(Instrumentation::builder())
    }

    /// Sends here what a telemetry builder makes, and keeps its other settings. Where it has no propagator it gets the default ones: the
    /// environment is not read.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::App;
    /// use throughline_testing::Capture;
    ///
    /// let capture = Capture::new();
    /// let app: App = App::new();
    /// let settings = app.telemetry_builder().expect("the app has telemetry");
    /// let app = app.telemetry(capture.receive(settings).build());
    /// # let _ = app;
    /// ```
    #[must_use]
    pub fn receive<T: From<Instrumentation>>(&self, telemetry: Builder<T>) -> Builder<T> {
        telemetry
            .tracer_provider(self.tracer_provider())
            .meter_provider(&self.meter_provider())
            .logger_provider(&self.logger_provider())
            .propagator_or(Propagators::default())
    }

    /// Creates a capture whose spans are sampled by `sampler`.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    /// use opentelemetry_sdk::trace::Sampler;
    /// use throughline_testing::Capture;
    ///
    /// let capture = Capture::with_sampler(Sampler::AlwaysOff);
    /// capture.tracer_provider().tracer("shop").in_span("publish orders.placed", |_| ());
    ///
    /// assert!(capture.spans().is_empty());
    /// assert_eq!(capture.sampled()[0].name, "publish orders.placed");
    /// ```
    pub fn with_sampler(sampler: impl ShouldSample + 'static) -> Self {
        let (spans, metrics, logs) = (SpanSink::default(), MetricSink::default(), LogSink::default());
        let calls = SamplerCalls::default();
        let reader = PeriodicReader::builder(metrics.clone()).with_interval(NEVER).build();
        Self {
            tracer_provider: SdkTracerProvider::builder()
                .with_sampler(RecordingSampler::new(sampler, calls.clone()))
                .with_simple_exporter(spans.clone())
                .build(),
            meter_provider: SdkMeterProvider::builder().with_reader(reader).build(),
            logger_provider: SdkLoggerProvider::builder().with_simple_exporter(logs.clone()).build(),
            spans,
            metrics,
            logs,
            sampler: calls,
        }
    }

    /// Forgets everything captured so far; up-down counters keep their value.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    ///
    /// let capture = throughline_testing::Capture::new();
    /// capture.tracer_provider().tracer("shop").in_span("set up", |_| ());
    /// capture.reset();
    /// assert!(capture.spans().is_empty());
    /// ```
    pub fn reset(&self) {
        self.collect_metrics();
        self.spans.clear();
        self.metrics.clear();
        self.logs.clear();
        self.sampler.clear();
    }

    /// Returns the tracer provider whose finished spans are captured.
    pub fn tracer_provider(&self) -> SdkTracerProvider {
        self.tracer_provider.clone()
    }

    /// Returns the meter provider whose measurements are captured.
    pub fn meter_provider(&self) -> SdkMeterProvider {
        self.meter_provider.clone()
    }

    /// Returns the logger provider whose records are captured.
    pub fn logger_provider(&self) -> SdkLoggerProvider {
        self.logger_provider.clone()
    }

    /// Returns the finished spans, in the order in which they ended.
    ///
    /// Look spans up by name ([`TraceTree::find`]), not by index: tasks end in any order.
    pub fn spans(&self) -> Vec<SpanData> {
        self.spans.finished()
    }

    /// Builds the tree of the finished spans.
    pub fn tree(&self) -> TraceTree {
        TraceTree::new(self.spans())
    }

    /// Returns every time series measured so far, sorted by name and attributes.
    ///
    /// Values add up until [`reset`](Self::reset).
    pub fn metrics(&self) -> Vec<MetricPoint> {
        self.collect_metrics();
        self.metrics.points()
    }

    /// Returns the log records and events, in the order in which they were emitted.
    pub fn logs(&self) -> Vec<CapturedLog> {
        self.logs.records()
    }

    /// Returns what the sampler was shown, one entry per started span, in the order of their start.
    ///
    /// Attributes that are set after the start are invisible to a sampler; this shows which ones were there in time.
    pub fn sampled(&self) -> Vec<SamplerCall> {
        self.sampler.recorded()
    }

    /// Waits until at least `count` spans have ended and returns all that have.
    ///
    /// # Panics
    ///
    /// When `deadline` passes first; the message lists the spans that did end.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use std::time::Duration;
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    ///
    /// let capture = throughline_testing::Capture::new();
    /// let tracer = capture.tracer_provider().tracer("shop");
    /// tokio::spawn(async move { tracer.in_span("publish orders.placed", |_| ()) });
    ///
    /// let spans = capture.wait_for_spans(1, Duration::from_secs(5)).await;
    /// assert_eq!(spans[0].name, "publish orders.placed");
    /// # }
    /// ```
    #[track_caller]
    pub fn wait_for_spans(&self, count: usize, deadline: Duration) -> impl Future<Output = Vec<SpanData>> + Send {
        self.wait(format!("{count} spans"), move |spans| spans.len() >= count, deadline, Location::caller())
    }

    /// Waits until `ready` holds for the finished spans and returns them.
    ///
    /// `ready` is asked again each time a span ends; nothing is polled.
    ///
    /// # Panics
    ///
    /// When `deadline` passes first; the message lists the spans that did end.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use std::time::Duration;
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    ///
    /// let capture = throughline_testing::Capture::new();
    /// let tracer = capture.tracer_provider().tracer("shop");
    /// tokio::spawn(async move { tracer.in_span("settle orders.placed", |_| ()) });
    ///
    /// let settled = |spans: &[opentelemetry_sdk::trace::SpanData]| spans.iter().any(|span| span.name.starts_with("settle"));
    /// capture.wait_until(settled, Duration::from_secs(5)).await;
    /// # }
    /// ```
    #[track_caller]
    pub fn wait_until(
        &self,
        ready: impl Fn(&[SpanData]) -> bool + Send,
        deadline: Duration,
    ) -> impl Future<Output = Vec<SpanData>> + Send {
        self.wait("the awaited spans".to_owned(), ready, deadline, Location::caller())
    }

    async fn wait(
        &self,
        what: String,
        ready: impl Fn(&[SpanData]) -> bool + Send,
        deadline: Duration,
        caller: &'static Location<'static>,
    ) -> Vec<SpanData> {
        if let Ok(spans) = tokio::time::timeout(deadline, self.spans.until(ready)).await {
            return spans;
        }
        panic!(
            "{what} had not ended after {deadline:?} (waited for at {caller}); these had:\n{}",
            self.tree().listing()
        );
    }

    /// Brings the measurements since the last collection into the sink.
    fn collect_metrics(&self) {
        // An error means that the provider was shut down; its last measurements were collected then.
        let _ = self.meter_provider.force_flush();
    }
}
