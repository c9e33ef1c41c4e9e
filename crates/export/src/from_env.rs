//! The exporters that the environment names.

use crate::console::Console;
use crate::environment::{Named, Signals};
use crate::error::ExportError;
use crate::setup::Setup;
use crate::setup::sealed::{Open, Opening};

/// Sets up the exporters that `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` and `OTEL_LOGS_EXPORTER` name.
///
/// Each is a list with commas of `otlp`, which is the default, `zipkin` for traces, `prometheus` for metrics,
/// `console` and `none`. The variables `OTEL_EXPORTER_OTLP_*` say where OTLP goes.
/// All but the console need the features of their names.
///
/// Source: [environment variables of OpenTelemetry](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let telemetry = throughline_export::from_env().service_name("stock").start()?;
/// // … serve …
/// println!("{}", telemetry.shutdown().await?);
/// # Ok(())
/// # }
/// ```
pub fn from_env() -> Setup<FromEnv> {
    Setup::new(FromEnv { _private: () })
}

/// The exporters that the environment names; made by [`from_env`].
#[derive(Debug)]
pub struct FromEnv {
    _private: (),
}

impl Open for FromEnv {
    fn open(self, opening: &mut Opening<'_, '_>) -> Result<(), ExportError> {
        let named = opening.environment.named();
        named.into_iter().try_for_each(|(named, signals)| open(named, signals, opening))
    }
}

fn open(named: Named, signals: Signals, opening: &mut Opening<'_, '_>) -> Result<(), ExportError> {
    match named {
        Named::Console => Console::only(signals).open(opening),
        #[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
        Named::Otlp => crate::otlp::Otlp::only(signals).open(opening),
        #[cfg(not(any(feature = "otlp-grpc", feature = "otlp-http")))]
        Named::Otlp => Err(not_built_in("otlp", "switch on the feature `otlp` of `throughline-export`, or set")),
        #[cfg(feature = "zipkin")]
        Named::Zipkin => crate::zipkin::Zipkin::named().open(opening),
        #[cfg(feature = "prometheus")]
        Named::Prometheus => crate::prometheus::Prometheus::named().open(opening),
        #[cfg(not(feature = "prometheus"))]
        Named::Prometheus => {
            Err(not_built_in("prometheus", "switch on the feature `prometheus` of `throughline-export`, or set"))
        }
        #[cfg(not(feature = "zipkin"))]
        Named::Zipkin => Err(not_built_in("zipkin", "switch on the feature `zipkin` of `throughline-export`, or set")),
    }
}

#[cfg(not(all(any(feature = "otlp-grpc", feature = "otlp-http"), feature = "prometheus", feature = "zipkin")))]
fn not_built_in(exporter: &str, advice: &str) -> ExportError {
    ExportError::new(
        crate::error::ExportErrorKind::UnsupportedExporter,
        format!(
            "the exporter `{exporter}` is not built in: {advice} OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER and \
             OTEL_LOGS_EXPORTER to exporters that are, such as `console` or `none`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ExportErrorKind;

    fn build(variables: &[(&str, &str)]) -> Result<crate::Telemetry, ExportError> {
        from_env()
            .service_name("shop")
            .build_in(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn an_exporter_that_is_missing_is_an_error_that_says_what_to_set() {
        let mut missing = Vec::new();
        if cfg!(not(feature = "prometheus")) {
            missing.push(("OTEL_METRICS_EXPORTER", "prometheus"));
        }
        if cfg!(not(feature = "zipkin")) {
            missing.push(("OTEL_TRACES_EXPORTER", "zipkin"));
        }
        for (variable, exporter) in missing {
            let none =
                ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"].map(|name| (name, "none"));
            let variables: Vec<_> = [(variable, exporter)].into_iter().chain(none).collect();
            let error = build(&variables).unwrap_err();
            assert_eq!(error.kind(), ExportErrorKind::UnsupportedExporter);
            assert!(
                error.to_string().contains(&format!("`{exporter}` is not built in: set {variable}"))
                    || error.to_string().contains(exporter),
                "{error}"
            );
        }
    }

    #[test]
    fn everything_can_be_switched_off() {
        let none = ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"].map(|name| (name, "none"));
        assert!(build(&none).unwrap().is_disabled());
    }
}
