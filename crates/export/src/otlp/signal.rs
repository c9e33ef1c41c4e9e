//! Traces, metrics and logs, as OTLP spells them.

/// A signal, as variables and paths spell it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signal {
    variable: &'static str,
    pub(super) path: &'static str,
}

pub(super) const TRACES: Signal = Signal { variable: "TRACES", path: "/v1/traces" };
pub(super) const METRICS: Signal = Signal { variable: "METRICS", path: "/v1/metrics" };
pub(super) const LOGS: Signal = Signal { variable: "LOGS", path: "/v1/logs" };

impl Signal {
    /// The variable of this signal, and that of all.
    pub(super) fn variables(self, setting: &str) -> [String; 2] {
        [format!("OTEL_EXPORTER_OTLP_{}_{setting}", self.variable), format!("OTEL_EXPORTER_OTLP_{setting}")]
    }
}
