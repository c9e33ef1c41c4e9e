use std::fmt;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use throughline_core::{Delivery, Settlement};
use tokio::sync::Notify;

use super::lock::lock;

/// A message a subscription settled, as [`Memory::settled`](crate::Memory::settled) shows it.
///
/// # Examples
///
/// ```
/// use throughline_core::Settlement;
/// # use throughline_core::broker::{Broker, Subscriber};
/// # use throughline_core::Envelope;
/// # use throughline_memory::{Channel, Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let memory = Memory::recording();
/// # let mut orders = memory.subscribe(&Channel::new("orders").into()).await?;
/// # memory.transport().publish(Envelope::new("orders", "x")).await?;
/// # orders.receive().await?.settle(&Settlement::Ack).await?;
/// for message in memory.settled() {
///     assert_eq!((message.delivery.destination(), message.delivery.attempt()), ("orders", 1));
///     assert_eq!(message.settlement, Settlement::Ack);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct SettledMessage {
    /// The message as it was delivered: its destination, payload, headers and attempt.
    pub delivery: Delivery,
    /// What the broker was told about it.
    pub settlement: Settlement,
}

impl fmt::Debug for SettledMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettledMessage")
            .field("destination", &self.delivery.destination())
            .field("payload", self.delivery.payload())
            .field("attempt", &self.delivery.attempt())
            .field("settlement", &self.settlement)
            .finish()
    }
}

/// Counts the messages that are not done, and remembers the settlements of those that are, if it is to.
///
/// A message counts once for each subscription or group that gets it, from before it is queued until it is acknowledged,
/// rejected or dropped with its queue.
#[derive(Default)]
pub(crate) struct Ledger {
    open: AtomicUsize,
    all_done: Notify,
    journal: Option<Journal>,
}

#[derive(Default)]
struct Journal {
    settled: Mutex<Vec<SettledMessage>>,
    grown: Notify,
}

impl Ledger {
    pub(crate) fn recording() -> Self {
        Self { journal: Some(Journal::default()), ..Self::default() }
    }

    /// Tells whether somebody may ask for more than counts.
    pub(crate) const fn is_recording(&self) -> bool {
        self.journal.is_some()
    }

    pub(crate) fn opened(&self, messages: usize) {
        self.open.fetch_add(messages, Ordering::AcqRel);
    }

    pub(crate) fn closed(&self, messages: usize) {
        if messages > 0 && self.open.fetch_sub(messages, Ordering::AcqRel) == messages {
            self.all_done.notify_waiters();
        }
    }

    pub(crate) fn record(&self, delivery: &Delivery, settlement: &Settlement) {
        let Some(journal) = &self.journal else { return };
        let message = SettledMessage { delivery: delivery.clone(), settlement: settlement.clone() };
        lock(&journal.settled).push(message);
        journal.grown.notify_waiters();
    }

    /// Returns the settlements so far; `None` when they are not remembered.
    pub(crate) fn settled(&self) -> Option<Vec<SettledMessage>> {
        self.journal.as_ref().map(|journal| lock(&journal.settled).clone())
    }

    pub(crate) async fn idle(&self) {
        wait_until(&self.all_done, || self.open.load(Ordering::Acquire) == 0).await;
    }

    /// Waits until `count` settlements are remembered; for ever, when none are.
    pub(crate) async fn settled_count(&self, count: usize) {
        match &self.journal {
            Some(journal) => wait_until(&journal.grown, || lock(&journal.settled).len() >= count).await,
            None => std::future::pending().await,
        }
    }
}

/// Waits for a condition that can change only before a call of `changed.notify_waiters()`.
async fn wait_until(changed: &Notify, condition: impl Fn() -> bool) {
    loop {
        let mut notified = pin!(changed.notified());
        notified.as_mut().enable();
        if condition() {
            return;
        }
        notified.await;
    }
}
