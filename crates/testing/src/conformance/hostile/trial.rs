use opentelemetry::propagation::TextMapCompositePropagator;
use throughline_core::propagation::Propagators;
use throughline_core::telemetry::{BaggagePolicy, Builder, Instrumentation, Trust};

/// How a service treats strangers while the sets are tried on it.
#[derive(Clone, Debug)]
pub struct Trial {
    pub(super) trust: Trust,
    pub(super) inbound: BaggagePolicy,
    pub(super) outbound: BaggagePolicy,
    pub(super) formats: &'static str,
    pub(super) propagator: Option<fn() -> TextMapCompositePropagator>,
}

impl Trial {
    /// The defaults.
    pub const fn trusting() -> Self {
        Self {
            trust: Trust::Continue,
            inbound: BaggagePolicy::All,
            outbound: BaggagePolicy::All,
            formats: "tracecontext,baggage",
            propagator: None,
        }
    }

    /// Sets how far the headers are trusted.
    pub fn with_trust(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// Sets what is taken from incoming messages.
    pub fn with_inbound(self, inbound: BaggagePolicy) -> Self {
        Self { inbound, ..self }
    }

    /// Sets what is put on outgoing messages.
    pub fn with_outbound(self, outbound: BaggagePolicy) -> Self {
        Self { outbound, ..self }
    }

    /// Sets the formats, as in `OTEL_PROPAGATORS`.
    pub fn with_formats(self, formats: &'static str) -> Self {
        Self { formats, ..self }
    }

    /// Sets what reads and writes the formats, in place of this project's propagators.
    pub fn with_propagator(self, propagator: fn() -> TextMapCompositePropagator) -> Self {
        Self { propagator: Some(propagator), ..self }
    }

    /// Puts the choices into the telemetry of the service.
    pub(super) fn apply(&self, settings: Builder<Instrumentation>) -> Builder<Instrumentation> {
        let settings = match self.propagator {
            Some(propagator) => settings.propagator(propagator()),
            None => {
                settings.propagator(Propagators::from_names(self.formats).unwrap_or_else(|error| panic!("{error}")))
            }
        };
        settings.trust(self.trust).inbound_baggage(self.inbound.clone()).outbound_baggage(self.outbound.clone())
    }

    /// Tells whether a header is one that this service writes.
    pub(super) fn owns(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let formats: Vec<&str> = self.formats.split(',').collect();
        match name.as_str() {
            "traceparent" | "tracestate" => formats.contains(&"tracecontext"),
            "baggage" => formats.contains(&"baggage"),
            "b3" => formats.contains(&"b3"),
            "uber-trace-id" => formats.contains(&"jaeger"),
            _ if name.starts_with("uberctx-") => formats.contains(&"jaeger"),
            _ => name.starts_with("x-b3-") && formats.contains(&"b3multi"),
        }
    }

    /// Tells whether an entry with this key may be on an outgoing message.
    pub(super) fn admits(&self, key: &str) -> bool {
        self.trust == Trust::Continue && listed(&self.inbound, key) && listed(&self.outbound, key)
    }

    /// Tells whether the handler may see an entry with this key.
    pub(super) fn shows(&self, key: &str) -> bool {
        self.trust == Trust::Continue && listed(&self.inbound, key)
    }

    pub(super) fn continues_traces(&self) -> bool {
        self.trust == Trust::Continue
    }
}

fn listed(policy: &BaggagePolicy, key: &str) -> bool {
    match policy {
        BaggagePolicy::Only(keys) => keys.iter().any(|allowed| allowed == key),
        other => *other == BaggagePolicy::All,
    }
}
