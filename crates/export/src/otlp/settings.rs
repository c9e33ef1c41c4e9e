//! How each signal is sent: what the code says, else its own variable, else the one for all signals, else the default.

use std::time::Duration;

use http::{HeaderMap, Uri};
use opentelemetry_sdk::metrics::Temporality;

use super::signal::{LOGS, METRICS, Signal, TRACES};
use super::{Otlp, Protocol, headers};
use crate::batches::Batches;
use crate::environment::Environment;
use crate::error::{ExportError, ExportErrorKind};
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// How long an export may take, with all its attempts.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The time between two exports of metrics.
const INTERVAL: Duration = Duration::from_secs(60);

/// How everything is sent.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) traces: Sending,
    pub(super) metrics: Sending,
    pub(super) logs: Sending,
    pub(super) span_batches: Batches,
    pub(super) log_batches: Batches,
    /// The time between two exports of metrics.
    pub(super) metric_interval: Duration,
    pub(super) temporality: Temporality,
}

/// How one signal is sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) endpoint: String,
    pub(super) protocol: Protocol,
    pub(super) timeout: Duration,
    pub(super) gzip: bool,
    pub(super) headers: HeaderMap,
    #[cfg(feature = "tls")]
    pub(super) tls: Tls,
}

impl Settings {
    pub(super) fn new(said: Otlp, environment: &mut Environment<'_>) -> Result<Self, ExportError> {
        let (span_batches, log_batches) = (Batches::of_spans(environment), Batches::of_logs(environment));
        let export_of_metrics = environment.millis("OTEL_METRIC_EXPORT_TIMEOUT");
        Ok(Self {
            traces: Sending::new(&said, TRACES, span_batches.timeout, environment)?,
            metrics: Sending::new(&said, METRICS, export_of_metrics, environment)?,
            logs: Sending::new(&said, LOGS, log_batches.timeout, environment)?,
            span_batches,
            log_batches,
            metric_interval: environment.millis("OTEL_METRIC_EXPORT_INTERVAL").unwrap_or(INTERVAL),
            temporality: temporality(environment),
        })
    }
}

impl Sending {
    /// The environment may say how long an export takes `at_most`.
    fn new(
        said: &Otlp,
        signal: Signal,
        at_most: Option<Duration>,
        environment: &mut Environment<'_>,
    ) -> Result<Self, ExportError> {
        let protocol = match said.protocol {
            Some(protocol) => protocol,
            None => first(signal, "PROTOCOL", environment, protocol_of).unwrap_or(Protocol::DEFAULT),
        };
        Ok(Self {
            endpoint: endpoint(said, signal, protocol, environment)?,
            protocol,
            timeout: said.timeout.unwrap_or_else(|| {
                let timeout = first(signal, "TIMEOUT", environment, timeout_of).unwrap_or(TIMEOUT);
                at_most.map_or(timeout, |most| timeout.min(most))
            }),
            gzip: said.gzip || first(signal, "COMPRESSION", environment, gzip_of).unwrap_or(false),
            headers: headers::read(&said.headers, signal, environment)?,
            #[cfg(feature = "tls")]
            tls: tls(said, signal, environment)?,
        })
    }
}

impl Protocol {
    #[cfg(feature = "otlp-http")]
    const DEFAULT: Self = Self::HttpProtobuf;
    #[cfg(not(feature = "otlp-http"))]
    const DEFAULT: Self = Self::Grpc;

    /// What the conventions call an exporter of this protocol.
    pub(super) fn component(self) -> &'static str {
        match self {
            #[cfg(feature = "otlp-grpc")]
            Self::Grpc => "grpc",
            #[cfg(feature = "otlp-http")]
            Self::HttpProtobuf => "http",
            #[cfg(feature = "otlp-http")]
            Self::HttpJson => "http_json",
        }
    }

    fn is_http(self) -> bool {
        #[cfg(feature = "otlp-grpc")]
        return self != Self::Grpc;
        #[cfg(not(feature = "otlp-grpc"))]
        return true;
    }
}

