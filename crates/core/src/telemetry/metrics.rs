use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};

use super::semconv::{
    CLIENT_CONSUMED_MESSAGES, CLIENT_OPERATION_DURATION, CLIENT_SENT_MESSAGES, DURATION_BOUNDARIES, ERROR_TYPE,
    MESSAGING_OPERATION_TYPE, PROCESS_DURATION, PROCESS_IN_FLIGHT, QUEUE_DURATION, SETTLED_MESSAGES, SETTLEMENT,
};
use crate::message::OperationType;

/// The instruments, created once for an instrumentation (METR-18).
pub(crate) struct Metrics {
    client_duration: Histogram<f64>,
    process_duration: Histogram<f64>,
    queue_duration: Histogram<f64>,
    sent: Counter<u64>,
    consumed: Counter<u64>,
    settled: Counter<u64>,
    in_flight: UpDownCounter<i64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            client_duration: duration(
                meter,
                CLIENT_OPERATION_DURATION,
                "Duration of create, send, receive and settle operations.",
            ),
            process_duration: duration(meter, PROCESS_DURATION, "Duration of processing a message or a batch."),
            queue_duration: duration(
                meter,
                QUEUE_DURATION,
                "Time between the broker taking a message and its handler starting.",
            ),
            sent: counter(meter, CLIENT_SENT_MESSAGES, "Messages the producer tried to send."),
            consumed: counter(meter, CLIENT_CONSUMED_MESSAGES, "Messages delivered to the application."),
            settled: counter(meter, SETTLED_MESSAGES, "Messages by what became of them."),
            in_flight: meter
                .i64_up_down_counter(PROCESS_IN_FLIGHT)
                .with_unit("{delivery}")
                .with_description("Deliveries being handled.")
                .build(),
        }
    }

    /// Records the duration of a finished operation; a failed one carries `error.type` (METR-17).
    pub(crate) fn duration(
        &self,
        operation: OperationType,
        elapsed: Duration,
        attributes: &[KeyValue],
        error: Option<&str>,
    ) {
        let histogram = match operation {
            OperationType::Process => &self.process_duration,
            _ => &self.client_duration,
        };
        with_error(attributes, error, |attributes| histogram.record(elapsed.as_secs_f64(), attributes));
    }

    pub(crate) fn sent(&self, messages: usize, attributes: &[KeyValue], error: Option<&str>) {
        if messages > 0 {
            with_error(attributes, error, |attributes| self.sent.add(messages as u64, attributes));
        }
    }

    pub(crate) fn consumed(&self, messages: usize, attributes: &[KeyValue]) {
        self.consumed.add(messages as u64, attributes);
    }

    pub(crate) fn queued(&self, waited: Duration, attributes: &[KeyValue]) {
        self.queue_duration.record(waited.as_secs_f64(), attributes);
    }

    pub(crate) fn settled(&self, settlement: &'static str, attributes: &[KeyValue]) {
        let mut attributes = attributes.to_vec();
        attributes.push(KeyValue::new(SETTLEMENT, settlement));
        self.settled.add(1, &attributes);
    }

    pub(crate) fn in_flight(&self, change: i64, attributes: &[KeyValue]) {
        self.in_flight.add(change, attributes);
    }
}

fn with_error(attributes: &[KeyValue], error: Option<&str>, record: impl FnOnce(&[KeyValue])) {
    match error {
        None => record(attributes),
        Some(error) => {
            let mut attributes = attributes.to_vec();
            attributes.push(KeyValue::new(ERROR_TYPE, error.to_owned()));
            record(&attributes);
        }
    }
}

fn duration(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<f64> {
    meter
        .f64_histogram(name)
        .with_unit("s")
        .with_description(description)
        .with_boundaries(DURATION_BOUNDARIES.to_vec())
        .build()
}

fn counter(meter: &Meter, name: &'static str, description: &'static str) -> Counter<u64> {
    meter.u64_counter(name).with_unit("{message}").with_description(description).build()
}

/// Adds `messaging.operation.type`, which only the client duration carries (METR-08).
pub(crate) fn with_operation_type(attributes: &[KeyValue], operation: OperationType) -> Vec<KeyValue> {
    let mut attributes = attributes.to_vec();
    attributes.push(KeyValue::new(MESSAGING_OPERATION_TYPE, operation.as_str()));
    attributes
}
