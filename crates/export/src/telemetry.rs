//! The running telemetry of a program: its providers, and their orderly end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::global;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;

use crate::at_once::at_once;
use crate::destination::Destination;
use crate::error::{ExportError, ExportErrorKind};
use crate::providers::{Choices, Parts, Providers};
use crate::report::ShutdownReport;
use crate::resource::Service;

/// Whether the global providers of this process are those of some telemetry that runs.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Longer than anybody waits for a shutdown, and short enough to be added to a time.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// Where all services of the program lead; none where telemetry is switched off.
    destinations: Vec<Box<dyn Destination>>,
    main: Providers,
    choices: Choices,
    /// Further services by name.
    services: Mutex<BTreeMap<String, Providers>>,
    warnings: Vec<String>,
    /// Whether its providers are the global ones.
    is_installed: AtomicBool,
    /// What the first shutdown reported.
    report: Mutex<Option<ShutdownReport>>,
}

impl Telemetry {
    /// Makes the providers of the main service, which lead to the destinations.
    pub(crate) fn new(
        service: Service,
        choices: Choices,
        destinations: Vec<Box<dyn Destination>>,
        warnings: Vec<String>,
    ) -> Self {
        let main = providers(&destinations, service, &choices);
        destinations.iter().for_each(|destination| destination.watch(&main));
        let (services, report) = (Mutex::default(), Mutex::default());
        let is_installed = AtomicBool::new(false);
        Self { inner: Arc::new(Inner { destinations, main, choices, services, warnings, is_installed, report }) }
    }

    /// Whether telemetry leads nowhere, since `OTEL_SDK_DISABLED` switched everything off.
    pub(crate) fn is_disabled(&self) -> bool {
        self.inner.destinations.is_empty()
    }

    /// Takes the place of the global providers for those of this telemetry, unless it is switched off. Fails where other telemetry has it and is
    /// not shut down.
    pub(crate) fn claim(&self) -> Result<(), ExportError> {
        if self.is_disabled() {
            return Ok(());
        }
        if INSTALLED.swap(true, Ordering::AcqRel) {
            return Err(ExportError::new(
                ExportErrorKind::AlreadyStarted,
                "telemetry was started already and is not shut down: start it once, at the beginning of `main`, or use `build` \
                 for providers that are not global"
                    .to_owned(),
            ));
        }
        self.inner.is_installed.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes the tracer and meter providers of the main service the global ones, where it has the place.
    pub(crate) fn install(&self) {
        if self.inner.is_installed.load(Ordering::Acquire) {
            global::set_tracer_provider(self.tracer_provider());
            global::set_meter_provider(self.meter_provider());
        }
    }

    /// Logs what was odd about the environment.
    pub(crate) fn warn(&self) {
        for warning in &self.inner.warnings {
            tracing::warn!("{warning}");
        }
    }

    #[cfg(feature = "logging")]
    pub(crate) fn main(&self) -> &Providers {
        &self.inner.main
    }

    /// Returns what brings the events of `tracing` to the logger provider, and its spans to the tracer provider, for a subscriber that the
    /// program makes itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use tracing_subscriber::layer::SubscriberExt;
    ///
    /// let telemetry = throughline_export::console().service_name("shop").build()?;
    /// let subscriber = tracing_subscriber::registry().with(telemetry.layer());
    /// # let _ = subscriber;
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    #[cfg(feature = "logging")]
    pub fn layer<S>(&self) -> impl tracing_subscriber::Layer<S> + Send + Sync + 'static
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a> + Send + Sync,
    {
        crate::logging::layer(&self.inner.main)
    }

    /// Returns the tracer provider of the main service.
    pub fn tracer_provider(&self) -> SdkTracerProvider {
        self.inner.main.tracer_provider()
    }

    /// Returns the meter provider of the main service.
    pub fn meter_provider(&self) -> SdkMeterProvider {
        self.inner.main.meter_provider()
    }

    /// Returns the logger provider of the main service.
    ///
    /// There is no global one: give it to what emits logs, as a log bridge.
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
        let make = || providers(&self.inner.destinations, Service::named(name.clone()), &self.inner.choices);
        services.entry(name.clone()).or_insert_with(make).clone()
    }

    /// Returns what was odd about the environment and therefore ignored; also emitted as `tracing` warnings.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Brings everything recorded so far to its destination: draws the finished traces and the metrics.
    ///
    /// It waits up to five seconds for the spans and for the log records, and for the metrics as long as their export may take.
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
    /// call succeeds and returns the same report. The providers block while they shut down, so that happens on
    /// threads of their own; without a Tokio runtime this one waits for them. All signals together have 5 s, or what
    /// [`shutdown_timeout`](crate::Setup::shutdown_timeout) says; what is not delivered by then counts as dropped.
    ///
    /// # Errors
    ///
    /// When the console cannot be written; everything is still shut down.
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

