//! Points in time that are never out of range.

use std::time::Duration;

use tokio::time::Instant;

/// What stands for "never" where a delay is longer than the clock can say.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Returns when a delay from now is over. A delay that the clock cannot hold counts as thirty years.
pub(crate) fn later(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay).or_else(|| now.checked_add(FAR)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_delay_is_far_away() {
        assert!(later(Duration::MAX) > Instant::now() + Duration::from_secs(60 * 60 * 24 * 365));
    }
}
