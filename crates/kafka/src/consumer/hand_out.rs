//! How the thread that polls hands out a message: noted in its partition, copied, and held back where it is not due.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::message::{BorrowedMessage, Message};
use throughline_core::BrokerError;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::burst::{Burst, to_received};
use super::orders::Orders;
use super::partition::{Beginning, HandedOut, Partition};
use super::shared::Shared;
use super::watermarks;
use crate::delivery::{Reading, shown_as, to_delivery};
use crate::subscription::{Commit, Order, WaitsOn};

/// How long the thread waits for room in a partition before it pauses it: a pause makes the client fetch again what it holds.
const ROOM_WAIT: Duration = Duration::from_millis(20);

/// The same where no other partition waits meanwhile: a pause costs half a second and more, since the client asks again only when its
/// last question is answered.
const LONE_ROOM_WAIT: Duration = Duration::from_millis(250);

/// How many messages are handed over at once, if so many are here: a hand-over wakes up who receives, which costs more than a message.
const HAND_OVER: usize = 64;

/// A body of so many bytes is copied once, and not a second time where it is received.
const LARGE: usize = 16 * 1024;

/// Messages in the order in which they came, or why there will be none.
pub(super) type HandOver = Result<Burst, BrokerError>;

/// The way of messages from the thread that polls to who receives them.
pub(super) struct HandOut {
    shared: Arc<Shared>,
    orders: Arc<Orders>,
    messages: mpsc::UnboundedSender<HandOver>,
    /// Messages that are handed over with the next ones, before the thread waits for anything.
    collected: Burst,
    reading: Reading,
    /// The partitions of the last messages; looked up by the client's handle of the topic, which costs nothing.
    recent: Vec<Recent>,
    generation: u64,
}

/// A partition of the last messages, by the client's handle of its topic.
struct Recent {
    topic: usize,
    partition: Arc<Partition>,
}

impl HandOut {
    pub(super) fn new(
        shared: Arc<Shared>,
        orders: Arc<Orders>,
        messages: mpsc::UnboundedSender<HandOver>,
        reading: Reading,
    ) -> Self {
        let collected = Burst::new(reading.clone());
        Self { shared, orders, messages, collected, reading, recent: Vec::new(), generation: 0 }
    }

    /// Hands out a message. Returns its partition where too many of its messages are held: it is to be paused.
    pub(super) fn hand_out(
        &mut self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        message: &BorrowedMessage<'_>,
    ) -> Option<Arc<Partition>> {
        let Some(partition) = self.partition_of(message) else {
            debug!(topic = message.topic(), "a message of a partition that is not owned is left to its owner");
            return None;
        };
        let (partition, held) = self.note_handed_out(consumer, partition, message.offset());
        let lane = self.lane_of(&partition, message.key());
        let settings = &self.shared.settings;
        if settings.is_retry_topic(&partition.topic) || settings.exactly_once.is_some() || message.payload_len() > LARGE
        {
            self.hand_out_whole(message, &partition, lane);
        } else {
            self.collected.copy(message, Arc::clone(&partition), lane);
        }
        if self.collected.len() >= HAND_OVER {
            self.hand_over();
        }
        let most = self.orders.most_held();
        if held < most {
            return None;
        }
        self.hand_over();
        (!partition.wait_for_room(most / 2, self.room_wait())).then_some(partition)
    }

    /// Hands out messages that are due now.
    pub(super) fn hand_out_due(&mut self) {
        for received in self.shared.waiting.take_due() {
            self.collected.push(received);
        }
        self.hand_over();
    }

    /// Hands over what is collected.
    pub(super) fn hand_over(&mut self) {
        if self.collected.len() > 0 {
            let next = Burst::like(&self.collected);
            let collected = std::mem::replace(&mut self.collected, next);
            // Nobody receives any more where the subscription is closing: they are given up.
            let _ = self.messages.send(Ok(collected));
        }
    }

    /// Says why there will be no more messages.
    pub(super) fn end(&self, why: BrokerError) {
        // Nobody receives any more where the subscription is closing.
        let _ = self.messages.send(Err(why));
    }

