//! What becomes of the events and spans of `tracing`: lines on the terminal, log records, and spans in traces.

use std::fmt::{self, Write as _};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TracerProvider};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::environment::Environment;
use crate::error::{ExportError, ExportErrorKind};
use crate::providers::Providers;

/// What is logged where nobody says.
const DEFAULT_FILTER: &str = "info";

/// What becomes of the events and spans of [`tracing`](https://docs.rs/tracing) in a program.
///
/// Each event is a line, with the trace and the span it happened in, and a log record for the exporters. Each span is a span of the trace.
///
/// # Examples
///
/// ```no_run
/// use throughline_export::{Logging, from_env};
///
/// # fn main() -> Result<(), throughline_export::ExportError> {
/// let telemetry = from_env().service_name("stock").logging(Logging::json().filter("info,stock=debug")).start()?;
/// tracing::info!(item = "lamp", "reserved");
/// # Ok(())
/// # }
/// ```
pub struct Logging {
    lines: Lines,
    filter: Option<String>,
    writer: BoxMakeWriter,
}

/// How a line looks.
#[derive(Clone, Copy, Debug)]
enum Lines {
    Text,
    Json,
    None,
}

impl Logging {
    /// Lines that are easy to read, on the standard error.
    pub fn text() -> Self {
        Self::new(Lines::Text)
    }

    /// Lines of JSON, on the standard error: `timestamp`, `level`, `target`, the fields, `trace_id` and `span_id`.
    pub fn json() -> Self {
        Self::new(Lines::Json)
    }

    /// No lines: events only go to the exporters.
    pub fn silent() -> Self {
        Self::new(Lines::None)
    }

    fn new(lines: Lines) -> Self {
        Self { lines, filter: None, writer: BoxMakeWriter::new(std::io::stderr) }
    }

    /// Sets what is logged and traced, in the language of
    /// [`EnvFilter`](https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html), in place of `RUST_LOG`. The
    /// default is `info`.
    pub fn filter(mut self, directives: impl Into<String>) -> Self {
        self.filter = Some(directives.into());
        self
    }

    /// Sets where lines go, in place of the standard error.
    pub fn writer(mut self, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) -> Self {
        self.writer = BoxMakeWriter::new(writer);
        self
    }

    /// Reads the filter, before anything is installed.
    pub(crate) fn read(self, environment: &mut Environment<'_>) -> Result<Ready, ExportError> {
        let filter = match self.filter {
            Some(filter) => EnvFilter::try_new(&filter).map_err(|error| {
                let text = format!("the filter `{filter}` of the log cannot be read: {error}");
                ExportError::new(ExportErrorKind::Configuration, text)
            })?,
            None => by_variable(environment),
        };
        Ok(Ready { lines: self.lines, filter, writer: self.writer })
    }
}

fn by_variable(environment: &mut Environment<'_>) -> EnvFilter {
    if let Some(directives) = environment.variable("RUST_LOG") {
        match EnvFilter::try_new(&directives) {
            Ok(filter) => return filter,
            Err(error) => environment.warn(format!("RUST_LOG={directives} cannot be read: {error}; ignored")),
        }
    }
    EnvFilter::new(DEFAULT_FILTER)
}

/// Logging that can be installed.
pub(crate) struct Ready {
    lines: Lines,
    filter: EnvFilter,
    writer: BoxMakeWriter,
}

impl Ready {
    /// Makes the subscriber the one of this process. Fails where there is one.
    pub(crate) fn install(self, providers: &Providers) -> Result<(), ExportError> {
        self.subscriber(providers).try_init().map_err(|_| {
            ExportError::new(
                ExportErrorKind::AlreadyStarted,
                "`tracing` has a subscriber already: leave `logging` out, and add `Telemetry::layer` to that subscriber".to_owned(),
            )
        })
    }

    fn subscriber(self, providers: &Providers) -> impl Subscriber + Send + Sync + 'static {
        let lines: Option<Box<dyn Layer<_> + Send + Sync>> = match self.lines {
            Lines::Text => {
                let format = WithIds { inner: Format::default(), end: end_of_text };
                Some(
                    tracing_subscriber::fmt::layer()
                        .with_ansi(false)
                        .event_format(format)
                        .with_writer(self.writer)
                        .boxed(),
                )
            }
            Lines::Json => {
                let format = WithIds { inner: Format::default().json().flatten_event(true), end: end_of_json };
                let layer = tracing_subscriber::fmt::layer().fmt_fields(JsonFields::new()).event_format(format);
                Some(layer.with_writer(self.writer).boxed())
            }
            Lines::None => None,
        };
        Registry::default().with(layer(providers)).with(lines).with(self.filter).with(filter_fn(is_shown))
    }
}

/// What brings events to the logger provider and spans to the tracer provider.
pub(crate) fn layer<S>(providers: &Providers) -> impl Layer<S> + Send + Sync + 'static
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let tracer = providers.tracer_provider().tracer("tracing");
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        // Events are log records.
        .with_filter(filter_fn(|metadata| metadata.is_span() && is_shown(metadata)));
    spans.and_then(OpenTelemetryTracingBridge::new(&providers.logger_provider()).with_filter(filter_fn(is_shown)))
}

/// The clients of brokers. What they do is in the spans of the adapters.
const CLIENTS: [&str; 3] = ["async_nats", "lapin", "rdkafka"];

/// Where `lapin` logs a message that came back, with its body.
const RETURNED_MESSAGES: &str = "lapin::returned_messages";

/// Whether a span or an event is for anybody to see: the own spans of a client would be traces of nobody, some as long as the program runs,
/// and a body belongs in no log.
fn is_shown(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_of_client = || target.split("::").next().is_some_and(|package| CLIENTS.contains(&package));
    target != RETURNED_MESSAGES && !(metadata.is_span() && is_of_client())
}

/// A format, and the ids of the trace and of the span at the end of each line.
struct WithIds<F> {
    inner: F,
    end: fn(&mut String, &SpanContext) -> fmt::Result,
}

fn end_of_text(line: &mut String, span: &SpanContext) -> fmt::Result {
    write!(line, " trace_id={} span_id={}", span.trace_id(), span.span_id())
}

fn end_of_json(line: &mut String, span: &SpanContext) -> fmt::Result {
    if line.ends_with('}') {
        line.pop();
        write!(line, r#","trace_id":"{}","span_id":"{}"}}"#, span.trace_id(), span.span_id())?;
    }
    Ok(())
}

impl<S, N, F> FormatEvent<S, N> for WithIds<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        line.truncate(line.trim_end().len());
        let current = Context::current();
        let span = current.span().span_context().clone();
        if span.is_valid() {
            (self.end)(&mut line, &span)?;
        }
        writeln!(writer, "{line}")
    }
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging").field("lines", &self.lines).field("filter", &self.filter).finish_non_exhaustive()
    }
}
