//! Telemetry drawn on the terminal.
//!
//! `destination` is what the providers lead to: `processor`, `logs` and `metrics` receive what the SDK hands out, `collector` holds it
//! until a trace is quiet, `finished` and `series` make of it what the crate `throughline-waterfall` draws.

mod collector;
mod destination;
mod finished;
mod logs;
mod metrics;
mod processor;
mod series;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use throughline_waterfall::Screen;

use self::destination::ConsoleDestination;
use crate::environment::Signals;
use crate::error::ExportError;
use crate::setup::Setup;
use crate::setup::sealed::{Open, Opening};

/// The width of a picture when neither the code nor `COLUMNS` says.
const DEFAULT_WIDTH: usize = 100;

/// How long a trace must be silent to be drawn. Longer than the first pauses of a retry, so that these are one picture.
const DEFAULT_QUIET: Duration = Duration::from_secs(1);

/// Sets up telemetry that is drawn on the terminal.
///
/// # Examples
///
/// ```
/// let telemetry = throughline_export::console().service_name("shop").build()?;
/// # Ok::<(), throughline_export::ExportError>(())
/// ```
pub fn console() -> Setup<Console> {
    Setup::new(Console::default())
}

/// An exporter that draws on the terminal; made by [`console`].
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
    color: ColorChoice,
    width: Option<usize>,
    quiet: Duration,
    writer: Option<Box<dyn Write + Send>>,
    /// Those that the environment gives the console; else all that it does not switch off.
    signals: Option<Signals>,
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

impl Setup<Console> {
    /// Sets whether to use colours. The default is [`ColorChoice::Auto`].
    pub fn color(mut self, color: ColorChoice) -> Self {
        self.exporter.color = color;
        self
    }

    /// Sets the number of columns, at least 40. The default is `COLUMNS`, else 100.
    pub fn width(mut self, columns: usize) -> Self {
        self.exporter.width = Some(columns);
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
        self.exporter.quiet = silence;
        self
    }

    /// Sets where to draw. The default is the standard output.
    pub fn writer(mut self, writer: impl Write + Send + 'static) -> Self {
        self.exporter.writer = Some(Box::new(writer));
        self
    }
}

impl Console {
    /// Draws these signals only.
    pub(crate) fn only(signals: Signals) -> Self {
        Self { signals: Some(signals), ..Self::default() }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self { color: ColorChoice::Auto, width: None, quiet: DEFAULT_QUIET, writer: None, signals: None }
    }
}

impl Open for Console {
    fn open(self, opening: &mut Opening<'_, '_>) -> Result<(), ExportError> {
        let environment = &mut *opening.environment;
        let color = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Auto => self.writer.is_none() && stdout().is_terminal() && !environment.colorless(),
            ColorChoice::Never => false,
        };
        let width = self.width.or_else(|| environment.columns()).unwrap_or(DEFAULT_WIDTH);
        let screen = Screen::new(self.writer.unwrap_or_else(|| Box::new(stdout())), color, width);
        let signals = self.signals.unwrap_or_else(|| environment.not_switched_off());
        opening.destinations.push(Box::new(ConsoleDestination::new(screen, self.quiet, signals)));
        Ok(())
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("color", &self.color).field("width", &self.width).finish_non_exhaustive()
    }
}
