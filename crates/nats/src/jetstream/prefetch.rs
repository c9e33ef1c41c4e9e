use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

/// Within which half of what is held must be taken to hold more.
const FAST: Duration = Duration::from_millis(20);

/// After which half of what is held is taken too slowly to hold as much.
const SLOW: Duration = Duration::from_millis(500);

/// How many messages a pull consumer holds ready: as many as its handlers take in a moment.
///
/// Each request costs the server, so that fast handlers want large ones; what slow handlers hold is kept from the other
/// services that share the consumer, and counts towards its `max_ack_pending`.
pub(super) struct Prefetch {
    range: RangeInclusive<usize>,
    now: usize,
    asked: Option<Instant>,
}

impl Prefetch {
    /// Starts with the least, within the limit of a consumer that has one.
    pub(super) fn new(range: RangeInclusive<usize>, max_batch: i64) -> Self {
        let limit = usize::try_from(max_batch).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let range = limit.min(*range.start())..=limit.min(*range.end());
        Self { now: *range.start(), range, asked: None }
    }

    /// Returns how many are to be held now.
    pub(super) const fn now(&self) -> usize {
        self.now
    }

    /// Notes that half of them are taken and the next ones are asked for.
    pub(super) fn half_is_taken(&mut self) {
        let now = Instant::now();
        let taken_in = self.asked.replace(now).map(|asked| now.duration_since(asked));
        self.now = match taken_in {
            Some(time) if time < FAST => self.now.saturating_mul(2).min(*self.range.end()),
            Some(time) if time > SLOW => (self.now / 2).max(*self.range.start()),
            _ => self.now,
        };
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fast_handlers_have_more_ready_and_slow_ones_less() {
        let mut prefetch = Prefetch::new(64..=512, 0);
        prefetch.half_is_taken();
        assert_eq!(prefetch.now(), 64);
        for expected in [128, 256, 512, 512] {
            advance(FAST / 2).await;
            prefetch.half_is_taken();
            assert_eq!(prefetch.now(), expected);
        }
        advance(FAST * 2).await;
        prefetch.half_is_taken();
        assert_eq!(prefetch.now(), 512);
        for expected in [256, 128, 64, 64] {
            advance(SLOW * 2).await;
            prefetch.half_is_taken();
            assert_eq!(prefetch.now(), expected);
        }
    }

    #[test]
    fn the_limit_of_a_reused_consumer_is_kept() {
        for (max_batch, expected) in [(0, (64, 512)), (-1, (64, 512)), (100, (64, 100)), (10, (10, 10))] {
            let prefetch = Prefetch::new(64..=512, max_batch);
            assert_eq!((*prefetch.range.start(), *prefetch.range.end()), expected);
        }
    }
}
