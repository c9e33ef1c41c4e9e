use std::time::Duration;

use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use opentelemetry::{KeyValue, global};

use crate::guard::{Foreign, Guard};
use crate::message::OperationType;
use crate::telemetry::semconv::{
    CLIENT_CONSUMED_MESSAGES, CLIENT_OPERATION_DURATION, CLIENT_SENT_MESSAGES, DURATION_BOUNDARIES, ERROR_TYPE,
    MESSAGING_OPERATION_TYPE, PROCESS_DURATION, PROCESS_IN_FLIGHT, QUEUE_DURATION, SETTLED_MESSAGES, SETTLEMENT,
    instrumentation_scope,
};

/// The instruments, created once for an instrumentation.
// METR-18.
pub(crate) struct Metrics {
    /// Whether anything is recorded. Without it neither is a clock read nor an attribute made.
    is_enabled: bool,
    meter: Meter,
    client_duration: Histogram<f64>,
    process_duration: Histogram<f64>,
    queue_duration: Histogram<f64>,
    sent: Counter<u64>,
    consumed: Counter<u64>,
    settled: Counter<u64>,
    in_flight: UpDownCounter<i64>,
    guard: Guard,
}

impl Metrics {
    /// Uses the global provider of now. The API's own, which records nothing, is told by its lack of any state.
    pub(crate) fn from_globals() -> Self {
        let provider = global::meter_provider();
        let is_enabled = size_of_val(&*provider) > 0;
        Self { is_enabled, ..Self::new(&provider.meter_with_scope(instrumentation_scope())) }
    }

    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            is_enabled: true,
            meter: meter.clone(),
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
            guard: Guard::default(),
        }
    }

    /// The same, with what watches over the code of the meter provider.
    pub(super) fn guarded(self, guard: &Guard) -> Self {
        Self { guard: guard.clone(), ..self }
    }

    pub(crate) const fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// What makes further metrics of the same scope; `None` where nobody measures.
    pub(crate) fn meter(&self) -> Option<Meter> {
        self.is_enabled.then(|| self.meter.clone())
    }

    /// Records the duration of a finished operation; a failed one carries `error.type`.
    // METR-17.
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
        self.with_error(attributes, error, |attributes| histogram.record(elapsed.as_secs_f64(), attributes));
    }

    pub(crate) fn sent(&self, messages: usize, attributes: &[KeyValue], error: Option<&str>) {
        if self.is_enabled && messages > 0 {
            self.with_error(attributes, error, |attributes| self.sent.add(messages as u64, attributes));
        }
    }

    pub(crate) fn consumed(&self, messages: usize, attributes: &[KeyValue]) {
        if self.is_enabled {
            self.guard.run(Foreign::Metrics, || self.consumed.add(messages as u64, attributes));
        }
    }

    pub(crate) fn queued(&self, waited: Duration, attributes: &[KeyValue]) {
        self.guard.run(Foreign::Metrics, || self.queue_duration.record(waited.as_secs_f64(), attributes));
    }

    pub(crate) fn settled(&self, attributes: &[KeyValue]) {
        if self.is_enabled {
            self.guard.run(Foreign::Metrics, || self.settled.add(1, attributes));
        }
    }

    pub(crate) fn in_flight(&self, change: i64, attributes: &[KeyValue]) {
        if self.is_enabled {
            self.guard.run(Foreign::Metrics, || self.in_flight.add(change, attributes));
        }
    }

    fn with_error(&self, attributes: &[KeyValue], error: Option<&str>, record: impl FnOnce(&[KeyValue])) {
        self.guard.run(Foreign::Metrics, || match error {
            None => record(attributes),
            Some(error) => {
                let mut attributes = attributes.to_vec();
                attributes.push(KeyValue::new(ERROR_TYPE, error.to_owned()));
                record(&attributes);
            }
        });
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

/// The attributes that count what became of messages, for one settlement.
pub(crate) fn with_settlement(attributes: &[KeyValue], settlement: &'static str) -> Vec<KeyValue> {
    let mut attributes = attributes.to_vec();
    attributes.push(KeyValue::new(SETTLEMENT, settlement));
    attributes
}

/// Adds `messaging.operation.type`, which only the client duration carries.
// METR-08.
pub(crate) fn with_operation_type(attributes: &[KeyValue], operation: OperationType) -> Vec<KeyValue> {
    let mut attributes = attributes.to_vec();
    attributes.push(KeyValue::new(MESSAGING_OPERATION_TYPE, operation.as_str()));
    attributes
}
