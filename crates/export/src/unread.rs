//! Variables of the specification that have no effect here, so that nobody waits for one.

use crate::environment::Environment;

/// What of a variable has no effect.
#[derive(Clone, Copy)]
enum Ineffective {
    /// Whatever it says.
    Always,
    /// All but this value, which is what happens anyway.
    But(&'static str),
}

use Ineffective::{Always, But};

/// The variables, and what to do instead.
// ENV-07, ENV-09, ENV-10, ENV-11.
const UNREAD: [(&str, Ineffective, &str); 17] = [
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", Always, LENGTH),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", Always, LENGTH),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", Always, RECORDS),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", Always, RECORDS),
    ("OTEL_BSP_MAX_CONCURRENT_EXPORTS", But("1"), "batches leave one after the other"),
    ("OTEL_CONFIG_FILE", Always, FILE),
    ("OTEL_EXPERIMENTAL_CONFIG_FILE", Always, FILE),
    ("OTEL_ENTITIES", Always, "OTEL_RESOURCE_ATTRIBUTES says what the service is"),
    ("OTEL_LOG_LEVEL", Always, "the filter of the log says what is logged, which RUST_LOG sets with `logging`"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", But("always_off"), "there are no exemplars"),
    (
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        But("explicit_bucket_histogram"),
        "histograms have the buckets that their instrument advises",
    ),
    ("OTEL_EXPORTER_OTLP_SPAN_INSECURE", Always, INSECURE),
    ("OTEL_EXPORTER_OTLP_METRIC_INSECURE", Always, INSECURE),
    ("OTEL_EXPORTER_ZIPKIN_PROTOCOL", But("http/json"), "Zipkin is spoken to in JSON over HTTP"),
    ("OTEL_EXPORTER_JAEGER_ENDPOINT", Always, JAEGER),
    ("OTEL_EXPORTER_JAEGER_AGENT_HOST", Always, JAEGER),
    ("OTEL_EXPORTER_JAEGER_PROTOCOL", Always, JAEGER),
];

const LENGTH: &str =
    "values are not cut here; `max_value_length` of the telemetry settings bounds what is taken from messages";
const RECORDS: &str = "log records are exported as they are";
const FILE: &str = "no file is read; say it in code or in variables";
const INSECURE: &str = "the variables are OTEL_EXPORTER_OTLP_TRACES_INSECURE and OTEL_EXPORTER_OTLP_METRICS_INSECURE";
const JAEGER: &str = "Jaeger takes OTLP; OTEL_EXPORTER_OTLP_ENDPOINT says where";

/// Warns of each that is set and would change something elsewhere.
// ENV-15.
pub(crate) fn warn(environment: &mut Environment<'_>) {
    for (name, ineffective, instead) in UNREAD {
        let Some(value) = environment.variable(name) else { continue };
        match ineffective {
            But(usual) if value.eq_ignore_ascii_case(usual) => {}
            Always | But(_) => environment.warn(format!("{name} has no effect: {instead}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(name: &str, value: &str) -> Vec<String> {
        let lookup = |asked: &str| (asked == name).then(|| value.to_owned());
        let mut environment = Environment::new(&lookup);
        warn(&mut environment);
        environment.into_warnings()
    }

    #[test]
    fn a_variable_without_effect_is_a_warning_that_names_it() {
        for (name, ineffective, _) in UNREAD {
            let said = warnings(name, "something");
            assert!(said.len() == 1 && said[0].starts_with(name), "{said:?}");
            assert!(warnings(name, "").is_empty(), "{name}");
            if let But(usual) = ineffective {
                assert!(warnings(name, usual).is_empty(), "{name}={usual}");
            }
        }
        assert!(warnings("OTEL_SERVICE_NAME", "shop").is_empty());
    }
}
