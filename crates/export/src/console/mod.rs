//! Telemetry drawn on the terminal.
//!
//! `processor`, `logs` and `metrics` receive what the SDK hands out, `collector` holds it until a trace is quiet,
//! `trace` makes a picture's content of it, `waterfall` and `summary` draw that, in the ink of `style`.

mod collector;
mod logs;
mod metrics;
mod processor;
mod scale;
mod screen;
mod style;
mod summary;
mod trace;
mod waterfall;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{IsTerminal, Write, stdout};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::global;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;

use self::collector::Collector;
use self::logs::ConsoleLogs;
use self::metrics::ConsoleMetrics;
use self::processor::{ConsoleSpans, service_name};
use self::screen::Screen;
use crate::environment::{Environment, Signals, process_variable};
use crate::error::ExportError;
use crate::telemetry::{Providers, ShutdownReport, Telemetry, resource};

/// The width of a picture when neither the code nor `COLUMNS` says.
const DEFAULT_WIDTH: usize = 100;

/// The most links of one span, so that a batch shows all its messages; the SDK keeps 128 by itself (LINK-17).
const MAX_LINKS: u32 = 1024;

/// How long a trace must be silent to be drawn. Longer than the first pauses of a retry, so that these are one picture.
const DEFAULT_QUIET: Duration = Duration::from_secs(1);

/// The collecting period of the metric readers: never, because drawing the metrics collects them.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Configures telemetry that is drawn on the terminal.
///
/// # Examples
///
/// ```
/// let telemetry = throughline_export::console().service_name("shop").build()?;
/// # Ok::<(), throughline_export::ExportError>(())
/// ```
pub fn console() -> Console {
    Console { service_name: None, color: ColorChoice::Auto, width: None, quiet: DEFAULT_QUIET, writer: None }
}

/// The configuration of telemetry that is drawn on the terminal; made by [`console`].
///
/// Each trace is drawn as a waterfall once it is silent: the services, the tree of spans with their attributes,
/// durations and bars, errors, log records, the traces it is linked from, and the baggage it carried. The metrics
/// follow as a table when telemetry is flushed or shut down.
///
/// # Examples
///
/// ```
/// use throughline_export::ColorChoice;
///
/// let telemetry = throughline_export::console()
///     .service_name("shop")
///     .color(ColorChoice::Never)
///     .width(120)
///     .writer(Vec::new())
///     .build()?;
/// # Ok::<(), throughline_export::ExportError>(())
/// ```
pub struct Console {
    service_name: Option<String>,
    color: ColorChoice,
    width: Option<usize>,
    quiet: Duration,
    writer: Option<Box<dyn Write + Send>>,
}

/// Whether the console uses colours.
///
/// # Examples
///
/// ```
/// use throughline_export::ColorChoice;
///
/// assert_eq!(ColorChoice::default(), ColorChoice::Auto);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ColorChoice {
    /// Always.
    Always,
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    /// Never.
    Never,
}

impl Console {
    /// Sets the name of the service, in place of `OTEL_SERVICE_NAME`.
    ///
    /// # Examples
    ///
    /// ```
    /// let console = throughline_export::console().service_name("shop");
    /// ```
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// Sets whether to use colours. The default is [`ColorChoice::Auto`].
    ///
    /// # Examples
    ///
    /// ```
    /// let console = throughline_export::console().color(throughline_export::ColorChoice::Always);
    /// ```
    pub fn color(mut self, color: ColorChoice) -> Self {
        self.color = color;
        self
    }

    /// Sets the number of columns, at least 40. The default is `COLUMNS`, else 100.
    ///
    /// # Examples
    ///
    /// ```
    /// let console = throughline_export::console().width(80);
    /// ```
    pub fn width(mut self, columns: usize) -> Self {
        self.width = Some(columns);
        self
    }

    /// Sets how long a trace must be silent to be drawn. The default is one second.
    ///
    /// Spans that arrive later are drawn as a second picture of that trace, marked as continued. What is still held
    /// at a flush or at shutdown is drawn then.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let console = throughline_export::console().quiet(Duration::from_secs(5));
    /// ```
    pub fn quiet(mut self, silence: Duration) -> Self {
        self.quiet = silence;
        self
    }

    /// Sets where to draw. The default is the standard output.
    ///
    /// # Examples
    ///
    /// ```
    /// let console = throughline_export::console().writer(std::io::stderr());
    /// ```
    pub fn writer(mut self, writer: impl Write + Send + 'static) -> Self {
        self.writer = Some(Box::new(writer));
        self
    }

