use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::TopicPartitionList;

use super::awaited::AwaitedCommits;
use super::partition::{Partition, Start};

/// Which partitions this member owns.
pub(crate) struct Ownership {
    owned: Mutex<Owned>,
    /// Counts changes of what is owned.
    generation: AtomicU64,
    is_assigned: AtomicBool,
    /// Whether the client has said how far it fetched, since that was last looked at.
    has_fetched: AtomicBool,
    /// Without a group nobody else keeps where a partition that was given up goes on.
    keeps_places: bool,
    commits_each_message: bool,
    awaited: Arc<AwaitedCommits>,
}

#[derive(Default)]
struct Owned {
    partitions: HashMap<(Arc<str>, i32), Arc<Partition>>,
    /// A partition keeps its lane also when it comes back.
    lanes: HashMap<(Arc<str>, i32), u32>,
    /// Where partitions that were given up go on.
    places: HashMap<(Arc<str>, i32), i64>,
}

impl Ownership {
    pub(super) fn new(keeps_places: bool, commits_each_message: bool, awaited: Arc<AwaitedCommits>) -> Self {
        Self {
            owned: Mutex::default(),
            generation: AtomicU64::new(0),
            is_assigned: AtomicBool::new(false),
            has_fetched: AtomicBool::new(false),
            keeps_places,
            commits_each_message,
            awaited,
        }
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
    pub(crate) fn own(&self, assigned: impl IntoIterator<Item = Start>) {
        let mut owned = self.owned();
        for (topic, number, start) in assigned {
            let key = (Arc::clone(&topic), number);
            let next = u32::try_from(owned.lanes.len()).unwrap_or(u32::MAX);
            let lane = *owned.lanes.entry(key.clone()).or_insert(next);
            let partition =
                Partition::new(topic, number, lane, &self.awaited, self.commits_each_message).beginning(start);
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
        if self.keeps_places {
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
        gone
    }

    pub(crate) fn owns(&self, partition: &Arc<Partition>) -> bool {
        let key = (Arc::clone(&partition.topic), partition.number);
        self.owned().partitions.get(&key).is_some_and(|owned| Arc::ptr_eq(owned, partition))
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
