//! Telemetry sent over OTLP: to a collector, to Jaeger, Tempo or any other backend that takes it.
//!
//! `settings` brings code and environment together, `exporters` makes the exporters of the signals by them, `destination` puts these behind
//! batching processors whose items are counted. Over gRPC `grpc` sends, over HTTP `opentelemetry-otlp`.

mod answer;
mod destination;
mod exporters;
#[cfg(feature = "otlp-grpc")]
mod grpc;
mod headers;
mod measures;
#[cfg(feature = "otlp-http")]
mod reader;
mod settings;
mod signal;
#[cfg(feature = "tls")]
mod tls;

#[cfg(test)]
#[cfg(all(feature = "otlp-grpc", feature = "otlp-http"))]
mod tests;

use std::time::Duration;

use self::destination::OtlpDestination;
use self::settings::Settings;
use crate::environment::Signals;
use crate::error::ExportError;
use crate::setup::Setup;
use crate::setup::sealed::{Open, Opening};

/// Sets up telemetry that is sent over OTLP, to a collector on this machine unless told otherwise.
///
/// # Examples
///
/// ```no_run
/// use throughline_export::Protocol;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let telemetry = throughline_export::otlp()
///     .endpoint("http://collector:4317")
///     .protocol(Protocol::Grpc)
///     .header("authorization", "Bearer secret")
///     .service_name("shop")
///     .start()?;
/// // … serve …
/// println!("{}", telemetry.shutdown().await?);
/// # Ok(())
/// # }
/// ```
pub fn otlp() -> Setup<Otlp> {
    Setup::new(Otlp::default())
}

/// An exporter that sends over OTLP; made by [`otlp`].
///
/// Spans and log records wait in memory and are sent in batches, metrics once in a while. A failed export is tried up to three times more, with
/// growing pauses, within its timeout; what is not delivered then is lost, counted and logged. Messages never wait for any of it.
///
/// | setting | variable | default |
/// | --- | --- | --- |
/// | [`endpoint`](Setup::endpoint) | `OTEL_EXPORTER_OTLP_ENDPOINT` | `http://localhost:4318`, for gRPC port 4317 |
/// | [`protocol`](Setup::protocol) | `OTEL_EXPORTER_OTLP_PROTOCOL`: `grpc`, `http/protobuf`, `http/json` | [`Protocol::HttpProtobuf`] |
/// | [`header`](Setup::header) | `OTEL_EXPORTER_OTLP_HEADERS`: `key=value`, with commas | none |
/// | [`timeout`](Setup::timeout) | `OTEL_EXPORTER_OTLP_TIMEOUT`, milliseconds | 10 s |
/// | [`gzip`](Setup::gzip) | `OTEL_EXPORTER_OTLP_COMPRESSION`: `gzip`, `none` | none |
/// | [`traces_only`](Setup::traces_only) | `OTEL_METRICS_EXPORTER=none`, `OTEL_LOGS_EXPORTER=none`, which count for every exporter | all signals |
/// | `certificate`, with the feature `tls` | `OTEL_EXPORTER_OTLP_CERTIFICATE`: who has signed the server, a file in PEM | the authorities of the system |
/// | `client_certificate`, with the feature `tls` | `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`, `OTEL_EXPORTER_OTLP_CLIENT_KEY`: files in PEM | none |
/// | the room for what waits | `OTEL_BSP_MAX_QUEUE_SIZE` spans, `OTEL_BLRP_MAX_QUEUE_SIZE` log records | 2,048 each; at most 65,536 |
/// | the size of a batch | `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, `OTEL_BLRP_MAX_EXPORT_BATCH_SIZE` | 512 |
/// | the time between batches | `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BLRP_SCHEDULE_DELAY`, milliseconds | 5 s; 1 s |
/// | the time between exports of metrics | `OTEL_METRIC_EXPORT_INTERVAL`, milliseconds | 60 s |
/// | a shorter time for an export of one signal | `OTEL_BSP_EXPORT_TIMEOUT`, `OTEL_BLRP_EXPORT_TIMEOUT`, `OTEL_METRIC_EXPORT_TIMEOUT`, milliseconds | none |
/// | whether metrics are counted anew for each export | `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`: `cumulative`, `delta`, `lowmemory` | `cumulative` |
/// | `http` or `https`, for an endpoint of gRPC that does not say | `OTEL_EXPORTER_OTLP_INSECURE`: `true`, `false` | `https` |
///
/// Each `OTEL_EXPORTER_OTLP_*` is also there for one signal, such as `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, and then wins over the general one.
/// An endpoint for one signal is the whole URL; to others `/v1/traces`, `/v1/metrics` and `/v1/logs` is added for HTTP.
///
/// Source: [the OTLP exporter](https://opentelemetry.io/docs/specs/otel/protocol/exporter/).
#[derive(Debug, Default)]
pub struct Otlp {
    endpoint: Option<String>,
    protocol: Option<Protocol>,
    headers: Vec<(String, String)>,
    timeout: Option<Duration>,
    gzip: bool,
    traces_only: bool,
    #[cfg(feature = "tls")]
    authority: Option<String>,
    #[cfg(feature = "tls")]
    identity: Option<(String, String)>,
    /// Those that the environment gives OTLP; else all that it does not switch off.
    signals: Option<Signals>,
}