/// Reads the variable of a signal, else the one of all signals. One that cannot be understood is a warning and counts as unset.
fn first<T>(
    signal: Signal,
    setting: &str,
    environment: &mut Environment<'_>,
    parse: fn(&str) -> Result<T, &'static str>,
) -> Option<T> {
    for name in signal.variables(setting) {
        let Some(value) = environment.variable(&name) else { continue };
        match parse(&value) {
            Ok(parsed) => return Some(parsed),
            Err(expected) => environment.warn(format!("{name}={value} is not {expected}; ignored")),
        }
    }
    None
}

fn protocol_of(value: &str) -> Result<Protocol, &'static str> {
    match value {
        #[cfg(feature = "otlp-grpc")]
        "grpc" => Ok(Protocol::Grpc),
        #[cfg(feature = "otlp-http")]
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        #[cfg(feature = "otlp-http")]
        "http/json" => Ok(Protocol::HttpJson),
        _ => Err(
            "one of the protocols that are built in: `grpc` (feature `otlp-grpc`), `http/protobuf`, `http/json` (`otlp-http`)",
        ),
    }
}

fn timeout_of(value: &str) -> Result<Duration, &'static str> {
    value.parse().map(Duration::from_millis).map_err(|_| "a whole number of milliseconds")
}

fn gzip_of(value: &str) -> Result<bool, &'static str> {
    match value {
        "gzip" => Ok(true),
        "none" => Ok(false),
        _ => Err("`gzip` or `none`"),
    }
}

fn bool_of(value: &str) -> Result<bool, &'static str> {
    value.to_ascii_lowercase().parse().map_err(|_| "`true` or `false`")
}

/// Where a signal goes: the whole URL.
fn endpoint(
    said: &Otlp,
    signal: Signal,
    protocol: Protocol,
    environment: &mut Environment<'_>,
) -> Result<String, ExportError> {
    let [own, general] = signal.variables("ENDPOINT");
    let (from, url, is_whole) = if let Some(url) = &said.endpoint {
        ("the endpoint".to_owned(), url.clone(), false)
    } else if let Some(url) = environment.variable(&own) {
        (own, url, true)
    } else if let Some(url) = environment.variable(&general) {
        (general, url, false)
    } else {
        let port = if protocol.is_http() { 4318 } else { 4317 };
        ("the endpoint".to_owned(), format!("http://localhost:{port}"), false)
    };
    let url = match protocol.is_http() {
        true if is_whole => url,
        true => format!("{}{}", url.trim_end_matches('/'), signal.path),
        // Over gRPC a host and a port are enough.
        false if url.contains("://") => url,
        false if first(signal, "INSECURE", environment, bool_of).unwrap_or(false) => format!("http://{url}"),
        false => format!("https://{url}"),
    };
    check(&from, &url)?;
    Ok(url)
}

fn check(from: &str, url: &str) -> Result<(), ExportError> {
    let refuse = |why: &str| Err(ExportError::new(ExportErrorKind::Configuration, format!("{from} is `{url}`: {why}")));
    // Before anything that would show the URL.
    if url.rsplit("://").next().is_some_and(|rest| rest.split('/').next().is_some_and(|host| host.contains('@'))) {
        let text = format!("{from} has credentials in its URL, which are not sent: say them in a header");
        return Err(ExportError::new(ExportErrorKind::Configuration, text));
    }
    let Ok(uri) = url.parse::<Uri>() else {
        return refuse("that is not a URL; write it like `http://collector:4318`");
    };
    match uri.scheme_str() {
        Some("http") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        Some("https") if cfg!(feature = "tls") && uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        Some("https") if cfg!(not(feature = "tls")) => refuse(
            "TLS is not built in; switch on the feature `tls`, or send to a collector beside this service with `http`",
        ),
        _ => refuse("it must begin with `http://` and name a host, like `http://collector:4318`"),
    }
}

