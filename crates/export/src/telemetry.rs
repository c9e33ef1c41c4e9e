//! The running telemetry of a program: its providers, and their orderly end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;

use crate::console::Pipeline;
use crate::error::{ExportError, ExportErrorKind};

/// The running telemetry of a program.
///
/// Keep it until the program ends, then call [`shutdown`](Self::shutdown). If it is dropped without, as on an early
/// return from `main`, the traces that are finished are still drawn, the metrics are not.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let telemetry = throughline_export::console().service_name("shop").start()?;
/// // … serve …
/// println!("{}", telemetry.shutdown().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pipeline: Pipeline,
    main: Providers,
    /// Further services by name.
    services: Mutex<BTreeMap<String, Providers>>,
    warnings: Vec<String>,
    /// What the first shutdown reported.
    report: Mutex<Option<ShutdownReport>>,
}

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
    pub(crate) tracer: SdkTracerProvider,
    pub(crate) meter: SdkMeterProvider,
    pub(crate) logger: SdkLoggerProvider,
}

/// What became of the spans.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let telemetry = throughline_export::console().build()?;
/// let report = telemetry.shutdown().await?;
/// assert_eq!(report.to_string(), "0 spans exported, 0 dropped, 0 never ended");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Spans handed to their destination.
    pub exported_spans: u64,
    /// Spans that ended but were lost, because more were waiting than memory was set aside for.
    pub dropped_spans: u64,
    /// Spans that had started but not ended at shutdown.
    pub unfinished_spans: u64,
}

impl Telemetry {
    pub(crate) fn new(pipeline: Pipeline, main: Providers, warnings: Vec<String>) -> Self {
        let (services, report) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { pipeline, main, services, warnings, report }) }
    }

    /// Whether `OTEL_SDK_DISABLED` switched everything off.
    pub(crate) fn is_disabled(&self) -> bool {
        self.inner.pipeline.is_disabled()
    }

    /// Returns the tracer provider of the main service.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    ///
    /// let telemetry = throughline_export::console().service_name("shop").build()?;
    /// telemetry.tracer_provider().tracer("shop").in_span("checkout", |_| ());
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn tracer_provider(&self) -> SdkTracerProvider {
        self.inner.main.tracer_provider()
    }

    /// Returns the meter provider of the main service.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::metrics::MeterProvider;
    ///
    /// let telemetry = throughline_export::console().service_name("shop").build()?;
    /// telemetry.meter_provider().meter("shop").u64_counter("orders").build().add(1, &[]);
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn meter_provider(&self) -> SdkMeterProvider {
        self.inner.main.meter_provider()
    }

    /// Returns the logger provider of the main service.
    ///
    /// There is no global one: give it to what emits logs, as a log bridge.
    ///
    /// # Examples
    ///
    /// ```
    /// let telemetry = throughline_export::console().service_name("shop").build()?;
    /// let loggers = telemetry.logger_provider();
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn logger_provider(&self) -> SdkLoggerProvider {
        self.inner.main.logger_provider()
    }

    /// Returns the providers of a further service of this program, made on the first call for a name.
    ///
    /// They feed the same destination as the main ones, under their own `service.name`: a trace over several
    /// services is drawn as one picture. Useful for demonstrations and tests that play several services.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::trace::{Tracer, TracerProvider};
    ///
    /// let telemetry = throughline_export::console().service_name("shop").build()?;
    /// telemetry.service("stock").tracer_provider().tracer("stock").in_span("count", |_| ());
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn service(&self, name: impl Into<String>) -> Providers {
        let name = name.into();
        let mut services = self.inner.services.lock().unwrap_or_else(PoisonError::into_inner);
        let make = |name: &String| self.inner.pipeline.providers(resource(Some(name.clone())));
        services.entry(name.clone()).or_insert_with(|| make(&name)).clone()
    }

    /// Returns what was odd about the environment and therefore ignored; also emitted as `tracing` warnings.
    ///
    /// # Examples
    ///
    /// ```
    /// let telemetry = throughline_export::console().build()?;
    /// assert!(telemetry.warnings().is_empty());
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Brings everything recorded so far to its destination: draws the finished traces and the metrics.
    ///
    /// # Errors
    ///
    /// When a provider fails to flush or the destination cannot be written.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let telemetry = throughline_export::console().build()?;
    /// telemetry.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) -> Result<(), ExportError> {
        self.blocking(Inner::flush).await
    }

    /// Flushes, shuts the providers down and says what was dropped.
    ///
    /// Stop consuming, drain the handlers and close the brokers first: spans that end afterwards are lost. A second
    /// call succeeds and returns the same report. The providers block while they shut down, so that happens on a
    /// blocking thread of the runtime, or on this thread if there is no Tokio runtime.
    ///
    /// # Errors
    ///
    /// When a provider fails to shut down or the destination cannot be written; all others are still shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let telemetry = throughline_export::console().build()?;
    /// assert_eq!(telemetry.shutdown().await?, telemetry.shutdown().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(&self) -> Result<ShutdownReport, ExportError> {
        self.blocking(Inner::shutdown).await
    }

    /// Runs `work` where it may block (TRAP-09).
    async fn blocking<T: Send + 'static>(&self, work: fn(&Inner) -> Result<T, ExportError>) -> Result<T, ExportError> {
        let Ok(runtime) = Handle::try_current() else {
            return work(&self.inner);
        };
        let inner = self.inner.clone();
        match runtime.spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => Err(ExportError::caused_by(ExportErrorKind::Flush, error)),
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.inner.pipeline.draw_traces();
    }
}

