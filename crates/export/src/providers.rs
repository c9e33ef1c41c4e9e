//! The providers of one service, and what they are built of.

use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LoggerProviderBuilder, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{MeterProviderBuilder, SdkMeterProvider};
use opentelemetry_sdk::trace::{SdkTracerProvider, ShouldSample, TracerProviderBuilder};

use crate::baggage::BaggageAttributes;
use crate::cardinality::Cardinality;
use crate::limits::Limits;
use crate::resource::Service;

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

/// What ends one provider, and blocks meanwhile.
pub(crate) type End = Box<dyn FnOnce() -> OTelSdkResult + Send>;

/// What is said of the telemetry of all services.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub(crate) sampler: Option<Box<dyn ShouldSample>>,
    /// The keys of the baggage that spans show.
    pub(crate) baggage: Vec<String>,
    pub(crate) cardinality: Cardinality,
    pub(crate) limits: Limits,
    /// How long a shutdown may take.
    pub(crate) shutdown_timeout: Duration,
}

impl Choices {
    /// A service and its telemetry then end within the 30 s that Kubernetes gives them.
    pub(crate) const SHUTDOWN: Duration = Duration::from_secs(5);
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            sampler: None,
            baggage: Vec::new(),
            cardinality: Cardinality::default(),
            limits: Limits::default(),
            shutdown_timeout: Self::SHUTDOWN,
        }
    }
}

/// The providers of one service before they are built: each destination adds its part.
pub(crate) struct Parts {
    pub(crate) resource: Resource,
    pub(crate) tracer: TracerProviderBuilder,
    pub(crate) meter: MeterProviderBuilder,
    pub(crate) logger: LoggerProviderBuilder,
    /// Is told of metrics with too many series.
    pub(crate) cardinality: Cardinality,
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

    /// What ends spans and log records, and then the metrics, which count what the others lose. Ended providers hand out tracers, meters and loggers
    /// that do nothing.
    pub(crate) fn ends(&self, limit: Duration) -> ([End; 2], End) {
        let Self { tracer, logger, meter } = self.clone();
        let spans = Box::new(move || tracer.shutdown_with_timeout(limit));
        let logs = Box::new(move || logger.shutdown_with_timeout(limit));
        ([spans, logs], Box::new(move || meter.shutdown()))
    }

    /// Ends those that hold nothing.
    pub(crate) fn switch_off(&self) {
        let _ = (self.tracer.shutdown(), self.logger.shutdown(), self.meter.shutdown());
    }
}

impl Parts {
    pub(crate) fn new(service: Service, choices: &Choices) -> Self {
        let resource = service.resource();
        let mut tracer = choices.limits.apply(SdkTracerProvider::builder().with_resource(resource.clone()));
        if let Some(sampler) = &choices.sampler {
            tracer = tracer.with_sampler(sampler.clone());
        }
        if !choices.baggage.is_empty() {
            tracer = tracer.with_span_processor(BaggageAttributes(choices.baggage.as_slice().into()));
        }
        let cardinality = choices.cardinality.clone();
        let meter = SdkMeterProvider::builder().with_resource(resource.clone()).with_view(cardinality.view());
        let logger = SdkLoggerProvider::builder().with_resource(resource.clone());
        #[cfg(feature = "logging")]
        let logger = logger.with_log_processor(crate::places::WithoutPlaces);
        Self { resource, tracer, meter, logger, cardinality }
    }

    pub(crate) fn build(self) -> Providers {
        Providers { tracer: self.tracer.build(), meter: self.meter.build(), logger: self.logger.build() }
    }
}
