use std::time::{Duration, Instant, SystemTime};

/// When an operation began. Where durations are measured it is read from both clocks: the span ends at start time plus elapsed, and the
/// metric is the same elapsed. Where they are not, the SDK takes the times of its spans itself, and reads no clock for a span
/// that is not sampled.
// METR-11.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    started: Option<Instant>,
    start_time: Option<SystemTime>,
    ended: Option<Instant>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Some(Instant::now()), start_time: Some(SystemTime::now()), ended: None }
    }

    /// A clock of an operation that began earlier.
    pub(crate) fn started_at(started: Instant) -> Self {
        let start_time = SystemTime::now().checked_sub(started.elapsed());
        Self { started: Some(started), start_time, ended: None }
    }

    /// Sets when the operation ended, where that is before it is recorded.
    pub(crate) fn end_at(&mut self, ended: Instant) {
        self.ended = Some(ended);
    }

    /// The time of day when the operation began, if it was read.
    pub(crate) const fn start_time(&self) -> Option<SystemTime> {
        self.start_time
    }

    /// How long the operation has taken, if that is measured.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        self.started.map(|started| started.elapsed())
    }

    /// Says when the operation ended: now, unless that is known.
    pub(crate) fn end(&self) -> End {
        let at = self.started.map(|_| self.ended.unwrap_or_else(Instant::now));
        let elapsed = at.zip(self.started).map(|(ended, started)| ended.saturating_duration_since(started));
        let time = elapsed.zip(self.start_time).map(|(elapsed, started)| started + elapsed);
        End { at, elapsed, time }
    }
}

/// When an operation ended, and how long it took, where that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    at: Option<Instant>,
    pub(crate) elapsed: Option<Duration>,
    pub(crate) time: Option<SystemTime>,
}

impl End {
    /// A clock that starts where the operation ended.
    pub(crate) const fn followed(self) -> Clock {
        Clock { started: self.at, start_time: self.time, ended: None }
    }
}
