use std::fmt;
use std::sync::Mutex;

use throughline_core::{Delivery, Settlement};
use tokio::sync::Notify;

use super::ledger::wait_until;
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

/// Remembers the settlements of one connection.
#[derive(Default)]
pub(super) struct Journal {
    settled: Mutex<Vec<SettledMessage>>,
    grown: Notify,
}

impl Journal {
    pub(super) fn record(&self, delivery: &Delivery, settlement: &Settlement) {
        let message = SettledMessage { delivery: delivery.clone(), settlement: settlement.clone() };
        lock(&self.settled).push(message);
        self.grown.notify_waiters();
    }

    pub(super) fn settled(&self) -> Vec<SettledMessage> {
        lock(&self.settled).clone()
    }

    /// Waits until `count` settlements are remembered.
    pub(super) async fn settled_count(&self, count: usize) {
        wait_until(&self.grown, || lock(&self.settled).len() >= count).await;
    }
}
