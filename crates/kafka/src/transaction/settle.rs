use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use throughline_core::broker::{BoxFuture, Received, Settle};
use throughline_core::{BrokerError, Settlement};

use super::unit::Task;
use super::units::Units;
use crate::error;

/// Settles the messages of one unit. The tag of a message is its place in it.
pub(super) struct UnitHandle {
    units: Arc<Units>,
    /// The message whose settlement the broker was last told of, or that follows from what it was told.
    told: AtomicU64,
}

impl UnitHandle {
    pub(super) const fn new(units: Arc<Units>) -> Self {
        Self { units, told: AtomicU64::new(u64::MAX) }
    }
}

impl Settle for UnitHandle {
    /// Commits or aborts the transaction where the message decides that; else its settlement is only noted.
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let task = self.units.settle(index_of(message), settlement);
            if task != Task::Nothing || matches!(settlement, Settlement::Retry { .. }) {
                self.told.store(message.tag, Ordering::Relaxed);
            }
            match task {
                Task::Nothing => Ok(()),
                Task::Commit => self.units.perform(Units::commit).await,
                Task::Skip => self.units.perform(|units| units.abort().and_then(|()| units.commit())).await,
                Task::TakeBack => {
                    self.units.perform(Units::take_back).await?;
                    match settlement {
                        Settlement::Retry { .. } => Ok(()),
                        // It is not settled as it should be: its batch is taken back with it.
                        _ => Err(error::taken_back()),
                    }
                }
            }
        })
    }

    fn is_deferred(&self, message: &Received) -> bool {
        self.told.load(Ordering::Relaxed) != message.tag
    }

    fn is_withdrawn(&self, message: &Received) -> bool {
        self.units.is_withdrawn(index_of(message))
    }

    fn abandon(&self, message: &Received) {
        self.units.give_up(index_of(message));
    }
}

fn index_of(message: &Received) -> usize {
    usize::try_from(message.tag).unwrap_or(usize::MAX)
}
