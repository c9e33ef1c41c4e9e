use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::phase::Phase;
use crate::broker::Received;
use crate::later::later;
use crate::log::SubscriptionLog;

/// How often it is looked whether another member gets a message that waits here.
const WITHDRAWAL_CHECK: Duration = Duration::from_millis(50);

/// Waits for what is tried again in place, for as long as that makes sense.
pub(super) struct Patience<'a> {
    pub(super) received: &'a [Received],
    pub(super) phase: &'a watch::Receiver<Phase>,
    pub(super) log: &'a SubscriptionLog,
}

impl Patience<'_> {
    /// Returns whether the delay is over. It is false as soon as another member gets one of the messages, when handlers are dropped, and
    /// when the app ends where the broker delivers all of the messages again.
    pub(super) async fn wait(&self, delay: Duration) -> bool {
        let due = later(delay);
        let mut phase = self.phase.clone();
        loop {
            let now = *phase.borrow_and_update();
            if !self.is_worth_it(now) {
                return false;
            }
            if Instant::now() >= due {
                return true;
            }
            tokio::select! {
                () = sleep_until(due.min(Instant::now() + WITHDRAWAL_CHECK)) => {}
                // An error says that the app is gone; then nobody polls this either.
                _ = phase.changed() => {}
            }
        }
    }

    fn is_worth_it(&self, phase: Phase) -> bool {
        let mut received = self.received.iter();
        match phase {
            Phase::Running => !received.any(Received::is_withdrawn),
            Phase::Draining(_) => received.any(is_final) && !received.any(Received::is_withdrawn),
            Phase::Aborting(_) => false,
        }
    }
}

/// Tells whether a message is brought to its end when the app drops its handlers: the broker delivers it no more, or nobody else answers
/// its requester.
pub(super) fn ends_here(message: &Received) -> bool {
    message.delivery.is_last_attempt() || (message.delivery.is_request() && !message.needs_settlement())
}

/// Tells whether the broker does not deliver the message again.
pub(super) fn is_final(message: &Received) -> bool {
    !message.needs_settlement() || message.delivery.is_last_attempt()
}