    /// Runs `work` where it may block.
    // TRAP-09.
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
        if self.inner.is_installed.swap(false, Ordering::AcqRel) {
            INSTALLED.store(false, Ordering::Release);
        }
        self.inner.destinations.iter().for_each(|destination| destination.abandon());
    }
}

impl Inner {
    fn flush(&self) -> Result<(), ExportError> {
        let flushed = first_failure(self.all().iter().flat_map(Providers::flush));
        self.flush_destinations().and(flushed)
    }

    fn shutdown(&self) -> Result<ShutdownReport, ExportError> {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = *report {
            return Ok(report);
        }
        if let Err(error) = self.end() {
            tracing::warn!("telemetry did not end in order: {error:?}; what was not delivered counts as dropped");
        }
        if self.is_installed.swap(false, Ordering::AcqRel) {
            INSTALLED.store(false, Ordering::Release);
        }
        let written = self.flush_destinations();
        let closed = self.destinations.iter().map(|destination| destination.close());
        let done = *report.insert(closed.fold(ShutdownReport::default(), ShutdownReport::and));
        written.map(|()| done)
    }

    /// Flushes all destinations and returns the first failure.
    fn flush_destinations(&self) -> Result<(), ExportError> {
        self.destinations.iter().map(|destination| destination.flush()).fold(Ok(()), Result::and)
    }

    /// Ends all providers within the time of a shutdown, however long they hang, and returns the first failure.
    fn end(&self) -> Result<(), ExportError> {
        let (begun, limit) = (Instant::now(), self.choices.shutdown_timeout.min(LONGEST));
        let early = limit / 4 * 3;
        let (first, last): (Vec<_>, Vec<_>) = self.all().iter().map(|providers| providers.ends(early)).unzip();
        let ended = at_once(first.into_iter().flatten().collect(), begun + early);
        first_failure(ended.into_iter().chain(at_once(last, begun + limit)))
    }

    fn all(&self) -> Vec<Providers> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&self.main).chain(services.values()).cloned().collect()
    }
}

/// Returns the first failure; being shut down already is none.
fn first_failure(results: impl IntoIterator<Item = OTelSdkResult>) -> Result<(), ExportError> {
    let mut failures = results.into_iter().filter_map(Result::err);
    match failures.find(|error| !matches!(error, OTelSdkError::AlreadyShutdown)) {
        Some(error) => Err(ExportError::caused_by(ExportErrorKind::Flush, error)),
        None => Ok(()),
    }
}

/// Makes the providers of one service. Without a destination they do nothing.
fn providers(destinations: &[Box<dyn Destination>], service: Service, choices: &Choices) -> Providers {
    let parts = Parts::new(service, choices);
    let providers = destinations.iter().fold(parts, |parts, destination| destination.attach(parts)).build();
    if destinations.is_empty() {
        providers.switch_off();
    }
    providers
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use opentelemetry::Context;
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

    use super::*;

    /// A place that counts spans.
    #[derive(Clone, Debug, Default)]
    struct Counter(Arc<AtomicU64>);

    impl Destination for Counter {
        fn attach(&self, mut service: Parts) -> Parts {
            service.tracer = service.tracer.with_span_processor(self.clone());
            service
        }

        fn flush(&self) -> Result<(), ExportError> {
            Ok(())
        }

        fn close(&self) -> ShutdownReport {
            ShutdownReport { exported_spans: self.0.load(Ordering::Relaxed), ..ShutdownReport::default() }
        }

        fn abandon(&self) {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    impl SpanProcessor for Counter {
        fn on_start(&self, _span: &mut Span, _context: &Context) {}

        fn on_end(&self, _span: SpanData) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    fn to(destinations: &[Counter]) -> Telemetry {
        let boxed = destinations.iter().map(|one| Box::new(one.clone()) as Box<dyn Destination>);
        Telemetry::new(Service::named("shop".to_owned()), Choices::default(), boxed.collect(), Vec::new())
    }

    #[tokio::test]
    async fn all_services_lead_to_all_destinations() {
        let places = [Counter::default(), Counter::default()];
        let telemetry = to(&places);
        telemetry.tracer_provider().tracer("shop").in_span("checkout", |_| ());
        telemetry.service("stock").tracer_provider().tracer("stock").in_span("count", |_| ());
        telemetry.flush().await.unwrap();
        let report = telemetry.shutdown().await.unwrap();
        assert_eq!(report.exported_spans, 4, "two spans, each at two places");
        assert_eq!(telemetry.shutdown().await.unwrap(), report);
    }

    #[test]
    fn what_is_dropped_without_a_shutdown_is_saved_by_each_destination() {
        let places = [Counter::default(), Counter::default()];
        let telemetry = to(&places);
        telemetry.tracer_provider().tracer("shop").in_span("checkout", |_| ());
        drop(telemetry);
        assert!(places.iter().all(|place| place.0.load(Ordering::Relaxed) == 0));
    }
}
