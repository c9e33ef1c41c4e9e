use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use throughline_core::broker::{BrokerError, Observe};
use tokio::sync::oneshot;

use super::context::Context;
use super::partition::Partition;
use super::report::Occasion;
use super::start::Start;
use super::waiting::WaitingRoom;
use super::{commit, report};
use crate::error;
use crate::outage::Repeats;
use crate::subscription::Topic;

/// Is what the poll thread, its callbacks, the handlers that settle and the metrics have in common: which partitions are owned, and
/// what is being committed.
pub(crate) struct Shared {
    pub(crate) settings: Topic,
    /// The poll thread has the consumer; it alone closes it.
    consumer: OnceLock<Weak<BaseConsumer<Context>>>,
    owned: Mutex<Owned>,
    /// Counts changes of what is owned.
    generation: AtomicU64,
    is_assigned: AtomicBool,
    commits: Mutex<Commits>,
    /// Messages that are not due yet.
    pub(super) waiting: WaitingRoom,
    observer: OnceLock<Arc<dyn Observe>>,
    /// Why the subscription cannot go on, found out where no error can be returned.
    failure: Mutex<Option<BrokerError>>,
    /// Whether the client has said how far it fetched, since that was last looked at.
    has_fetched: AtomicBool,
    /// What the log has said of commits that failed.
    pub(super) commit_failures: Repeats<(Option<RDKafkaErrorCode>, bool)>,
}

#[derive(Default)]
struct Owned {
    partitions: HashMap<(Arc<str>, i32), Arc<Partition>>,
    /// A partition keeps its lane also when it comes back.
    lanes: HashMap<(Arc<str>, i32), u32>,
    /// Where partitions that were given up go on, without a group: nobody else keeps it.
    places: HashMap<(Arc<str>, i32), i64>,
}

/// The commits the broker has not answered.
#[derive(Default)]
struct Commits {
    background: Option<Background>,
    each: Vec<Each>,
}

/// The one commit in the background that is under way.
struct Background {
    started: Instant,
    positions: Vec<(Arc<Partition>, i64)>,
}

/// A handler that waits for its commit.
struct Each {
    topic: Arc<str>,
    partition: i32,
    position: i64,
    answer: oneshot::Sender<Result<(), BrokerError>>,
}

impl Shared {
    pub(crate) fn new(settings: Topic) -> Self {
        Self {
            settings,
            consumer: OnceLock::new(),
            owned: Mutex::default(),
            generation: AtomicU64::new(0),
            is_assigned: AtomicBool::new(false),
            commits: Mutex::default(),
            waiting: WaitingRoom::default(),
            observer: OnceLock::new(),
            failure: Mutex::default(),
            has_fetched: AtomicBool::new(false),
            commit_failures: Repeats::default(),
        }
    }

