use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

    /// Notes that a message has come.
    pub(super) fn note_received(&self) {
        self.note(&self.received);
    }

    /// Notes a poll, and within what time the next one comes.
    pub(super) fn note_polled(&self, again_within: Duration) {
        self.poll_limit.store(micros(again_within), Ordering::Relaxed);
        self.note(&self.polled);
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
