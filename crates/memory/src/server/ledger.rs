use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the messages that are not done.
///
/// A message counts once for each subscription or group that gets it, from before it is queued until it is acknowledged,
/// rejected or dropped with its queue.
#[derive(Default)]
pub(crate) struct Ledger {
    open: AtomicUsize,
    all_done: Notify,
    is_recording: bool,
}

impl Ledger {
    pub(super) fn new(is_recording: bool) -> Self {
        Self { is_recording, ..Self::default() }
    }

    /// Tells whether somebody may ask for more than counts.
    pub(crate) const fn is_recording(&self) -> bool {
        self.is_recording
    }

    pub(crate) fn opened(&self, messages: usize) {
        self.open.fetch_add(messages, Ordering::AcqRel);
    }

    pub(crate) fn closed(&self, messages: usize) {
        if messages > 0 && self.open.fetch_sub(messages, Ordering::AcqRel) == messages {
            self.all_done.notify_waiters();
        }
    }

    pub(crate) async fn idle(&self) {
        wait_until(&self.all_done, || self.open.load(Ordering::Acquire) == 0).await;
    }
}

/// Waits for a condition that can change only before a call of `changed.notify_waiters()`.
pub(super) async fn wait_until(changed: &Notify, condition: impl Fn() -> bool) {
    loop {
        let mut notified = pin!(changed.notified());
        notified.as_mut().enable();
        if condition() {
            return;
        }
        notified.await;
    }
}
