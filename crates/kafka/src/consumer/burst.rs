use std::collections::VecDeque;
use std::sync::Arc;

use rdkafka::message::BorrowedMessage;
use throughline_core::Delivery;
use throughline_core::broker::{Received, Settle};

use super::partition::Partition;
use crate::delivery::{CopiedRecord, Copies, Reading};

/// Messages on their way from the thread that polls to who receives them, in their order.
pub(super) struct Burst {
    items: VecDeque<Item>,
    copies: Copies,
    reading: Reading,
}

enum Item {
    /// The next one of the copies.
    Copied { partition: Arc<Partition>, lane: Option<u32>, record: CopiedRecord },
    /// Boxed, as the rare one: the room for it would be copied with each of the others.
    Whole(Box<Received>),
}

impl Burst {
    pub(super) fn new(reading: Reading) -> Self {
        Self { items: VecDeque::new(), copies: Copies::default(), reading }
    }

    /// Has room for as much as another one had.
    pub(super) fn like(other: &Self) -> Self {
        Self {
            items: VecDeque::with_capacity(other.items.len()),
            copies: Copies::like(&other.copies),
            reading: other.reading.clone(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Adds a message that becomes a delivery where it is received.
    pub(super) fn copy(&mut self, message: &BorrowedMessage<'_>, partition: Arc<Partition>, lane: Option<u32>) {
        let record = self.copies.push(message);
        self.items.push_back(Item::Copied { partition, lane, record });
    }

    pub(super) fn push(&mut self, received: Received) {
        self.items.push_back(Item::Whole(Box::new(received)));
    }
}

impl Iterator for Burst {
    type Item = Received;

    fn next(&mut self) -> Option<Received> {
        match self.items.pop_front()? {
            Item::Whole(received) => Some(*received),
            Item::Copied { partition, lane, record } => {
                let delivery = self.copies.next(&record, &partition.topic, &self.reading);
                Some(to_received(delivery, partition, record.offset(), lane))
            }
        }
    }
}

/// The tag of a message is its offset, and its partition settles it.
pub(super) fn to_received(delivery: Delivery, partition: Arc<Partition>, offset: i64, lane: Option<u32>) -> Received {
    let tag = u64::try_from(offset).unwrap_or_default();
    let settle: Arc<dyn Settle> = partition;
    let received = Received::new(delivery).with_settle(settle, tag);
    match lane {
        Some(lane) => received.with_lane(lane),
        None => received,
    }
}