impl Inner {
    fn flush(&self) -> Result<(), ExportError> {
        let flushed = self.each(|providers| {
            [providers.tracer.force_flush(), providers.meter.force_flush(), providers.logger.force_flush()]
        });
        self.pipeline.draw().and(flushed)
    }

    fn shutdown(&self) -> Result<ShutdownReport, ExportError> {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = *report {
            return Ok(report);
        }
        let down = self
            .each(|providers| [providers.tracer.shutdown(), providers.meter.shutdown(), providers.logger.shutdown()]);
        let drawn = self.pipeline.draw();
        let done = *report.insert(self.pipeline.close());
        drawn.and(down).map(|()| done)
    }

    /// Does something to all providers and returns the first failure; being shut down already is none.
    fn each(&self, act: impl Fn(&Providers) -> [OTelSdkResult; 3]) -> Result<(), ExportError> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let results: Vec<OTelSdkResult> = std::iter::once(&self.main).chain(services.values()).flat_map(act).collect();
        match results.into_iter().filter_map(Result::err).find(|error| !matches!(error, OTelSdkError::AlreadyShutdown))
        {
            Some(error) => Err(ExportError::caused_by(ExportErrorKind::Flush, error)),
            None => Ok(()),
        }
    }
}

impl Providers {
    /// Returns the tracer provider.
    ///
    /// # Examples
    ///
    /// ```
    /// let telemetry = throughline_export::console().build()?;
    /// let tracers = telemetry.service("stock").tracer_provider();
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn tracer_provider(&self) -> SdkTracerProvider {
        self.tracer.clone()
    }

    /// Returns the meter provider.
    ///
    /// # Examples
    ///
    /// ```
    /// let telemetry = throughline_export::console().build()?;
    /// let meters = telemetry.service("stock").meter_provider();
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn meter_provider(&self) -> SdkMeterProvider {
        self.meter.clone()
    }

    /// Returns the logger provider.
    ///
    /// # Examples
    ///
    /// ```
    /// let telemetry = throughline_export::console().build()?;
    /// let loggers = telemetry.service("stock").logger_provider();
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn logger_provider(&self) -> SdkLoggerProvider {
        self.logger.clone()
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exported_spans, dropped_spans, unfinished_spans } = self;
        write!(f, "{exported_spans} spans exported, {dropped_spans} dropped, {unfinished_spans} never ended")
    }
}

/// The attributes of a service: those of the environment (ENV-04), under the name the code gives (ENV-16).
pub(crate) fn resource(name: Option<String>) -> Resource {
    let builder = Resource::builder();
    match name {
        Some(name) => builder.with_service_name(name).build(),
        None => builder.build(),
    }
}
