//! Metrics on a page that Prometheus reads.

mod destination;
mod page;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use self::destination::PrometheusDestination;
use self::page::Page;
use crate::error::{ExportError, ExportErrorKind};
use crate::setup::Setup;
use crate::setup::sealed::{Open, Opening};

/// The port that is the custom for what OpenTelemetry shows to Prometheus.
const PORT: u16 = 9464;

/// Sets up metrics on a page that Prometheus reads: `http://localhost:9464/metrics` unless told otherwise. Traces and log records go nowhere.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let telemetry = throughline_export::prometheus().address(([127, 0, 0, 1], 0)).service_name("shop").start()?;
/// // … serve …
/// telemetry.shutdown().await?; // the page is gone
/// # Ok(())
/// # }
/// ```
pub fn prometheus() -> Setup<Prometheus> {
    Setup::new(Prometheus::default())
}

/// A page of metrics that Prometheus reads; made by [`prometheus()`].
///
/// It answers `GET /metrics`, only to programs on the same machine unless told otherwise, and on a thread of its own. Attributes of the service
/// are those of `target_info`. Only the main service of a program is shown. There are no exemplars: the SDK keeps none.
///
/// | setting | variable | default |
/// | --- | --- | --- |
/// | [`address`](Setup::address) | `OTEL_EXPORTER_PROMETHEUS_HOST`, `OTEL_EXPORTER_PROMETHEUS_PORT` | `localhost`, 9464 |
///
/// Source: [the Prometheus exporter](https://opentelemetry.io/docs/specs/otel/metrics/sdk_exporters/prometheus/).
#[derive(Debug, Default)]
pub struct Prometheus {
    address: Option<SocketAddr>,
    /// Whether the environment chose it, which then has asked for metrics.
    is_named: bool,
}

impl Setup<Prometheus> {
    /// Sets where the page is. Behind `0.0.0.0` everybody who reaches the machine can read it. Port 0 is any that is free.
    pub fn address(mut self, address: impl Into<SocketAddr>) -> Self {
        self.exporter.address = Some(address.into());
        self
    }
}

impl Prometheus {
    pub(crate) fn named() -> Self {
        Self { is_named: true, ..Self::default() }
    }
}

impl Open for Prometheus {
    fn open(self, opening: &mut Opening<'_, '_>) -> Result<(), ExportError> {
        let environment = &mut *opening.environment;
        if !self.is_named && !environment.not_switched_off().metrics {
            return Ok(());
        }
        let address = self.address.unwrap_or_else(|| SocketAddr::new(host(environment), port(environment)));
        let listener = TcpListener::bind(address).map_err(|error| {
            let text = format!("the page for Prometheus cannot be at {address}: {error}; set another address or port");
            ExportError::new(ExportErrorKind::Configuration, text)
        })?;
        opening.destinations.push(Box::new(PrometheusDestination::new(Page::start(listener)?)));
        Ok(())
    }
}

fn host(environment: &mut crate::environment::Environment<'_>) -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match environment.variable("OTEL_EXPORTER_PROMETHEUS_HOST") {
        None => loopback,
        Some(host) if host == "localhost" => loopback,
        Some(host) => host.parse().unwrap_or_else(|_| {
            environment.warn(format!(
                "OTEL_EXPORTER_PROMETHEUS_HOST={host} is neither an IP address nor `localhost`; ignored"
            ));
            loopback
        }),
    }
}

fn port(environment: &mut crate::environment::Environment<'_>) -> u16 {
    let Some(port) = environment.positive("OTEL_EXPORTER_PROMETHEUS_PORT") else { return PORT };
    u16::try_from(port).unwrap_or_else(|_| {
        environment.warn(format!("OTEL_EXPORTER_PROMETHEUS_PORT={port} is not a port; ignored"));
        PORT
    })
}