#[cfg(feature = "tls")]
fn tls(said: &Otlp, signal: Signal, environment: &Environment<'_>) -> Result<Tls, ExportError> {
    let by_variable = |setting: &str| {
        let named = |name: String| environment.variable(&name).map(|path| (name, path));
        signal.variables(setting).into_iter().find_map(named)
    };
    let authority = said.authority.clone().map(|path| ("the certificate of the authority".to_owned(), path));
    let (certificate, key) = match &said.identity {
        Some((certificate, key)) => (
            Some(("the client certificate".to_owned(), certificate.clone())),
            Some(("the client key".to_owned(), key.clone())),
        ),
        None => (by_variable("CLIENT_CERTIFICATE"), by_variable("CLIENT_KEY")),
    };
    Tls::read(authority.or_else(|| by_variable("CERTIFICATE")), certificate, key)
}

/// How the values of metrics relate to those before.
// ENV-11.
fn temporality(environment: &mut Environment<'_>) -> Temporality {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let Some(value) = environment.variable(NAME) else { return Temporality::Cumulative };
    match value.to_ascii_lowercase().as_str() {
        "cumulative" => Temporality::Cumulative,
        "delta" => Temporality::Delta,
        "lowmemory" => Temporality::LowMemory,
        _ => {
            environment.warn(format!("{NAME}={value} is not `cumulative`, `delta` or `lowmemory`; ignored"));
            Temporality::Cumulative
        }
    }
}

#[cfg(test)]
#[cfg(all(feature = "otlp-http", feature = "otlp-grpc"))]
mod tests {
    use super::*;
    use crate::otlp::otlp;

    fn settings(said: Otlp, variables: &[(&str, &str)]) -> (Result<Settings, ExportError>, Vec<String>) {
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let mut environment = Environment::new(&lookup);
        (Settings::new(said, &mut environment), environment.into_warnings())
    }

    fn endpoints(said: Otlp, variables: &[(&str, &str)]) -> [String; 2] {
        let settings = settings(said, variables).0.unwrap();
        [settings.traces.endpoint, settings.logs.endpoint]
    }

