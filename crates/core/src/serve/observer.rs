use std::borrow::Cow;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::health::{HealthState, Place};
use crate::broker::{BrokerError, Observe};
use crate::telemetry::Consumer;

/// Hears what an adapter does by itself: for the telemetry of the app, where it has any, and for its health.
pub(super) struct Observer {
    pub(super) consumer: Option<Consumer>,
    pub(super) place: Place,
}

impl Observe for Observer {
    fn meter(&self) -> Option<Meter> {
        Observe::meter(self.consumer.as_ref()?)
    }

    fn settled(
        &self,
        started: Instant,
        destination: Option<&str>,
        attributes: Vec<KeyValue>,
        error: Option<&BrokerError>,
    ) {
        if let Some(consumer) = &self.consumer {
            Observe::settled(consumer, started, destination, attributes, error);
        }
    }

    fn degraded(&self, why: Option<Cow<'static, str>>) {
        self.place.set(why.map_or(HealthState::Ready, HealthState::Degraded));
    }

    fn assigned(&self, parts: Vec<String>) {
        self.place.assigned(parts);
    }

    fn polled(&self, again_within: Duration) {
        self.place.polled(again_within);
    }
}
