//! Which traces were there before.

use std::collections::{HashMap, VecDeque};

use opentelemetry::trace::TraceId;

/// How many traces are remembered; the oldest are forgotten. What comes later of one that is forgotten looks like a new one.
const REMEMBERED: usize = 10_000;

/// Traces that are done, and whether they were shown.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    shown: HashMap<TraceId, bool>,
    order: VecDeque<TraceId>,
}

impl Remembered {
    /// Whether it was shown; `None` if it was not there.
    pub(super) fn was_shown(&self, id: TraceId) -> Option<bool> {
        self.shown.get(&id).copied()
    }

    /// Notes that it was there. One that was shown once counts as shown.
    pub(super) fn note(&mut self, id: TraceId, shown: bool) {
        if let Some(known) = self.shown.get_mut(&id) {
            *known |= shown;
            return;
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.shown.remove(&oldest);
        }
        self.shown.insert(id, shown);
        self.order.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceId;

    use super::{REMEMBERED, Remembered};

    #[test]
    fn the_oldest_are_forgotten() {
        let mut remembered = Remembered::default();
        for id in 1..=REMEMBERED as u128 + 5 {
            remembered.note(TraceId::from(id), false);
        }
        assert_eq!((remembered.shown.len(), remembered.order.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(remembered.was_shown(TraceId::from(5)), None);
        assert_eq!(remembered.was_shown(TraceId::from(6)), Some(false));
        remembered.note(TraceId::from(6), true);
        remembered.note(TraceId::from(6), false);
        assert_eq!(remembered.was_shown(TraceId::from(6)), Some(true));
    }
}