    fn room_wait(&self) -> Duration {
        // The answer to the commit of each message comes by polling.
        let is_lone =
            self.shared.settings.commit != Commit::EachMessage && self.shared.ownership.partitions().len() == 1;
        if is_lone { LONE_ROOM_WAIT } else { ROOM_WAIT }
    }

    /// Hands out a message that is a delivery here already.
    fn hand_out_whole(&mut self, message: &BorrowedMessage<'_>, partition: &Arc<Partition>, lane: Option<u32>) {
        let settings = &self.shared.settings;
        let mut delivery = to_delivery(message, &partition.topic, &self.reading);
        let mut wait = Duration::ZERO;
        if settings.is_retry_topic(&partition.topic) {
            let (read, waits) = settings.read_retry(delivery);
            (delivery, wait) = (shown_as(read, settings.shown_as(&partition.topic)), waits.now);
            // A transaction has no place for a message that is written again without being handled: it comes early.
            if waits.rest > Duration::ZERO && settings.exactly_once.is_none() {
                delivery.insert_extension(WaitsOn(waits.rest));
            }
        }
        if settings.exactly_once.is_some() {
            // A transaction looks there whether the partition is still this member's.
            delivery.insert_extension(Arc::clone(partition));
        }
        let received = to_received(delivery, Arc::clone(partition), message.offset(), lane);
        if wait > Duration::ZERO {
            // Those behind it wait beside it, each from the time it was written.
            self.shared.waiting.keep(partition, wait, received);
        } else {
            self.collected.push(received);
        }
    }

    /// Notes a message in its partition, and says what the server has left out before it.
    fn note_handed_out(
        &mut self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        partition: Arc<Partition>,
        offset: i64,
    ) -> (Arc<Partition>, usize) {
        let (from, partition, held) = match partition.hand_out(offset) {
            HandedOut::Held { messages, left_out_from: None } => return (partition, messages),
            HandedOut::Held { messages, left_out_from: Some(from) } => (from, partition, messages),
            HandedOut::Back { expected } => {
                let (topic, number) = (Arc::clone(&partition.topic), partition.number);
                warn!(
                    topic = &*topic,
                    partition = number,
                    group = self.shared.settings.group.as_deref(),
                    expected,
                    offset,
                    "the partition has begun anew on the server, and is read from its first message on"
                );
                // What was handed out before is of the time before.
                self.shared.ownership.own([(Arc::clone(&topic), number, Beginning::At(offset))]);
                let anew = self.shared.ownership.partition(&topic, number).unwrap_or(partition);
                let HandedOut::Held { messages, .. } = anew.hand_out(offset) else { return (anew, 0) };
                return (anew, messages);
            }
        };
        // Else there are no messages between: records of transactions, or what compaction took.
        if let Some((low, _)) = watermarks::of(consumer, &partition).filter(|(low, _)| *low > from) {
            warn!(
                topic = &*partition.topic,
                partition = partition.number,
                group = self.shared.settings.group.as_deref(),
                from,
                to = low - 1,
                "the server has deleted messages before they were handled; they are lost to this subscription"
            );
        }
        (partition, held)
    }

    fn lane_of(&self, partition: &Partition, key: Option<&[u8]>) -> Option<u32> {
        match self.shared.settings.order {
            Order::ByPartition => Some(partition.lane),
            Order::Unordered(_) => None,
            Order::ByKey(workers) => {
                let mut hasher = DefaultHasher::new();
                (&partition.topic, partition.number, key).hash(&mut hasher);
                let workers = u64::try_from(workers).unwrap_or(u64::MAX);
                u32::try_from(hasher.finish() % workers).ok()
            }
        }
    }

    fn partition_of(&mut self, message: &BorrowedMessage<'_>) -> Option<Arc<Partition>> {
        let generation = self.shared.ownership.generation();
        if generation != self.generation {
            self.generation = generation;
            self.recent.clear();
        }
        // Only compared, never followed.
        let topic = message.topic_ptr() as usize;
        let number = message.partition();
        let recent = self.recent.iter().find(|recent| recent.topic == topic && recent.partition.number == number);
        if let Some(recent) = recent {
            return Some(Arc::clone(&recent.partition));
        }
        let partition = self.shared.ownership.partition(message.topic(), number)?;
        self.recent.push(Recent { topic, partition: Arc::clone(&partition) });
        Some(partition)
    }
}
