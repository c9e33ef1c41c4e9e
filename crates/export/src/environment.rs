//! What the environment variables say.

#[cfg(any(feature = "otlp-grpc", feature = "otlp-http", feature = "zipkin"))]
use std::time::Duration;

/// The variables that name the exporters of a signal.
const EXPORTERS: [&str; 3] = ["OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"];

/// An exporter that the environment can name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Named {
    Console,
    Otlp,
    Prometheus,
    Zipkin,
}

/// A snapshot of the variables, read through one function so that tests need not change the process.
pub(crate) struct Environment<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

/// Which signals are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Signals {
    pub(crate) traces: bool,
    pub(crate) metrics: bool,
    pub(crate) logs: bool,
}

/// Reads a variable of this process.
pub(crate) fn process_variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl<'a> Environment<'a> {
    pub(crate) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, warnings: Vec::new() }
    }

    /// What was ignored, and why.
    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    /// Whether `OTEL_SDK_DISABLED` switches everything off.
    pub(crate) fn disabled(&mut self) -> bool {
        let Some(value) = self.variable("OTEL_SDK_DISABLED") else {
            return false;
        };
        if value.eq_ignore_ascii_case("true") {
            return true;
        }
        if !value.eq_ignore_ascii_case("false") {
            self.warn(format!("OTEL_SDK_DISABLED={value} is neither `true` nor `false`; telemetry stays on"));
        }
        false
    }

    /// Which signals `OTEL_*_EXPORTER` do not switch off.
    pub(crate) fn not_switched_off(&mut self) -> Signals {
        let mut on = |name| self.exporters(name).is_none_or(|named| !named.is_empty());
        Signals { traces: on(EXPORTERS[0]), metrics: on(EXPORTERS[1]), logs: on(EXPORTERS[2]) }
    }

    /// Which exporters `OTEL_*_EXPORTER` name, each with its signals. A signal whose variable names none has OTLP, as the specification says.
    pub(crate) fn named(&mut self) -> Vec<(Named, Signals)> {
        let [traces, metrics, logs] = EXPORTERS.map(|name| self.exporters(name).unwrap_or_else(|| vec![Named::Otlp]));
        let signals = |named| Signals {
            traces: traces.contains(&named),
            metrics: metrics.contains(&named),
            logs: logs.contains(&named),
        };
        let all = [Named::Otlp, Named::Zipkin, Named::Prometheus, Named::Console];
        all.into_iter().map(|named| (named, signals(named))).filter(|(_, signals)| signals.any()).collect()
    }

    /// The width that `COLUMNS` gives.
    pub(crate) fn columns(&mut self) -> Option<usize> {
        self.positive("COLUMNS")
    }

    /// Whether colours are unwelcome (<https://no-color.org>).
    pub(crate) fn colorless(&self) -> bool {
        self.variable("NO_COLOR").is_some() || self.variable("TERM").as_deref() == Some("dumb")
    }

    /// Looks whether the SDK, which reads it, knows the sampler; it says nothing where it does not.
    pub(crate) fn check_sampler(&mut self) {
        const KNOWN: [&str; 6] = [
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ];
        let Some(name) = self.variable("OTEL_TRACES_SAMPLER") else { return };
        if !KNOWN.contains(&name.as_str()) {
            let known = KNOWN.join("`, `");
            self.warn(format!("OTEL_TRACES_SAMPLER={name} is no sampler that is built in, such as `{known}`; `parentbased_always_on` is used"));
        }
        if !name.ends_with("traceidratio") {
            return;
        }
        let Some(ratio) = self.variable("OTEL_TRACES_SAMPLER_ARG") else {
            self.warn(format!(
                "OTEL_TRACES_SAMPLER={name} needs its ratio in OTEL_TRACES_SAMPLER_ARG; without, all traces are recorded"
            ));
            return;
        };
        if !ratio.parse::<f64>().is_ok_and(|ratio| (0.0..=1.0).contains(&ratio)) {
            self.warn(format!(
                "OTEL_TRACES_SAMPLER_ARG={ratio} is not a ratio from 0 to 1; ignored, so that all traces are recorded"
            ));
        }
    }

    /// The number that a variable gives, from one on.
    pub(crate) fn positive(&mut self, name: &str) -> Option<usize> {
        let value = self.variable(name)?;
        let number = value.parse().ok().filter(|number| *number > 0);
        if number.is_none() {
            self.warn(format!("{name}={value} is not a whole number from 1 on; ignored"));
        }
        number
    }

    /// The number that a variable gives, from zero on.
    pub(crate) fn count(&mut self, name: &str) -> Option<u32> {
        let value = self.variable(name)?;
        let number = value.parse().ok();
        if number.is_none() {
            self.warn(format!("{name}={value} is not a whole number; ignored"));
        }
        number
    }

    /// The time that a variable gives in milliseconds, from one on.
    #[cfg(any(feature = "otlp-grpc", feature = "otlp-http", feature = "zipkin"))]
    pub(crate) fn millis(&mut self, name: &str) -> Option<Duration> {
        self.positive(name).map(|millis| Duration::from_millis(millis as u64))
    }

    /// Looks whether `OTEL_RESOURCE_ATTRIBUTES`, which the SDK reads, can be read. The values are not in a warning: they may be long.
    pub(crate) fn check_resource(&mut self) {
        let Some(list) = self.variable("OTEL_RESOURCE_ATTRIBUTES") else { return };
        let is_pair = |entry: &str| entry.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty());
        let odd = list.split_terminator(',').filter(|entry| !is_pair(entry)).count();
        if odd > 0 {
            self.warn(format!("OTEL_RESOURCE_ATTRIBUTES has {odd} entries that are not `key=value`; they are ignored"));
        }
    }

    /// The exporters that a variable names: none for `none`, nothing where it does not say.
    fn exporters(&mut self, name: &str) -> Option<Vec<Named>> {
        let list = self.variable(name)?;
        let (mut named, mut none) = (Vec::new(), false);
        for value in list.split(',').map(str::trim).filter(|value| !value.is_empty()) {
            match value.to_ascii_lowercase().as_str() {
                "console" => named.push(Named::Console),
                "otlp" => named.push(Named::Otlp),
                "prometheus" if name == EXPORTERS[1] => named.push(Named::Prometheus),
                "zipkin" if name == EXPORTERS[0] => named.push(Named::Zipkin),
                "none" => none = true,
                _ => self.warn(format!("{name}={value} is not an exporter of this signal; ignored")),
            }
        }
        if none && !named.is_empty() {
            self.warn(format!("{name}={list} names exporters beside `none`; `none` is ignored"));
        }
        (none || !named.is_empty()).then_some(named)
    }

    /// The value of a variable; an empty one is the same as none.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    pub(crate) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }
}

