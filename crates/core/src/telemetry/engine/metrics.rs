use std::time::Duration;

use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use opentelemetry::{KeyValue, global};

use super::until_set::UntilSet;
use crate::guard::{Foreign, Guard};
use crate::message::OperationType;
use crate::telemetry::semconv::{
    CLIENT_CONSUMED_MESSAGES, CLIENT_OPERATION_DURATION, CLIENT_SENT_MESSAGES, DURATION_BOUNDARIES, ERROR_TYPE,
    MESSAGING_OPERATION_TYPE, PROCESS_DURATION, PROCESS_IN_FLIGHT, QUEUE_DURATION, SETTLED_MESSAGES, SETTLEMENT,
    instrumentation_scope,
};

/// The metrics of an instrumentation. Without a provider neither is a clock read nor an attribute made.
pub(crate) struct Metrics {
    instruments: UntilSet<Instruments>,
    guard: Guard,
}

/// The instruments, created once for an instrumentation.
// METR-18.
struct Instruments {
    meter: Meter,
    client_duration: Histogram<f64>,
    process_duration: Histogram<f64>,
    queue_duration: Histogram<f64>,
    sent: Counter<u64>,
    consumed: Counter<u64>,
    settled: Counter<u64>,
    in_flight: UpDownCounter<i64>,
}

impl Instruments {
    fn new(meter: &Meter) -> Self {
        Self {
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
        }
    }

    /// Those of the global provider. The API's own, which records nothing, is told by its lack of any state.
    fn global() -> Option<Self> {
        let provider = global::meter_provider();
        (size_of_val(&*provider) > 0).then(|| Self::new(&provider.meter_with_scope(instrumentation_scope())))
    }
}

impl Metrics {
    /// Uses the global provider, from when it is set on.
    pub(crate) fn from_globals() -> Self {
        Self { instruments: UntilSet::new(), guard: Guard::default() }
    }

    pub(crate) fn new(meter: &Meter) -> Self {
        Self { instruments: UntilSet::given(Instruments::new(meter)), guard: Guard::default() }
    }

    /// The same, with what watches over the code of the meter provider.
    pub(super) fn guarded(self, guard: &Guard) -> Self {
        Self { guard: guard.clone(), ..self }
    }

    #[inline]
    fn instruments(&self) -> Option<&Instruments> {
        self.instruments.get(|| self.guard.run(Foreign::Metrics, Instruments::global).flatten())
    }

    /// Whether anything is recorded.
    #[inline]
    pub(crate) fn is_enabled(&self) -> bool {
        self.instruments().is_some()
    }

    /// What makes further metrics of the same scope; `None` where nobody measures.
    pub(crate) fn meter(&self) -> Option<Meter> {
        self.instruments().map(|instruments| instruments.meter.clone())
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
        let Some(instruments) = self.instruments.found() else { return };
        let histogram = match operation {
            OperationType::Process => &instruments.process_duration,
            _ => &instruments.client_duration,
        };
        self.with_error(attributes, error, |attributes| histogram.record(elapsed.as_secs_f64(), attributes));
    }

    pub(crate) fn sent(&self, messages: usize, attributes: &[KeyValue], error: Option<&str>) {
        if let Some(instruments) = self.instruments().filter(|_| messages > 0) {
            self.with_error(attributes, error, |attributes| instruments.sent.add(messages as u64, attributes));
        }
    }

    pub(crate) fn consumed(&self, messages: usize, attributes: &[KeyValue]) {
        if let Some(instruments) = self.instruments() {
            self.guard.run(Foreign::Metrics, || instruments.consumed.add(messages as u64, attributes));
        }
    }

    pub(crate) fn queued(&self, waited: Duration, attributes: &[KeyValue]) {
        if let Some(instruments) = self.instruments() {
            self.guard.run(Foreign::Metrics, || instruments.queue_duration.record(waited.as_secs_f64(), attributes));
        }
    }

    pub(crate) fn settled(&self, attributes: &[KeyValue]) {
        if let Some(instruments) = self.instruments() {
            self.guard.run(Foreign::Metrics, || instruments.settled.add(1, attributes));
        }
    }

    /// Counts one more or one less, and tells whether that is recorded: what was not counted in is not counted out.
    pub(crate) fn in_flight(&self, change: i64, attributes: &[KeyValue]) -> bool {
        let Some(instruments) = self.instruments() else { return false };
        self.guard.run(Foreign::Metrics, || instruments.in_flight.add(change, attributes));
        true
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
