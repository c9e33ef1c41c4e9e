//! Telemetry drawn on the terminal.
//!
//! `destination` is what the providers lead to: `processor`, `logs` and `metrics` receive what the SDK hands out, `collector` holds it
//! until a trace is quiet, `trace` and `series` make a picture's content of it, `waterfall` and `summary` draw that, in the ink of `style`.

mod collector;
mod destination;
mod logs;
mod metrics;
mod processor;
mod scale;
mod screen;
mod series;
mod style;
mod summary;
mod trace;
mod waterfall;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use self::destination::ConsoleDestination;
use self::screen::Screen;
use crate::destination::Destination;
use crate::environment::{Environment, process_variable};
use crate::error::ExportError;
use crate::telemetry::Telemetry;

/// The width of a picture when neither the code nor `COLUMNS` says.
const DEFAULT_WIDTH: usize = 100;

/// How long a trace must be silent to be drawn. Longer than the first pauses of a retry, so that these are one picture.
const DEFAULT_QUIET: Duration = Duration::from_secs(1);

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
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// Sets whether to use colours. The default is [`ColorChoice::Auto`].
    pub fn color(mut self, color: ColorChoice) -> Self {
        self.color = color;
        self
    }

    /// Sets the number of columns, at least 40. The default is `COLUMNS`, else 100.
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
        telemetry.install();
        Ok(telemetry)
    }

    /// Builds the providers with `lookup` as the environment.
    fn build_in(self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Telemetry, ExportError> {
        let mut environment = Environment::new(lookup);
        let signals = if environment.disabled() { None } else { Some(environment.signals()?) };
        let color = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Auto => self.writer.is_none() && stdout().is_terminal() && !environment.colorless(),
            ColorChoice::Never => false,
        };
        let width = self.width.or_else(|| environment.columns()).unwrap_or(DEFAULT_WIDTH);
        let screen = Screen::new(self.writer.unwrap_or_else(|| Box::new(stdout())), color, width);
        let destination = signals.map(|signals| ConsoleDestination::new(screen, self.quiet, signals));
        let destinations = destination.into_iter().map(|console| Box::new(console) as Box<dyn Destination>).collect();
        Ok(Telemetry::new(self.service_name, destinations, environment.into_warnings()))
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
