use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tracing::{info, warn};

use crate::log::SubscriptionLog;

/// The messages of a subscription at the end of the app: those that were still handled, and those that were taken and not brought to their
/// end.
///
/// A subscription that is dropped on the way is logged by the last one that has this: a handler may outlive the receive loop.
pub(super) struct Dropped {
    log: Arc<SubscriptionLog>,
    /// How long the end of the app may take.
    limit: Duration,
    handled: AtomicUsize,
    left: AtomicUsize,
    handled_again: AtomicUsize,
    lost: AtomicUsize,
    /// Whether the subscription has started and its end is not logged.
    is_due: AtomicBool,
}

impl Dropped {
    pub(super) fn new(log: Arc<SubscriptionLog>, limit: Duration) -> Self {
        Self {
            log,
            limit,
            handled: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            handled_again: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            is_due: AtomicBool::new(false),
        }
    }

    /// Notes that the subscription has started: its end is one to log.
    pub(super) fn begin(&self) {
        self.is_due.store(true, Ordering::Relaxed);
    }

    /// Counts messages as dropped, unless [`Unfinished::done`] is called before the returned value goes away.
    pub(super) const fn unfinished(&self, messages: usize, are_lost: bool) -> Unfinished<'_> {
        Unfinished { dropped: self, messages, are_lost }
    }

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

    /// Logs the end of the subscription once, and what became of messages whose handlers were dropped, if there are any.
    pub(super) fn report(&self) {
        if !self.is_due.swap(false, Ordering::Relaxed) {
            return;
        }
        self.log.flush();
        let (destination, group, limit) = (self.log.destination(), self.log.group(), self.limit);
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

impl Drop for Dropped {
    fn drop(&mut self) {
        self.report();
    }
}

/// Messages that are being brought to their end.
pub(super) struct Unfinished<'a> {
    dropped: &'a Dropped,
    messages: usize,
    are_lost: bool,
}

impl Unfinished<'_> {
    /// Notes that they are at their end, whatever it is.
    pub(super) fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.dropped.count(self.messages, self.are_lost);
    }
}
