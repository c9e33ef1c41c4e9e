//! SDK providers whose exporters drop everything.

use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};

use crate::load::State;

/// Longer than any run: spans and metrics leave between rounds, when they are flushed, and at no other time.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How many spans wait at most: the default of the SDK. A round makes fewer, so that none is dropped.
pub const QUEUE: usize = 2048;

/// The providers of a state, both `None` where no SDK is there.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    /// The provider of spans.
    pub tracer: Option<SdkTracerProvider>,
    /// The provider of metrics.
    pub meter: Option<SdkMeterProvider>,
}

impl Pipeline {
    /// Creates what a state says.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self::with_queue(state, QUEUE)
    }

    /// Does the same with room for so many spans.
    #[must_use]
    pub fn with_queue(state: State, queue: usize) -> Self {
        let tracer = match state {
            State::Untraced | State::NoSdk | State::Metrics => None,
            State::Unsampled => Some(tracer(Sampler::AlwaysOff, queue)),
            State::Sampled | State::SampledMetrics => Some(tracer(Sampler::AlwaysOn, queue)),
        };
        Self { tracer, meter: state.has_metrics().then(meter) }
    }

    /// Exports the spans that wait.
    pub fn flush(&self) {
        // The exporter cannot fail, and a processor that cannot be reached shows in the next round.
        let _ = self.tracer.as_ref().map(SdkTracerProvider::force_flush);
    }
}

fn tracer(root: Sampler, queue: usize) -> SdkTracerProvider {
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(queue)
        .with_max_export_batch_size(queue)
        .with_scheduled_delay(NEVER)
        .build();
    let processor = BatchSpanProcessor::builder(Dropping).with_batch_config(config).build();
    SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(root)))
        .with_span_processor(processor)
        .build()
}

fn meter() -> SdkMeterProvider {
    SdkMeterProvider::builder().with_reader(PeriodicReader::builder(Dropping).with_interval(NEVER).build()).build()
}

/// Exports nothing, at once.
#[derive(Debug)]
pub(crate) struct Dropping;

impl SpanExporter for Dropping {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

impl PushMetricExporter for Dropping {
    async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}
