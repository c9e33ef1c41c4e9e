use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::health::{Health, HealthState};
use crate::broker::{BrokerError, Observe};
use crate::telemetry::Consumer;

/// How many times the time between two polls may pass until a subscription counts as one that hangs.
const PATIENCE: u32 = 2;

/// The signs of life of a subscription. Written for each message, so without a lock.
#[derive(Debug)]
pub(super) struct Vitals {
    began: Instant,
    /// In microseconds since then; 0 for never.
    received: AtomicU64,
    polled: AtomicU64,
    /// Within how many microseconds the next poll comes.
    poll_limit: AtomicU64,
}

impl Vitals {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            received: AtomicU64::new(0),
            polled: AtomicU64::new(0),
            poll_limit: AtomicU64::new(0),
        }
    }

    pub(super) fn last_received(&self) -> Option<Instant> {
        self.at(&self.received)
    }

    pub(super) fn last_polled(&self) -> Option<Instant> {
        self.at(&self.polled)
    }

    /// Tells whether what polls has not done so for far too long.
    pub(super) fn hangs(&self) -> bool {
        let limit = Duration::from_micros(self.poll_limit.load(Ordering::Relaxed));
        self.last_polled().is_some_and(|last| last.elapsed() > limit.saturating_mul(PATIENCE))
    }

    fn note(&self, what: &AtomicU64) {
        what.store(micros(self.began.elapsed()).max(1), Ordering::Relaxed);
    }

    fn at(&self, what: &AtomicU64) -> Option<Instant> {
        let noted = Some(what.load(Ordering::Relaxed)).filter(|noted| *noted > 0)?;
        self.began.checked_add(Duration::from_micros(noted))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The place of one subscription in the health of its service.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) health: Health,
    pub(super) index: usize,
    pub(super) vitals: Arc<Vitals>,
}

impl Place {
    pub(super) fn set(&self, state: HealthState) {
        self.health.change(self.index, |own| {
            if own.state != HealthState::Stopped {
                own.state = state;
            }
        });
    }

    /// Notes that a message has come.
    pub(super) fn received(&self) {
        self.vitals.note(&self.vitals.received);
    }
}

/// Shows a subscription as stopped when it is dropped, however that came.
pub(super) struct Stops(pub(super) Place);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.set(HealthState::Stopped);
    }
}

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
        self.place.health.change(self.place.index, |own| own.assigned = Some(parts));
    }

    fn polled(&self, again_within: Duration) {
        let vitals = &self.place.vitals;
        vitals.poll_limit.store(micros(again_within), Ordering::Relaxed);
        vitals.note(&vitals.polled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_poll_for_twice_its_time_hangs() {
        let (vitals, second) = (Vitals::new(), Duration::from_secs(1));
        let earlier = |ago: Duration| Vitals { began: Instant::now().checked_sub(ago).unwrap(), ..Vitals::new() };
        assert!(!vitals.hangs(), "one that never polls");
        for (ago, hangs) in [(second, false), (3 * second, true)] {
            let vitals = earlier(ago);
            vitals.polled.store(1, Ordering::Relaxed);
            vitals.poll_limit.store(micros(second), Ordering::Relaxed);
            assert_eq!(vitals.hangs(), hangs, "{ago:?}");
            vitals.note(&vitals.polled);
            assert!(!vitals.hangs());
        }
    }
}