impl Signals {
    fn any(self) -> bool {
        self.traces || self.metrics || self.logs
    }
}

#[cfg(test)]
mod tests {
    use super::{Environment, Named, Signals};

    const ALL: Signals = Signals { traces: true, metrics: true, logs: true };

    /// Reads from an environment with only these variables.
    fn with<T>(variables: &[(&str, &str)], read: impl FnOnce(&mut Environment<'_>) -> T) -> (T, Vec<String>) {
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let mut environment = Environment::new(&lookup);
        (read(&mut environment), environment.into_warnings())
    }

    // ENV-02, ENV-14.
    #[test]
    fn only_true_disables_and_odd_values_warn() {
        for (value, disabled, warnings) in
            [("true", true, 0), ("TRUE", true, 0), ("false", false, 0), ("", false, 0), ("1", false, 1)]
        {
            let (found, warned) = with(&[("OTEL_SDK_DISABLED", value)], |environment| environment.disabled());
            assert_eq!((found, warned.len()), (disabled, warnings), "{value:?}");
        }
    }

    // ENV-03, ENV-14, ENV-15.
    #[test]
    fn a_signal_has_the_exporters_that_its_variable_names() {
        let traces = Signals { traces: true, metrics: false, logs: false };
        let rest = Signals { traces: false, ..ALL };
        for (value, named, warnings) in [
            ("", vec![(Named::Otlp, ALL)], 0),
            ("otlp", vec![(Named::Otlp, ALL)], 0),
            (" Console ", vec![(Named::Otlp, rest), (Named::Console, traces)], 0),
            ("otlp,zipkin", vec![(Named::Otlp, ALL), (Named::Zipkin, traces)], 0),
            ("none", vec![(Named::Otlp, rest)], 0),
            ("none,console", vec![(Named::Otlp, rest), (Named::Console, traces)], 1),
            ("fax", vec![(Named::Otlp, ALL)], 1),
            ("prometheus", vec![(Named::Otlp, ALL)], 1),
        ] {
            let (found, warned) = with(&[("OTEL_TRACES_EXPORTER", value)], |environment| environment.named());
            assert_eq!((found, warned.len()), (named, warnings), "{value:?}");
        }
    }

    // ENV-16.
    #[test]
    fn an_exporter_of_the_code_loses_only_the_signals_that_are_switched_off() {
        for (value, metrics) in
            [("none", false), ("None, ", false), ("otlp", true), ("fax", true), ("none,console", true), ("", true)]
        {
            let variables = [("OTEL_METRICS_EXPORTER", value)];
            let (found, _) = with(&variables, |environment| environment.not_switched_off());
            assert_eq!(found, Signals { metrics, ..ALL }, "{value:?}");
        }
    }

    // ENV-05, ENV-15.
    #[test]
    fn a_sampler_that_is_not_there_is_a_warning() {
        for (name, argument, warnings) in [
            ("", "", 0),
            ("parentbased_always_off", "", 0),
            ("traceidratio", "0.25", 0),
            ("traceidratio", "25 %", 1),
            ("traceidratio", "1.5", 1),
            ("parentbased_traceidratio", "", 1),
            ("jaeger_remote", "", 1),
            ("Always_On", "", 1),
        ] {
            let variables = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)];
            let ((), warned) = with(&variables, |environment| environment.check_sampler());
            assert_eq!(warned.len(), warnings, "{name} {argument}: {warned:?}");
        }
    }

    // ENV-15.
    #[test]
    fn a_number_that_is_none_is_ignored_with_a_warning() {
        for (value, number, warnings) in
            [("4096", Some(4096), 0), ("", None, 0), ("many", None, 1), ("0", None, 1), ("-1", None, 1)]
        {
            let (found, warned) = with(&[("N", value)], |environment| environment.positive("N"));
            assert_eq!((found, warned.len()), (number, warnings), "{value:?}");
        }
    }

    // ENV-04, ENV-15.
    #[test]
    fn attributes_of_the_service_that_cannot_be_read_are_a_warning() {
        for (value, warnings) in
            [("", 0), ("a=b,c=d,", 0), ("a=b=c", 0), ("a", 1), ("a=1,=2", 1), ("deployment.environment:prod,a=b", 1)]
        {
            let ((), warned) = with(&[("OTEL_RESOURCE_ATTRIBUTES", value)], |environment| environment.check_resource());
            assert_eq!(warned.len(), warnings, "{value:?}: {warned:?}");
        }
    }

    // ENV-15.
    #[test]
    fn a_width_that_is_no_number_is_ignored_with_a_warning() {
        for (value, columns, warnings) in [("80", Some(80), 0), ("", None, 0), ("wide", None, 1), ("0", None, 1)] {
            let (found, warned) = with(&[("COLUMNS", value)], |environment| environment.columns());
            assert_eq!((found, warned.len()), (columns, warnings), "{value:?}");
        }
    }

    #[test]
    fn colours_can_be_declined() {
        assert!(with(&[("NO_COLOR", "1")], |environment| environment.colorless()).0);
        assert!(with(&[("TERM", "dumb")], |environment| environment.colorless()).0);
        assert!(!with(&[("NO_COLOR", "")], |environment| environment.colorless()).0);
    }
}
