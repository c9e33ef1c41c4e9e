use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use throughline_core::broker::Received;

use super::partition::Partition;

/// The messages that wait for their next attempt, each for itself.
#[derive(Default)]
pub(crate) struct WaitingRoom(Mutex<Room>);

#[derive(Default)]
struct Room {
    messages: Vec<Waiting>,
    /// When the first one is due.
    next: Option<Instant>,
}

struct Waiting {
    partition: Arc<Partition>,
    due: Instant,
    received: Received,
}

impl WaitingRoom {
    /// Keeps a message until it is due.
    pub(crate) fn keep(&self, partition: &Arc<Partition>, wait: Duration, received: Received) {
        let due = Instant::now() + wait;
        let partition = Arc::clone(partition);
        let mut room = self.lock();
        room.next = Some(room.next.map_or(due, |next| next.min(due)));
        room.messages.push(Waiting { partition, due, received });
    }

    /// Takes out the messages that are due.
    pub(crate) fn take_due(&self) -> Vec<Received> {
        let now = Instant::now();
        if self.lock().next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        self.take(|_, due| due <= now)
    }

    /// Gives up the messages of some partitions.
    pub(crate) fn give_up(&self, which: impl Fn(&Arc<Partition>) -> bool) {
        // Outside of the lock: a message that is dropped tells its partition.
        drop(self.take(|partition, _| which(partition)));
    }

    /// Tells whether a message of that partition waits.
    pub(crate) fn has(&self, partition: &Arc<Partition>) -> bool {
        self.lock().messages.iter().any(|waiting| Arc::ptr_eq(&waiting.partition, partition))
    }

    fn take(&self, which: impl Fn(&Arc<Partition>, Instant) -> bool) -> Vec<Received> {
        let mut room = self.lock();
        let taken = room.messages.extract_if(.., |waiting| which(&waiting.partition, waiting.due));
        let taken = taken.map(|waiting| waiting.received).collect();
        room.next = room.messages.iter().map(|waiting| waiting.due).min();
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
