//! What the environment variables say.

use crate::error::{ExportError, ExportErrorKind};

/// Exporters that the specification names and this version does not have.
const NOT_BUILT_IN: [&str; 3] = ["otlp", "prometheus", "zipkin"];

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

    /// Which signals `OTEL_*_EXPORTER` leave on.
    pub(crate) fn signals(&mut self) -> Result<Signals, ExportError> {
        Ok(Signals {
            traces: self.exports("OTEL_TRACES_EXPORTER")?,
            metrics: self.exports("OTEL_METRICS_EXPORTER")?,
            logs: self.exports("OTEL_LOGS_EXPORTER")?,
        })
    }

    /// The width that `COLUMNS` gives.
    pub(crate) fn columns(&mut self) -> Option<usize> {
        let value = self.variable("COLUMNS")?;
        let columns = value.parse().ok().filter(|columns| *columns > 0);
        if columns.is_none() {
            self.warn(format!("COLUMNS={value} is not a number of columns; ignored"));
        }
        columns
    }

    /// Whether colours are unwelcome (<https://no-color.org>).
    pub(crate) fn colorless(&self) -> bool {
        self.variable("NO_COLOR").is_some() || self.variable("TERM").as_deref() == Some("dumb")
    }

    fn exports(&mut self, name: &str) -> Result<bool, ExportError> {
        let Some(list) = self.variable(name) else {
            return Ok(true);
        };
        let (mut console, mut none) = (false, false);
        for value in list.split(',').map(str::trim).filter(|value| !value.is_empty()) {
            match value.to_ascii_lowercase().as_str() {
                "console" => console = true,
                "none" => none = true,
                other if NOT_BUILT_IN.contains(&other) => return Err(not_built_in(name, other)),
                _ => self.warn(format!("{name}={value} is not a known exporter; ignored")),
            }
        }
        Ok(console || !none)
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }
}

fn not_built_in(name: &str, value: &str) -> ExportError {
    ExportError::new(
        ExportErrorKind::UnsupportedExporter,
        format!("{name}={value} is not built into this version; set {name} to `console` or `none`, or unset it"),
    )
}

#[cfg(test)]
mod tests {
    use super::{Environment, Signals};
    use crate::error::{ExportError, ExportErrorKind};

    /// Reads from an environment with only these variables.
    fn with<T>(variables: &[(&str, &str)], read: impl FnOnce(&mut Environment<'_>) -> T) -> (T, Vec<String>) {
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let mut environment = Environment::new(&lookup);
        (read(&mut environment), environment.into_warnings())
    }

    fn signals(name: &str, value: &str) -> (Result<Signals, ExportError>, Vec<String>) {
        with(&[(name, value)], |environment| environment.signals())
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
    fn an_exporter_may_be_console_or_none() {
        for (value, traces, warnings) in [
            ("console", true, 0),
            ("none", false, 0),
            (" None ", false, 0),
            ("", true, 0),
            ("console,none", true, 0),
            ("fax", true, 1),
        ] {
            let (found, warned) = signals("OTEL_TRACES_EXPORTER", value);
            assert_eq!((found.unwrap().traces, warned.len()), (traces, warnings), "{value:?}");
        }
        let (found, _) = signals("OTEL_METRICS_EXPORTER", "none");
        assert_eq!(found.unwrap(), Signals { traces: true, metrics: false, logs: true });
    }

    #[test]
    fn an_exporter_that_is_missing_is_an_error_saying_what_to_set() {
        for (name, value) in [("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_METRICS_EXPORTER", "console,Prometheus")] {
            let error = signals(name, value).0.unwrap_err();
            assert_eq!(error.kind(), ExportErrorKind::UnsupportedExporter);
            assert!(error.to_string().contains(&format!("set {name} to `console` or `none`")), "{error}");
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