    /// Lets the subscription end with an error, at the next turn of the poll thread.
    pub(crate) fn fail(&self, error: BrokerError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(crate) fn take_failure(&self) -> Option<BrokerError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes up to where the client has fetched partitions.
    pub(crate) fn note_fetched<'a>(&self, fetched: impl Iterator<Item = (&'a str, i32, i64)>) {
        for (topic, number, next) in fetched {
            if let Some(partition) = self.partition(topic, number) {
                partition.note_fetched(next);
            }
        }
        self.has_fetched.store(true, Ordering::Relaxed);
    }

    /// Tells whether [`note_all_handed_out`](Self::note_all_handed_out) has something to note.
    pub(crate) fn has_fetched(&self) -> bool {
        self.has_fetched.load(Ordering::Relaxed)
    }

    /// Notes that nothing of what the client has fetched waits to be handed out.
    pub(crate) fn note_all_handed_out(&self) {
        self.has_fetched.store(false, Ordering::Relaxed);
        for partition in self.partitions() {
            partition.note_all_handed_out();
        }
    }

    pub(crate) fn set_consumer(&self, consumer: &Arc<BaseConsumer<Context>>) {
        // Set once, by the poll thread.
        let _ = self.consumer.set(Arc::downgrade(consumer));
    }

    pub(crate) fn set_observer(&self, observer: Arc<dyn Observe>) {
        let _ = self.observer.set(observer);
    }

    pub(crate) fn observer(&self) -> Option<&Arc<dyn Observe>> {
        self.observer.get()
    }

    /// Changes whenever other partitions are owned.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Tells whether the group has given this member its share, which may be empty.
    pub(crate) fn is_assigned(&self) -> bool {
        self.is_assigned.load(Ordering::Acquire)
    }

    pub(crate) fn partition(&self, topic: &str, number: i32) -> Option<Arc<Partition>> {
        let owned = self.owned();
        owned.partitions.get(&(Arc::from(topic), number)).map(Arc::clone)
    }

    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.owned().partitions.values().map(Arc::clone).collect()
    }

    /// Takes partitions over.
    pub(crate) fn own(self: &Arc<Self>, assigned: impl IntoIterator<Item = Start>) {
        let mut owned = self.owned();
        for (topic, number, start) in assigned {
            let key = (Arc::clone(&topic), number);
            let next = u32::try_from(owned.lanes.len()).unwrap_or(u32::MAX);
            let lane = *owned.lanes.entry(key.clone()).or_insert(next);
            let partition = Partition::new(topic, number, lane, self).beginning(start);
            if let Some(earlier) = owned.partitions.insert(key, Arc::new(partition)) {
                earlier.lose();
            }
        }
        drop(owned);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.is_assigned.store(true, Ordering::Release);
    }

    /// Returns where a subscription without a group goes on in a partition that it had before.
    pub(crate) fn place(&self, topic: &Arc<str>, number: i32) -> Option<i64> {
        self.owned().places.get(&(Arc::clone(topic), number)).copied()
    }

    /// Gives partitions up and returns them: no handler begins with a message of theirs any more.
    pub(crate) fn disown(&self, revoked: &TopicPartitionList) -> Vec<Arc<Partition>> {
        let mut owned = self.owned();
        let gone: Vec<_> = revoked
            .elements()
            .iter()
            .filter_map(|element| owned.partitions.remove(&(Arc::from(element.topic()), element.partition())))
            .collect();
        if self.settings.group.is_none() {
            for partition in &gone {
                let key = (Arc::clone(&partition.topic), partition.number);
                owned.places.extend(partition.next().map(|next| (key, next)));
            }
        }
        drop(owned);
        for partition in &gone {
            partition.leave();
        }
        // Last: who sees the change sees what has left.
        self.generation.fetch_add(1, Ordering::AcqRel);
        // Given up here: nobody handles them, and the rebalance need not wait.
        self.waiting.give_up(|partition| !self.owns(partition));
        gone
    }

    fn owns(&self, partition: &Arc<Partition>) -> bool {
        let key = (Arc::clone(&partition.topic), partition.number);
        self.owned().partitions.get(&key).is_some_and(|owned| Arc::ptr_eq(owned, partition))
    }

    /// Sends the offsets that are not committed to the broker, unless an earlier commit is under way; its answer comes to
    /// [`note_commit`](Self::note_commit).
    pub(crate) fn commit_in_background(&self, consumer: &BaseConsumer<Context>) {
        let mut commits = self.commits();
        if commits.background.is_some() || self.settings.exactly_once.is_some() {
            return;
        }
        let positions = uncommitted(&self.partitions());
        if positions.is_empty() {
            return;
        }
        let started = Instant::now();
        match to_list(&positions).and_then(|list| commit::start(consumer, &list)) {
            Ok(()) => commits.background = Some(Background { started, positions }),
            Err(failed) => report::commit(self, started, &positions, Some(&failed), Occasion::Background),
        }
    }

    /// Commits what is settled of some partitions and waits for the broker's answer. Blocks.
    pub(crate) fn commit_and_wait(
        &self,
        consumer: &BaseConsumer<Context>,
        partitions: &[Arc<Partition>],
        occasion: Occasion,
    ) -> KafkaResult<()> {
        if self.settings.exactly_once.is_some() {
            // Transactions commit the offsets.
            return Ok(());
        }
        self.commit_positions(consumer, partitions, occasion)
    }

    /// Commits where partitions begin, before any of their messages is handed out, for a subscription whose other offsets are
    /// committed in transactions. Blocks.
    pub(crate) fn commit_starts(&self, consumer: &BaseConsumer<Context>) {
        if self.settings.exactly_once.is_some() {
            // A failure is reported there. The next start of the group then looks for the place once more.
            let _ = self.commit_positions(consumer, &self.fresh_partitions(), Occasion::Background);
        }
    }

    /// The partitions of which nothing was handed out yet.
    fn fresh_partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions().into_iter().filter(|partition| partition.held() == 0).collect()
    }

    fn commit_positions(
        &self,
        consumer: &BaseConsumer<Context>,
        partitions: &[Arc<Partition>],
        occasion: Occasion,
    ) -> KafkaResult<()> {
        let positions = uncommitted(partitions);
        if self.settings.group.is_none() || positions.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let result = to_list(&positions).and_then(|list| consumer.commit(&list, CommitMode::Sync));
        if result.is_ok() {
            for (partition, position) in &positions {
                partition.note_commit(*position);
            }
        }
        report::commit(self, started, &positions, result.as_ref().err(), occasion);
        result
    }

    /// Returns as what this member commits offsets in a transaction; `None` when it is none any more. Blocks shortly.
    pub(crate) fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        let consumer = self.consumer.get().and_then(Weak::upgrade)?;
        let metadata = consumer.group_metadata()?;
        // A member that was thrown out has no name until it joins again, and the broker would take offsets of a nobody.
        (!consumer.assignment_lost()).then_some(metadata)
    }

    /// Commits one offset and waits for the broker's answer.
    pub(crate) async fn commit_now(&self, partition: &Partition, position: i64) -> Result<(), BrokerError> {
        let lost = || error::partition_lost(&partition.topic, partition.number);
        if self.settings.group.is_none() {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        {
            let consumer = self.consumer.get().and_then(Weak::upgrade).ok_or_else(lost)?;
            // Locked until it is noted: the answer may be there at once.
            let mut commits = self.commits();
            // Where messages are handled side by side another one may have come further: never commit behind it.
            let position = partition.uncommitted().map_or(position, |latest| latest.max(position));
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(position))
                .map_err(|failed| error::commit(&failed))?;
            let each = Each { topic: Arc::clone(&partition.topic), partition: partition.number, position, answer };
            commit::start(&consumer, &list).map_err(|failed| error::commit(&failed))?;
            commits.each.push(each);
        }
        answered.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Takes the broker's answer to a commit.
    pub(crate) fn note_commit(&self, result: &KafkaResult<()>, offsets: &TopicPartitionList) {
        let mut commits = self.commits();
        // An answer that names no partition is one to whatever is under way: nobody may wait for another, which never comes.
        let is_unnamed = offsets.count() == 0;
        let background = commits.background.take_if(|background| is_unnamed || background.answers_to(offsets));
        for each in if is_unnamed { std::mem::take(&mut commits.each) } else { Vec::new() } {
            // The handler may be gone.
            let _ = each.answer.send(result.as_ref().copied().map_err(error::commit));
        }
        for element in offsets.elements() {
            let Offset::Offset(committed) = element.offset() else { continue };
            let result = result.clone().and_then(|()| element.error());
            if result.is_ok()
                && let Some(partition) = self.partition(element.topic(), element.partition())
            {
                partition.note_commit(committed);
            }
            for each in commits.each.extract_if(.., |each| {
                *each.topic == *element.topic() && each.partition == element.partition() && each.position <= committed
            }) {
                let answer = result.as_ref().copied().map_err(error::commit);
                // The handler may be gone.
                let _ = each.answer.send(answer);
            }
        }
        drop(commits);
        if let Some(Background { started, positions }) = background {
            let failed = result
                .as_ref()
                .err()
                .cloned()
                .or_else(|| offsets.elements().iter().find_map(|element| element.error().err()));
            report::commit(self, started, &positions, failed.as_ref(), Occasion::Background);
        }
    }

    /// Ends the wait of handlers whose commit nobody will answer.
    pub(crate) fn forget_commits(&self) {
        let mut commits = self.commits();
        commits.each.clear();
        commits.background = None;
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commits(&self) -> MutexGuard<'_, Commits> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
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
