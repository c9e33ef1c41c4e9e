//! The metrics of what was exported and lost. Names and attributes are those of the conventions for what an SDK says of itself.

use std::sync::Arc;

use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::settings::Sending;
use crate::tally::Tally;

/// Lets the meter ask what became of the items of a signal.
pub(super) fn measure(meter: &Meter, tally: &Arc<Tally>, of: &Names) {
    let (exported, attributes) = (tally.clone(), of.exporter.clone());
    let _ = meter
        .u64_observable_counter(format!("otel.sdk.exporter.{}.exported", of.signal))
        .with_unit(of.unit)
        .with_description("What was delivered, and with an error type what was not.")
        .with_callback(move |observer| {
            observer.observe(exported.exported(), &attributes);
            observer.observe(exported.failed(), &failed(&attributes, "_OTHER"));
            observer.observe(exported.rejected(), &failed(&attributes, "rejected"));
        })
        .build();
    let (processed, attributes) = (tally.clone(), of.processor.clone());
    let _ = meter
        .u64_observable_counter(format!("otel.sdk.processor.{}.processed", of.signal))
        .with_unit(of.unit)
        .with_description("What left for its export, and with an error type what there was no room for.")
        .with_callback(move |observer| {
            observer.observe(processed.handed_over(), &attributes);
            observer.observe(processed.refused(), &failed(&attributes, "queue_full"));
        })
        .build();
}

fn failed(attributes: &[KeyValue], error_type: &'static str) -> Vec<KeyValue> {
    let error_type = KeyValue::new("error.type", error_type);
    attributes.iter().cloned().chain([error_type]).collect()
}

/// What the metrics of a signal are called, and who is measured.
pub(super) struct Names {
    signal: &'static str,
    unit: &'static str,
    exporter: Vec<KeyValue>,
    processor: Vec<KeyValue>,
}

impl Names {
    pub(super) fn new(signal: &'static str, unit: &'static str, sending: &Sending) -> Self {
        let exporter = component(format!("otlp_{}_{signal}_exporter", sending.protocol.component()));
        let endpoint = sending.endpoint.parse::<Uri>().ok();
        let host = endpoint.as_ref().and_then(Uri::host).map(|host| KeyValue::new("server.address", host.to_owned()));
        let port = endpoint.as_ref().and_then(Uri::port_u16).map(|port| KeyValue::new("server.port", i64::from(port)));
        let exporter = exporter.into_iter().chain(host).chain(port).collect();
        Self { signal, unit, exporter, processor: component(format!("batching_{signal}_processor")).into() }
    }
}

/// A part of the pipeline: there is one of each kind.
fn component(kind: String) -> [KeyValue; 2] {
    [KeyValue::new("otel.component.name", format!("{kind}/0")), KeyValue::new("otel.component.type", kind)]
}
