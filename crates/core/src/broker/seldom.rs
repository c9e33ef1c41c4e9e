use std::time::Duration;

use tokio::time::Instant;

/// How much time there is between two lines of a log about the same thing.
const PAUSE: Duration = Duration::from_secs(5);

/// When to tell in the log of what can happen often, such as what a stranger sends: of the first at once, of the next ones together, five
/// seconds later at the earliest.
///
/// It is for what an adapter says by itself. The log of a subscription is kept short by the framework.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::Seldom;
///
/// let mut refused = Seldom::default();
/// assert_eq!(refused.note(1), Some(1));
/// assert_eq!(refused.note(1), None); // told with the next ones
/// ```
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Notes what happened, and returns of how much it is time to tell. Zero notes nothing and asks again.
    pub fn note(&mut self, count: u64) -> Option<u64> {
        self.untold = self.untold.saturating_add(count);
        let is_due = self.untold > 0 && self.told.is_none_or(|told| told.elapsed() >= PAUSE);
        is_due.then(|| self.take())
    }

    /// Returns what nobody was told of yet, for an end.
    pub fn take(&mut self) -> u64 {
        self.told = Some(Instant::now());
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_at_once_and_the_next_ones_together() {
        let mut seldom = Seldom::default();
        assert_eq!(seldom.note(0), None);
        assert_eq!(seldom.note(2), Some(2));
        assert_eq!((seldom.note(3), seldom.note(4)), (None, None));
        advance(PAUSE).await;
        assert_eq!(seldom.note(0), Some(7));
        advance(PAUSE).await;
        assert_eq!(seldom.note(0), None);
    }
}
