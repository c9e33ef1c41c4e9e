use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::awaited::AwaitedCommits;
use super::commit;
use super::ownership::Ownership;
use super::partition::Partition;
use super::report::{Occasion, Reports};

/// What is being committed of the partitions that are owned.
pub(crate) struct Commits {
    ownership: Arc<Ownership>,
    awaited: Arc<AwaitedCommits>,
    pub(super) reports: Reports,
    /// Without a group nothing is committed.
    has_group: bool,
    /// Transactions commit the offsets.
    is_transactional: bool,
    background: Mutex<Option<Background>>,
}

/// The one commit in the background that is under way.
struct Background {
    started: Instant,
    positions: Vec<(Arc<Partition>, i64)>,
}

impl Commits {
    pub(super) fn new(
        ownership: Arc<Ownership>,
        awaited: Arc<AwaitedCommits>,
        reports: Reports,
        is_transactional: bool,
    ) -> Self {
        let has_group = reports.group.is_some();
        Self { ownership, awaited, reports, has_group, is_transactional, background: Mutex::default() }
    }

    /// Sends the offsets that are not committed to the broker, unless an earlier commit is under way; its answer comes to
    /// [`note_answer`](Self::note_answer).
    pub(crate) fn commit_in_background(&self, consumer: &BaseConsumer<impl ConsumerContext>) {
        let mut background = self.background();
        if background.is_some() || self.is_transactional {
            return;
        }
        let positions = uncommitted(&self.ownership.partitions());
        if positions.is_empty() {
            return;
        }
        let started = Instant::now();
        match to_list(&positions).and_then(|list| commit::start(consumer, &list)) {
            Ok(()) => *background = Some(Background { started, positions }),
            Err(failed) => self.reports.commit(started, &positions, Some(&failed), Occasion::Background),
        }
    }

    /// Commits what is settled of some partitions and waits for the broker's answer. Blocks.
    pub(crate) fn commit_and_wait(
        &self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        partitions: &[Arc<Partition>],
        occasion: Occasion,
    ) -> KafkaResult<()> {
        if self.is_transactional {
            return Ok(());
        }
        self.commit_positions(consumer, partitions, occasion)
    }

    /// Commits where partitions begin, before any of their messages is handed out, for a subscription whose other offsets are
    /// committed in transactions. Blocks.
    pub(crate) fn commit_starts(&self, consumer: &BaseConsumer<impl ConsumerContext>) {
        if self.is_transactional {
            // A failure is reported there. The next start of the group then looks for the place once more.
            let _ = self.commit_positions(consumer, &self.fresh_partitions(), Occasion::Background);
        }
    }

    /// The partitions of which nothing was handed out yet.
    fn fresh_partitions(&self) -> Vec<Arc<Partition>> {
        self.ownership.partitions().into_iter().filter(|partition| partition.held() == 0).collect()
    }

    fn commit_positions(
        &self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        partitions: &[Arc<Partition>],
        occasion: Occasion,
    ) -> KafkaResult<()> {
        let positions = uncommitted(partitions);
        if !self.has_group || positions.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let result = to_list(&positions).and_then(|list| consumer.commit(&list, CommitMode::Sync));
        if result.is_ok() {
            for (partition, position) in &positions {
                partition.note_commit(*position);
            }
        }
        self.reports.commit(started, &positions, result.as_ref().err(), occasion);
        result
    }

    /// Takes the broker's answer to a commit.
    pub(crate) fn note_answer(&self, result: &KafkaResult<()>, offsets: &TopicPartitionList) {
        // An answer that names no partition is one to whatever is under way: nobody may wait for another, which never comes.
        let is_unnamed = offsets.count() == 0;
        let background = self.background().take_if(|background| is_unnamed || background.answers_to(offsets));
        for element in offsets.elements() {
            if let Offset::Offset(committed) = element.offset()
                && result.is_ok()
                && element.error().is_ok()
                && let Some(partition) = self.ownership.partition(element.topic(), element.partition())
            {
                partition.note_commit(committed);
            }
        }
        // After that, so that who goes on finds it committed.
        self.awaited.note_answer(result, offsets);
        if let Some(Background { started, positions }) = background {
            let failed = result
                .as_ref()
                .err()
                .cloned()
                .or_else(|| offsets.elements().iter().find_map(|element| element.error().err()));
            self.reports.commit(started, &positions, failed.as_ref(), Occasion::Background);
        }
    }

    /// Ends the wait for commits that nobody will answer.
    pub(crate) fn forget(&self) {
        self.awaited.forget();
        *self.background() = None;
    }

    fn background(&self) -> MutexGuard<'_, Option<Background>> {
        self.background.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Background {
    fn answers_to(&self, offsets: &TopicPartitionList) -> bool {
        offsets.count() == self.positions.len()
            && self.positions.iter().all(|(partition, position)| {
                offsets
                    .find_partition(&partition.topic, partition.number)
                    .is_some_and(|element| element.offset() == Offset::Offset(*position))
            })
    }
}

fn uncommitted(partitions: &[Arc<Partition>]) -> Vec<(Arc<Partition>, i64)> {
    partitions.iter().filter_map(|partition| Some((Arc::clone(partition), partition.uncommitted()?))).collect()
}

fn to_list(positions: &[(Arc<Partition>, i64)]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (partition, position) in positions {
        list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*position))?;
    }
    Ok(list)
}
