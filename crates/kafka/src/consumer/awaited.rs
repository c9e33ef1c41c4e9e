use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use throughline_core::BrokerError;
use tokio::sync::oneshot;

use super::member::Member;
use crate::error;

/// The commits that handlers wait for, where each message is committed by itself.
pub(super) struct AwaitedCommits {
    member: Arc<Member>,
    /// Without a group nothing is committed.
    has_group: bool,
    waiting: Mutex<Vec<Each>>,
}

/// A handler that waits for its commit.
struct Each {
    topic: Arc<str>,
    partition: i32,
    position: i64,
    answer: oneshot::Sender<Result<(), BrokerError>>,
}

impl AwaitedCommits {
    pub(super) fn new(member: Arc<Member>, has_group: bool) -> Self {
        Self { member, has_group, waiting: Mutex::default() }
    }

    /// Commits one offset of a partition and waits for the broker's answer. The offset is asked for as it is sent.
    pub(super) async fn commit(
        &self,
        topic: &Arc<str>,
        partition: i32,
        position: impl FnOnce() -> i64,
    ) -> Result<(), BrokerError> {
        let lost = || error::partition_lost(topic, partition);
        if !self.has_group {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        {
            // Kept for longer than the lock, which its callbacks take.
            let consumer = self.member.consumer().ok_or_else(lost)?;
            // Locked until it is noted: the answer may be there at once.
            let mut waiting = self.lock();
            let position = position();
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition_offset(topic, partition, Offset::Offset(position))
                .map_err(|failed| error::commit(&failed))?;
            let each = Each { topic: Arc::clone(topic), partition, position, answer };
            consumer.start(&list).map_err(|failed| error::commit(&failed))?;
            waiting.push(each);
        }
        answered.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Takes the broker's answer to a commit.
    pub(super) fn note_answer(&self, result: &KafkaResult<()>, offsets: &TopicPartitionList) {
        let mut waiting = self.lock();
        // An answer that names no partition is one to whatever is under way: nobody may wait for another, which never comes.
        if offsets.count() == 0 {
            for each in waiting.drain(..) {
                each.tell(result);
            }
        }
        for element in offsets.elements() {
            let Offset::Offset(committed) = element.offset() else { continue };
            let result = result.clone().and_then(|()| element.error());
            for each in waiting.extract_if(.., |each| {
                *each.topic == *element.topic() && each.partition == element.partition() && each.position <= committed
            }) {
                each.tell(&result);
            }
        }
    }

    /// Ends the wait of handlers whose commit nobody will answer.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Each>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Each {
    fn tell(self, result: &KafkaResult<()>) {
        // The handler may be gone.
        let _ = self.answer.send(result.as_ref().copied().map_err(error::commit));
    }
}
