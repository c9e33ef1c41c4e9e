//! Traces sent to Zipkin.
//!
//! `destination` is Zipkin as a place where telemetry leads, `exporter` sends to it, `span` is a span in its format.

mod destination;
mod exporter;
mod span;

#[cfg(test)]
mod tests;

use std::time::Duration;

use http::Uri;

use self::destination::ZipkinDestination;
use crate::batches::Batches;
use crate::error::{ExportError, ExportErrorKind};
use crate::setup::Setup;
use crate::setup::sealed::{Open, Opening};

const ENDPOINT: &str = "http://localhost:9411/api/v2/spans";

/// How long an export may take, with all its attempts.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sets up traces that are sent to Zipkin, on this machine unless told otherwise. Metrics and log records go nowhere: Zipkin has none.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let telemetry = throughline_export::zipkin().endpoint("http://zipkin:9411/api/v2/spans").service_name("shop").start()?;
/// // … serve …
/// println!("{}", telemetry.shutdown().await?);
/// # Ok(())
/// # }
/// ```
pub fn zipkin() -> Setup<Zipkin> {
    Setup::new(Zipkin::default())
}

/// An exporter that sends traces to Zipkin; made by [`zipkin`].
///
/// Spans wait in memory and are sent in batches, as with OTLP. A failed export is tried up to three times more, with growing pauses, within its
/// timeout. Zipkin has no links between traces, and shows no resource but the name of the service.
///
/// | setting | variable | default |
/// | --- | --- | --- |
/// | [`endpoint`](Setup::endpoint) | `OTEL_EXPORTER_ZIPKIN_ENDPOINT`, the whole URL | `http://localhost:9411/api/v2/spans` |
/// | [`timeout`](Setup::timeout) | `OTEL_EXPORTER_ZIPKIN_TIMEOUT`, milliseconds | 10 s |
/// | the room for what waits, the size of a batch, the time between batches | `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, `OTEL_BSP_SCHEDULE_DELAY` | 2,048; 512; 5 s |
///
/// Source: [the Zipkin exporter](https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/).
#[derive(Debug, Default)]
pub struct Zipkin {
    endpoint: Option<String>,
    timeout: Option<Duration>,
    /// Whether the environment chose it, which then has asked for traces.
    is_named: bool,
}

impl Setup<Zipkin> {
    /// Sets where traces go: the whole URL.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.exporter.endpoint = Some(url.into());
        self
    }

    /// Sets how long an export may take, with all its attempts.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.exporter.timeout = Some(timeout);
        self
    }
}

impl Zipkin {
    pub(crate) fn named() -> Self {
        Self { is_named: true, ..Self::default() }
    }
}

impl Open for Zipkin {
    fn open(self, opening: &mut Opening<'_, '_>) -> Result<(), ExportError> {
        let environment = &mut *opening.environment;
        if !self.is_named && !environment.not_switched_off().traces {
            return Ok(());
        }
        let (from, url) = match (self.endpoint, environment.variable("OTEL_EXPORTER_ZIPKIN_ENDPOINT")) {
            (Some(url), _) => ("the endpoint", url),
            (None, Some(url)) => ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", url),
            (None, None) => ("the endpoint", ENDPOINT.to_owned()),
        };
        let endpoint = read(from, &url)?;
        let batches = Batches::of_spans(environment);
        let said = environment.millis("OTEL_EXPORTER_ZIPKIN_TIMEOUT").unwrap_or(TIMEOUT);
        let timeout = self.timeout.unwrap_or_else(|| batches.timeout.map_or(said, |most| said.min(most)));
        opening.destinations.push(Box::new(ZipkinDestination::new(endpoint, timeout, batches)?));
        Ok(())
    }
}

fn read(from: &str, url: &str) -> Result<Uri, ExportError> {
    let uri = url.parse::<Uri>().ok().filter(|uri| {
        let is_known = uri.scheme_str() == Some("http") || cfg!(feature = "tls") && uri.scheme_str() == Some("https");
        is_known && uri.host().is_some()
    });
    uri.ok_or_else(|| {
        let why = "it must be a whole URL that begins with `http://`, like `http://zipkin:9411/api/v2/spans`";
        ExportError::new(ExportErrorKind::Configuration, format!("{from} is `{url}`: {why}"))
    })
}
