use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tracing::{info, warn};

use crate::log::SubscriptionLog;

/// The messages of a subscription at the end of the app: those that were still handled, and those that were taken and not brought to their
/// end.
#[derive(Default)]
pub(super) struct Dropped {
    handled: AtomicUsize,
    left: AtomicUsize,
    handled_again: AtomicUsize,
    lost: AtomicUsize,
}

impl Dropped {
    /// Counts messages whose handlers were dropped, by whether the broker delivers them again.
    pub(super) fn count(&self, messages: usize, are_lost: bool) {
        let counter = if are_lost { &self.lost } else { &self.handled_again };
        counter.fetch_add(messages, Ordering::Relaxed);
        self.note_left(messages);
    }

    /// Counts messages that were settled since the end began.
    pub(super) fn note_handled(&self, messages: usize) {
        self.handled.fetch_add(messages, Ordering::Relaxed);
    }

    /// Counts messages that were taken and are not settled.
    pub(super) fn note_left(&self, messages: usize) {
        self.left.fetch_add(messages, Ordering::Relaxed);
    }

    /// Logs the end of the subscription, and what became of messages whose handlers were dropped, if there are any.
    pub(super) fn report(&self, log: &SubscriptionLog, limit: Duration) {
        let (destination, group) = (log.destination(), log.group());
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
        let (handled, left) = (self.handled.load(Ordering::Relaxed), self.left.load(Ordering::Relaxed));
        info!(destination, group, handled, left, "a subscription has ended");
    }
}