    /// Builds the providers and leaves the global ones alone.
    ///
    /// # Errors
    ///
    /// When the environment asks for an exporter that is not built into this version.
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
    pub fn build(self) -> Result<Telemetry, ExportError> {
        self.build_in(&process_variable)
    }

    /// Builds the providers and installs the tracer and meter providers as the global ones.
    ///
    /// # Errors
    ///
    /// When the environment asks for an exporter that is not built into this version; nothing is installed then.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let telemetry = throughline_export::console().service_name("shop").start()?;
    /// telemetry.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start(self) -> Result<Telemetry, ExportError> {
        let telemetry = self.build()?;
        if !telemetry.is_disabled() {
            global::set_tracer_provider(telemetry.tracer_provider());
            global::set_meter_provider(telemetry.meter_provider());
        }
        Ok(telemetry)
    }

    /// Builds the providers with `lookup` as the environment.
    fn build_in(self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Telemetry, ExportError> {
        let mut environment = Environment::new(lookup);
        let disabled = environment.disabled();
        let signals = if disabled { None } else { Some(environment.signals()?) };
        let color = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Auto => self.writer.is_none() && stdout().is_terminal() && !environment.colorless(),
            ColorChoice::Never => false,
        };
        let width = self.width.or_else(|| environment.columns()).unwrap_or(DEFAULT_WIDTH);
        let screen = Screen::new(self.writer.unwrap_or_else(|| Box::new(stdout())), color, width);
        let pipeline = Pipeline { collector: Collector::new(screen, self.quiet), signals };
        let main = pipeline.providers(resource(self.service_name));
        let warnings = environment.into_warnings();
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        Ok(Telemetry::new(pipeline, main, warnings))
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("service_name", &self.service_name)
            .field("color", &self.color)
            .finish_non_exhaustive()
    }
}

/// What all services of a program feed.
#[derive(Debug)]
pub(crate) struct Pipeline {
    collector: Arc<Collector>,
    /// `None` if `OTEL_SDK_DISABLED` switched everything off.
    signals: Option<Signals>,
}

impl Pipeline {
    pub(crate) fn is_disabled(&self) -> bool {
        self.signals.is_none()
    }

    /// Makes the providers of one service.
    pub(crate) fn providers(&self, resource: Resource) -> Providers {
        let name = service_name(&resource);
        let mut tracer = SdkTracerProvider::builder().with_resource(resource.clone());
        // An empty variable counts as unset (ENV-14).
        if process_variable("OTEL_SPAN_LINK_COUNT_LIMIT").is_none_or(|value| value.is_empty()) {
            tracer = tracer.with_max_links_per_span(MAX_LINKS);
        }
        let mut meter = SdkMeterProvider::builder().with_resource(resource.clone());
        let mut logger = SdkLoggerProvider::builder().with_resource(resource);
        let Some(signals) = self.signals else {
            return switched_off(tracer.build(), meter.build(), logger.build());
        };
        // The first service takes the first colour, whoever emits first.
        self.collector.screen.style.service(&name);
        if signals.traces {
            tracer = tracer.with_span_processor(ConsoleSpans::new(self.collector.clone()));
        }
        if signals.metrics {
            let exporter = ConsoleMetrics::new(self.collector.clone());
            meter = meter.with_reader(PeriodicReader::builder(exporter).with_interval(NEVER).build());
        }
        if signals.logs {
            logger = logger.with_log_processor(ConsoleLogs::new(self.collector.clone()));
        }
        Providers { tracer: tracer.build(), meter: meter.build(), logger: logger.build() }
    }

    /// Draws all traces that have finished spans, quiet or not.
    pub(crate) fn draw_traces(&self) {
        self.collector.draw_all();
    }

    /// Draws everything and says whether the console could be written.
    pub(crate) fn draw(&self) -> Result<(), ExportError> {
        self.collector.draw_all();
        self.collector.draw_metrics()
    }

    /// Stops drawing by itself and says what became of the spans.
    pub(crate) fn close(&self) -> ShutdownReport {
        self.collector.close()
    }
}

/// Providers that are shut down hand out tracers, meters and loggers that do nothing.
fn switched_off(tracer: SdkTracerProvider, meter: SdkMeterProvider, logger: SdkLoggerProvider) -> Providers {
    let _ = (tracer.shutdown(), meter.shutdown(), logger.shutdown());
    Providers { tracer, meter, logger }
}
