use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tracing::warn;

/// The messages of a subscription that were taken and not brought to their end when the app ended.
#[derive(Default)]
pub(super) struct Dropped {
    handled_again: AtomicUsize,
    lost: AtomicUsize,
}

impl Dropped {
    /// Counts messages by whether the broker delivers them again.
    pub(super) fn count(&self, messages: usize, are_lost: bool) {
        let counter = if are_lost { &self.lost } else { &self.handled_again };
        counter.fetch_add(messages, Ordering::Relaxed);
    }

    /// Logs what became of them, if there are any.
    pub(super) fn report(&self, destination: &str, group: &str, limit: Duration) {
        let what_becomes_of_them = [
            (&self.handled_again, "the broker delivers them again"),
            (&self.lost, "they are lost, as the broker delivers them once only"),
        ];
        for (counter, what) in what_becomes_of_them {
            let messages = counter.load(Ordering::Relaxed);
            if messages > 0 {
                warn!(destination, group, messages, ?limit, "the app ended before messages were handled; {what}");
            }
        }
    }
}
