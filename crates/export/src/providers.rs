//! The providers of one service, and what they are built of.

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LoggerProviderBuilder, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{MeterProviderBuilder, SdkMeterProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, ShouldSample, TracerProviderBuilder};

use crate::baggage::BaggageAttributes;
use crate::environment::process_variable;
use crate::resource::Service;

/// The most links of one span, so that a batch shows all its messages; the SDK keeps 128 by itself.
// LINK-17.
const MAX_LINKS: u32 = 1024;

/// The providers of one service.
///
/// # Examples
///
/// ```
/// let telemetry = throughline_export::console().service_name("shop").build()?;
/// let stock = telemetry.service("stock");
/// let (tracers, meters, loggers) = (stock.tracer_provider(), stock.meter_provider(), stock.logger_provider());
/// # Ok::<(), throughline_export::ExportError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Providers {
    tracer: SdkTracerProvider,
    meter: SdkMeterProvider,
    logger: SdkLoggerProvider,
}

/// What the code says of the spans of all services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    pub(crate) sampler: Option<Box<dyn ShouldSample>>,
    /// The keys of the baggage that spans show.
    pub(crate) baggage: Vec<String>,
}

impl Choices {
    /// What both say; where they differ, this one.
    pub(crate) fn or(self, other: Self) -> Self {
        let baggage = self.baggage.into_iter().chain(other.baggage).collect();
        Self { sampler: self.sampler.or(other.sampler), baggage }
    }
}

/// The providers of one service before they are built: each destination adds its part.
pub(crate) struct Parts {
    pub(crate) resource: Resource,
    pub(crate) tracer: TracerProviderBuilder,
    pub(crate) meter: MeterProviderBuilder,
    pub(crate) logger: LoggerProviderBuilder,
}

impl Providers {
    /// Returns the tracer provider.
    pub fn tracer_provider(&self) -> SdkTracerProvider {
        self.tracer.clone()
    }

    /// Returns the meter provider.
    pub fn meter_provider(&self) -> SdkMeterProvider {
        self.meter.clone()
    }

    /// Returns the logger provider.
    pub fn logger_provider(&self) -> SdkLoggerProvider {
        self.logger.clone()
    }

    pub(crate) fn flush(&self) -> [OTelSdkResult; 3] {
        [self.tracer.force_flush(), self.meter.force_flush(), self.logger.force_flush()]
    }

    /// Ends them, the metrics last: they count what the others lose. From then on they hand out tracers, meters and loggers that do nothing.
    pub(crate) fn shutdown(&self) -> [OTelSdkResult; 3] {
        [self.tracer.shutdown(), self.logger.shutdown(), self.meter.shutdown()]
    }
}

impl Parts {
    pub(crate) fn new(service: Service, choices: &Choices) -> Self {
        let resource = service.resource();
        let mut tracer = SdkTracerProvider::builder().with_resource(resource.clone());
        // An empty variable counts as unset (ENV-14).
        if process_variable("OTEL_SPAN_LINK_COUNT_LIMIT").is_none_or(|value| value.is_empty()) {
            tracer = tracer.with_max_links_per_span(MAX_LINKS);
        }
        if let Some(sampler) = &choices.sampler {
            tracer = tracer.with_sampler(sampler.clone());
        }
        if !choices.baggage.is_empty() {
            tracer = tracer.with_span_processor(BaggageAttributes(choices.baggage.as_slice().into()));
        }
        let meter = SdkMeterProvider::builder().with_resource(resource.clone());
        let logger = SdkLoggerProvider::builder().with_resource(resource.clone());
        #[cfg(feature = "logging")]
        let logger = logger.with_log_processor(crate::places::WithoutPlaces);
        Self { resource, tracer, meter, logger }
    }

    pub(crate) fn build(self) -> Providers {
        Providers { tracer: self.tracer.build(), meter: self.meter.build(), logger: self.logger.build() }
    }
}
