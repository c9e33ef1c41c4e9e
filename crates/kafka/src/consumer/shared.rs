use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use throughline_core::broker::{BrokerError, Observe, Received};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::context::Context;
use super::partition::Partition;
use super::report;
use crate::error;
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
    commits: Commits,
    /// Messages that are not due yet; their partitions are paused.
    waiting: Mutex<Vec<Waiting>>,
    observer: OnceLock<Arc<dyn Observe>>,
}

#[derive(Default)]
struct Owned {
    partitions: HashMap<(Arc<str>, i32), Arc<Partition>>,
    /// A partition keeps its lane also when it comes back.
    lanes: HashMap<(Arc<str>, i32), u32>,
}

/// A message that waits for its next attempt.
struct Waiting {
    partition: Arc<Partition>,
    due: Instant,
    received: Received,
}

impl Shared {
    pub(crate) fn new(settings: Topic) -> Self {
        Self {
            settings,
            consumer: OnceLock::new(),
            owned: Mutex::default(),
            generation: AtomicU64::new(0),
            is_assigned: AtomicBool::new(false),
            commits: Commits::default(),
            waiting: Mutex::default(),
            observer: OnceLock::new(),
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

    /// Takes partitions over; each with the offset it begins at where that is to be committed.
    pub(crate) fn own(self: &Arc<Self>, assigned: impl IntoIterator<Item = (Arc<str>, i32, Option<i64>)>) {
        let mut owned = self.owned();
        for (topic, number, start) in assigned {
            let key = (Arc::clone(&topic), number);
            let next = u32::try_from(owned.lanes.len()).unwrap_or(u32::MAX);
            let lane = *owned.lanes.entry(key.clone()).or_insert(next);
            let mut partition = Partition::new(topic, number, lane, self);
            if let Some(offset) = start.filter(|_| self.settings.group.is_some()) {
                partition = partition.starting_at(offset);
            }
            if let Some(earlier) = owned.partitions.insert(key, Arc::new(partition)) {
                earlier.lose();
            }
        }
        drop(owned);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.is_assigned.store(true, Ordering::Release);
    }

    /// Gives partitions up and returns them.
    pub(crate) fn disown(&self, revoked: &TopicPartitionList) -> Vec<Arc<Partition>> {
        let mut owned = self.owned();
        let gone = revoked
            .elements()
            .iter()
            .filter_map(|element| owned.partitions.remove(&(Arc::from(element.topic()), element.partition())))
            .collect();
        drop(owned);
        self.generation.fetch_add(1, Ordering::AcqRel);
        // Given up here: nobody handles them, and the rebalance need not wait.
        self.take_waiting(|waiting| !self.owns(&waiting.partition));
        gone
    }

    /// Keeps a message until it is due.
    pub(crate) fn keep_waiting(&self, partition: &Arc<Partition>, wait: Duration, received: Received) {
        let due = Instant::now() + wait;
        let partition = Arc::clone(partition);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting { partition, due, received });
    }

    /// Takes out the messages that are due.
    pub(crate) fn take_due(&self) -> Vec<Received> {
        let now = Instant::now();
        self.take_waiting(|waiting| waiting.due <= now).into_iter().map(|waiting| waiting.received).collect()
    }

    /// Gives up the messages that wait.
    pub(crate) fn forget_waiting(&self) {
        drop(self.take_waiting(|_| true));
    }

    /// Tells whether a message of that partition waits.
    pub(crate) fn has_waiting(&self, partition: &Arc<Partition>) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.iter().any(|waiting| Arc::ptr_eq(&waiting.partition, partition))
    }

    fn take_waiting(&self, which: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extract_if(.., |waiting| which(waiting)).collect()
    }

    fn owns(&self, partition: &Arc<Partition>) -> bool {
        let key = (Arc::clone(&partition.topic), partition.number);
        self.owned().partitions.get(&key).is_some_and(|owned| Arc::ptr_eq(owned, partition))
    }

    /// Commits what is settled and not committed, on a thread that may block, unless an earlier commit is under way.
    ///
    /// The client tells only who waits what became of a commit.
    pub(crate) fn commit_in_background(self: &Arc<Self>, consumer: &Arc<BaseConsumer<Context>>, runtime: &Handle) {
        let partitions = self.partitions();
        if partitions.iter().all(|partition| partition.uncommitted().is_none()) {
            return;
        }
        if !self.commits.begin_only() {
            return;
        }
        let (shared, consumer) = (Arc::clone(self), Arc::clone(consumer));
        runtime.spawn_blocking(move || {
            let _committing = shared.commits.guard();
            // A failure is reported there, and the next commit tries again.
            let _ = shared.commit_and_wait(&consumer, &partitions);
            drop(consumer);
        });
    }

    /// Commits what is settled of some partitions and waits for the broker's answer. Blocks.
    pub(crate) fn commit_and_wait(
        &self,
        consumer: &BaseConsumer<Context>,
        partitions: &[Arc<Partition>],
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
        report::commit(self, started, &positions, result.as_ref().err());
        result
    }

    /// Commits one offset and waits for the broker's answer.
    pub(crate) async fn commit_now(
        self: Arc<Self>,
        topic: Arc<str>,
        partition: i32,
        position: i64,
    ) -> Result<(), BrokerError> {
        if self.settings.group.is_none() {
            return Ok(());
        }
        let lost = || error::partition_lost(&topic, partition);
        let consumer = self.consumer.get().and_then(Weak::upgrade).ok_or_else(lost)?;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&topic, partition, Offset::Offset(position))
            .map_err(|failed| error::commit(&failed))?;
        self.commits.begin();
        let committing = spawn_blocking(move || {
            let _committing = self.commits.guard();
            let result = consumer.commit(&list, CommitMode::Sync);
            drop(consumer);
            result
        });
        committing.await.map_err(|_| lost())?.map_err(|failed| error::commit(&failed))
    }

    /// Waits until no commit is under way, since whoever commits holds the consumer.
    pub(crate) fn wait_for_commits(&self, limit: Duration) {
        self.commits.wait_for_none(limit);
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the commits that are under way.
#[derive(Default)]
struct Commits {
    running: Mutex<usize>,
    ended: Condvar,
}

/// Ends a commit when it is dropped.
struct Committing<'a>(&'a Commits);

impl Commits {
    fn begin(&self) {
        *self.running() += 1;
    }

    /// Begins a commit unless one is under way.
    fn begin_only(&self) -> bool {
        let mut running = self.running();
        let is_only = *running == 0;
        *running += usize::from(is_only);
        is_only
    }

    const fn guard(&self) -> Committing<'_> {
        Committing(self)
    }

    fn wait_for_none(&self, limit: Duration) {
        drop(self.ended.wait_timeout_while(self.running(), limit, |running| *running > 0));
    }

    fn running(&self) -> MutexGuard<'_, usize> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running();
        *running = running.saturating_sub(1);
        drop(running);
        self.0.ended.notify_all();
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
