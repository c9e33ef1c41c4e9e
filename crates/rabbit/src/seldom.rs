use std::time::{Duration, Instant};

/// How much time there is between two lines of the log about the same thing.
const PAUSE: Duration = Duration::from_secs(30);

/// Says when to tell of what a stranger can let happen often: of the first at once, of the next ones together.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Notes that it happened, and returns of how many times it is time to tell.
    pub(crate) fn note(&mut self) -> Option<u64> {
        self.note_at(Instant::now())
    }

    fn note_at(&mut self, now: Instant) -> Option<u64> {
        self.untold = self.untold.saturating_add(1);
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < PAUSE) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_next_ones_together() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.note_at(start), Some(1));
        assert_eq!(seldom.note_at(start + PAUSE / 3), None);
        assert_eq!(seldom.note_at(start + PAUSE / 2), None);
        assert_eq!(seldom.note_at(start + PAUSE), Some(3));
        assert_eq!(seldom.note_at(start + PAUSE), None);
    }
}
