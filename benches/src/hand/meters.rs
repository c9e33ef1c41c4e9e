use std::time::{Instant, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider, UpDownCounter};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::spans::attributes;
use crate::load::Door;

const BOUNDARIES: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// What ours records for a message, with attributes that are made once.
///
/// The framework also knows how long a message waited and how it was settled.
pub(super) struct Meters {
    framework: bool,
    sent: Counter<u64>,
    consumed: Counter<u64>,
    settled: Counter<u64>,
    in_flight: UpDownCounter<i64>,
    client_duration: Histogram<f64>,
    process_duration: Histogram<f64>,
    queue_duration: Histogram<f64>,
    send: Vec<KeyValue>,
    send_duration: Vec<KeyValue>,
    process: Vec<KeyValue>,
    settle: Vec<KeyValue>,
}

impl Meters {
    pub(super) fn new(provider: &SdkMeterProvider, door: Door, destination: &'static str) -> Self {
        let meter = provider.meter("by hand");
        let send = metric_attributes("publish", "send", destination);
        let process = metric_attributes("process", "process", destination);
        let mut settle = process.clone();
        settle.push(KeyValue::new("settlement", "ack"));
        let mut send_duration = send.clone();
        send_duration.push(KeyValue::new("messaging.operation.type", "send"));
        Self {
            framework: door == Door::Framework,
            sent: counter(&meter, "messaging.client.sent.messages"),
            consumed: counter(&meter, "messaging.client.consumed.messages"),
            settled: counter(&meter, "settled.messages"),
            in_flight: meter.i64_up_down_counter("process.in_flight").build(),
            client_duration: duration(&meter, "messaging.client.operation.duration"),
            process_duration: duration(&meter, "messaging.process.duration"),
            queue_duration: duration(&meter, "queue.duration"),
            send,
            send_duration,
            process,
            settle,
        }
    }

    pub(super) fn start(&self) -> Instant {
        Instant::now()
    }

    /// The time of sending, where the time in the queue is recorded.
    pub(super) fn sent_at(&self) -> Option<SystemTime> {
        self.framework.then(SystemTime::now)
    }

    pub(super) fn sent(&self, started: Instant) {
        self.client_duration.record(started.elapsed().as_secs_f64(), &self.send_duration);
        self.sent.add(1, &self.send);
    }

    pub(super) fn arrived(&self, sent_at: Option<SystemTime>) -> Instant {
        let started = Instant::now();
        self.consumed.add(1, &self.process);
        if let Some(waited) = sent_at.and_then(|sent| SystemTime::now().duration_since(sent).ok()) {
            self.queue_duration.record(waited.as_secs_f64(), &self.process);
        }
        self.in_flight.add(1, &self.process);
        started
    }

    pub(super) fn processed(&self, started: Instant) {
        self.process_duration.record(started.elapsed().as_secs_f64(), &self.process);
        self.in_flight.add(-1, &self.process);
        if self.framework {
            self.settled.add(1, &self.settle);
        }
    }
}

/// What is known of every message of a destination, without the connection's own id.
fn metric_attributes(verb: &'static str, operation: &'static str, destination: &'static str) -> Vec<KeyValue> {
    let all = attributes(verb, operation, destination);
    all.into_iter().take(6).filter(|attribute| attribute.key.as_str() != "messaging.operation.type").collect()
}

fn counter(meter: &Meter, name: &'static str) -> Counter<u64> {
    meter.u64_counter(name).with_unit("{message}").build()
}

fn duration(meter: &Meter, name: &'static str) -> Histogram<f64> {
    meter.f64_histogram(name).with_unit("s").with_boundaries(BOUNDARIES.to_vec()).build()
}