    // ENV-11, ENV-14.
    #[test]
    fn each_signal_has_its_own_path_over_http_and_none_over_grpc() {
        let none: [(&str, &str); 0] = [];
        assert_eq!(
            endpoints(Otlp::default(), &none),
            ["http://localhost:4318/v1/traces", "http://localhost:4318/v1/logs"]
        );
        let grpc = otlp().protocol(Protocol::Grpc).exporter;
        assert_eq!(endpoints(grpc, &none), ["http://localhost:4317", "http://localhost:4317"]);
        let general =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:1/base/"), ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "")];
        assert_eq!(
            endpoints(Otlp::default(), &general),
            ["http://collector:1/base/v1/traces", "http://collector:1/base/v1/logs"]
        );
        let own = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:1"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://tempo:2/in"),
        ];
        assert_eq!(endpoints(Otlp::default(), &own), ["http://tempo:2/in", "http://collector:1/v1/logs"]);
    }

    // ENV-11, ENV-15.
    #[test]
    fn an_endpoint_of_grpc_without_a_scheme_is_as_secure_as_the_environment_says() {
        let grpc = || otlp().protocol(Protocol::Grpc).exporter;
        let with =
            |insecure| [("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", insecure)];
        assert_eq!(endpoints(grpc(), &with("TRUE"))[0], "http://collector:4317");
        #[cfg(feature = "tls")]
        for (insecure, warned) in [("", 0), ("false", 0), ("1", 1)] {
            let (read, warnings) = settings(grpc(), &with(insecure));
            assert_eq!(read.unwrap().traces.endpoint, "https://collector:4317");
            assert_eq!(
                warnings.iter().filter(|warning| warning.starts_with("OTEL_EXPORTER_OTLP_INSECURE=1")).count() > 0,
                warned > 0
            );
        }
    }

    // ENV-16.
    #[test]
    fn the_code_wins_over_the_environment() {
        let said = otlp()
            .endpoint("http://here:1")
            .protocol(Protocol::HttpJson)
            .timeout(Duration::from_secs(1))
            .gzip()
            .exporter;
        let variables = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://there:2"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ];
        let traces = settings(said, &variables).0.unwrap().traces;
        assert_eq!(traces.endpoint, "http://here:1/v1/traces");
        assert_eq!((traces.protocol, traces.timeout, traces.gzip), (Protocol::HttpJson, Duration::from_secs(1), true));
    }

    // ENV-15.
    #[test]
    fn what_cannot_be_understood_is_a_warning_and_the_next_one_counts() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "carrier-pigeon"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ];
        let (settings, warnings) = settings(Otlp::default(), &variables);
        let settings = settings.unwrap();
        assert_eq!((settings.traces.protocol, settings.traces.timeout), (Protocol::Grpc, TIMEOUT));
        assert!(
            warnings.iter().any(|warning| warning.starts_with("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=carrier-pigeon")),
            "{warnings:?}"
        );
        assert!(warnings.iter().any(|warning| warning.starts_with("OTEL_EXPORTER_OTLP_TIMEOUT=10s")), "{warnings:?}");
    }

    #[test]
    fn an_endpoint_that_cannot_be_used_is_an_error_that_names_its_origin() {
        for (url, part) in [
            ("not a url", "not a URL"),
            ("collector:4318", "must begin with `http://`"),
            ("ftp://collector", "must begin with `http://`"),
            ("http://", "not a URL"),
            #[cfg(not(feature = "tls"))]
            ("https://collector", "TLS"),
        ] {
            let error = settings(Otlp::default(), &[("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", url)]).0.unwrap_err();
            assert_eq!(error.kind(), ExportErrorKind::Configuration, "{url}");
            let text = error.to_string();
            assert!(text.starts_with("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT is") && text.contains(part), "{text}");
        }
    }

    /// A server is not told of credentials in a URL, and a log would be.
    #[test]
    fn credentials_in_an_endpoint_are_an_error_that_does_not_show_them() {
        for endpoint in ["http://anna:secret@collector:4318", "http://secret@collector"] {
            let error = settings(otlp().endpoint(endpoint).exporter, &[]).0.unwrap_err();
            assert_eq!(error.kind(), ExportErrorKind::Configuration);
            assert!(error.to_string().contains("header") && !error.to_string().contains("secret"), "{error}");
        }
    }

    // ENV-07, ENV-08, ENV-09, ENV-16.
    #[test]
    fn the_shorter_time_of_the_environment_bounds_an_export_unless_the_code_says_one() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "100"),
            ("OTEL_BLRP_EXPORT_TIMEOUT", "30000"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "200"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "300"),
        ];
        let read = settings(Otlp::default(), &variables).0.unwrap();
        let times = [read.traces.timeout, read.metrics.timeout, read.logs.timeout, read.metric_interval];
        assert_eq!(times.map(|time| time.as_millis()), [100, 200, 5000, 300]);
        let said = otlp().timeout(Duration::from_secs(7)).exporter;
        assert_eq!(settings(said, &variables).0.unwrap().traces.timeout, Duration::from_secs(7));
    }

    // ENV-11, ENV-15.
    #[test]
    fn metrics_are_as_the_environment_prefers() {
        for (value, temporality, warnings) in [
            ("", Temporality::Cumulative, 0),
            ("Delta", Temporality::Delta, 0),
            ("lowmemory", Temporality::LowMemory, 0),
            ("sometimes", Temporality::Cumulative, 1),
        ] {
            let (read, warned) =
                settings(Otlp::default(), &[("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", value)]);
            assert_eq!((read.unwrap().temporality, warned.len()), (temporality, warnings), "{value}");
        }
    }
}