/// How OTLP is spoken.
///
/// # Examples
///
/// ```
/// use throughline_export::Protocol;
///
/// # #[cfg(feature = "otlp-grpc")]
/// assert_eq!(Protocol::Grpc.to_string(), "grpc");
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// gRPC, on port 4317 by custom.
    #[cfg(feature = "otlp-grpc")]
    Grpc,
    /// HTTP with binary bodies, on port 4318 by custom.
    #[cfg(feature = "otlp-http")]
    HttpProtobuf,
    /// HTTP with JSON bodies, on port 4318 by custom.
    #[cfg(feature = "otlp-http")]
    HttpJson,
}

impl Setup<Otlp> {
    /// Sets where telemetry goes: the base URL, without the path of a signal.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.exporter.endpoint = Some(url.into());
        self
    }

    /// Sets how OTLP is spoken.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.exporter.protocol = Some(protocol);
        self
    }

    /// Adds a header to each request, such as a token. Headers of the environment are sent, too, but for those of the same name.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.exporter.headers.push((name.into(), value.into()));
        self
    }

    /// Sets how long an export may take, with all its attempts.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.exporter.timeout = Some(timeout);
        self
    }

    /// Compresses what is sent.
    pub fn gzip(mut self) -> Self {
        self.exporter.gzip = true;
        self
    }

    /// Sends neither metrics nor log records: for a backend that keeps only traces, such as Jaeger. What it refuses counts as dropped, and a
    /// line of the log says so. Other exporters beside this one have theirs all the same.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_export::{console, otlp};
    ///
    /// let telemetry = otlp().endpoint("http://jaeger:4318").traces_only().and(console()).build()?;
    /// # Ok::<(), throughline_export::ExportError>(())
    /// ```
    pub fn traces_only(mut self) -> Self {
        self.exporter.traces_only = true;
        self
    }
}

#[cfg(feature = "tls")]
impl Setup<Otlp> {
    /// Trusts the servers that this authority has signed, in place of those of the system: a file in PEM.
    pub fn certificate(mut self, path: impl Into<String>) -> Self {
        self.exporter.authority = Some(path.into());
        self
    }

    /// Shows a certificate of its own to the server: files in PEM, with the certificate and its key.
    pub fn client_certificate(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.exporter.identity = Some((certificate.into(), key.into()));
        self
    }
}

impl Otlp {
    /// Sends these signals only.
    pub(crate) fn only(signals: Signals) -> Self {
        Self { signals: Some(signals), ..Self::default() }
    }
}

impl Open for Otlp {
    fn open(self, opening: &mut Opening<'_, '_>) -> Result<(), ExportError> {
        let mut signals = self.signals.unwrap_or_else(|| opening.environment.not_switched_off());
        signals.metrics &= !self.traces_only;
        signals.logs &= !self.traces_only;
        let settings = Settings::new(self, opening.environment)?;
        opening.destinations.push(Box::new(OtlpDestination::new(settings, signals)?));
        Ok(())
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            #[cfg(feature = "otlp-grpc")]
            Self::Grpc => "grpc",
            #[cfg(feature = "otlp-http")]
            Self::HttpProtobuf => "http/protobuf",
            #[cfg(feature = "otlp-http")]
            Self::HttpJson => "http/json",
        })
    }
}
