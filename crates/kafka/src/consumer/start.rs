//! Where partitions begin. `start` is for a group that is new; one that exists goes on where it was, and begins a partition that was
//! added at its beginning.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{info, warn};

use super::partition::{Beginning, Start};
use super::shared::Shared;
use crate::subscription::StartPosition;

/// How long the broker may take to say where a partition begins.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

type Key = (Arc<str>, i32);

/// Where the assigned partitions begin, and where a new group begins in those that this member does not have.
#[derive(Default)]
pub(super) struct Starts {
    pub(super) own: Vec<Start>,
    others: Vec<(Key, i64)>,
}

/// Finds out where to begin in partitions that were assigned, and notes it in the list. Blocks.
///
/// The end of a partition is asked for now and not left to the first fetch: what is published from here on must not be missed.
pub(super) fn positions(
    consumer: &BaseConsumer<impl ConsumerContext>,
    shared: &Shared,
    assigned: &mut TopicPartitionList,
) -> KafkaResult<Starts> {
    let keys = keys(assigned);
    let mut starts = Starts::default();
    if keys.is_empty() {
        return Ok(starts);
    }
    let finder = Finder { consumer, shared };
    if shared.settings.group.is_some() {
        finder.of_group(keys, &mut starts)?;
    } else {
        for (topic, number) in keys {
            let offset = finder.without_group(&topic, number)?;
            starts.own.push((topic, number, Beginning::At(offset)));
        }
    }
    for (topic, number, beginning) in &starts.own {
        if let (Beginning::At(offset), Some(mut element)) = (beginning, assigned.find_partition(topic, *number)) {
            element.set_offset(Offset::Offset(*offset))?;
        }
    }
    Ok(starts)
}

impl Starts {
    pub(super) fn of(own: Vec<Start>) -> Self {
        Self { own, others: Vec::new() }
    }

    /// Commits where a new group begins, in all partitions of a topic at once: from then on, one without an offset was added. Blocks.
    pub(super) fn commit(&self, consumer: &BaseConsumer<impl ConsumerContext>) {
        if self.others.is_empty() {
            return;
        }
        let own = self.own.iter().filter_map(|(topic, number, beginning)| match beginning {
            Beginning::At(offset) => Some((topic, *number, *offset)),
            _ => None,
        });
        let others = self.others.iter().map(|((topic, number), offset)| (topic, *number, *offset));
        let mut list = TopicPartitionList::with_capacity(self.own.len() + self.others.len());
        let added = own
            .chain(others)
            .try_for_each(|(topic, number, offset)| list.add_partition_offset(topic, number, Offset::Offset(offset)));
        if let Err(failed) = added.and_then(|()| consumer.commit(&list, CommitMode::Sync)) {
            warn!(
                error = %failed,
                "where the group begins was not committed; a member that starts now may begin partitions at their beginning"
            );
        }
    }
}

/// Asks the brokers on behalf of one subscription.
struct Finder<'a, C: ConsumerContext> {
    consumer: &'a BaseConsumer<C>,
    shared: &'a Shared,
}

impl<C: ConsumerContext> Finder<'_, C> {
    /// Without a group this member has every partition from its start on: what it gets later was created since.
    fn without_group(&self, topic: &Arc<str>, number: i32) -> KafkaResult<i64> {
        match self.shared.ownership.place(topic, number) {
            Some(place) => Ok(place),
            None if self.shared.ownership.is_assigned() => self.at(topic, number, StartPosition::Earliest),
            None => self.at(topic, number, self.shared.settings.start_position()),
        }
    }

    fn of_group(&self, keys: Vec<Key>, starts: &mut Starts) -> KafkaResult<()> {
        let committed = self.committed(keys)?;
        let missing: HashSet<Arc<str>> =
            committed.iter().filter(|(_, offset)| offset.is_none()).map(|((topic, _), _)| Arc::clone(topic)).collect();
        let mut new = HashSet::new();
        for topic in missing {
            if self.is_new(&topic, &committed, starts)? {
                new.insert(topic);
            }
        }
        for ((topic, number), offset) in committed {
            let beginning = match offset {
                Some(offset) => Beginning::Committed(offset),
                None if new.contains(&topic) => {
                    Beginning::At(self.at(&topic, number, self.shared.settings.start_position())?)
                }
                // The client begins with the earliest message.
                None => Beginning::Unknown,
            };
            starts.own.push((topic, number, beginning));
        }
        Ok(())
    }

    /// Tells whether a topic is new to the group, so that `start` counts. Who has its first partition then finds out where to begin in
    /// those that other members have.
    fn is_new(&self, topic: &Arc<str>, committed: &[(Key, Option<i64>)], starts: &mut Starts) -> KafkaResult<bool> {
        let settings = &self.shared.settings;
        if settings.start_position() == StartPosition::Earliest || settings.is_retry_topic(topic) {
            return Ok(false);
        }
        if !settings.partitions.is_empty() {
            // A partition that was named is by itself.
            return Ok(true);
        }
        let own = |key: &Key| committed.iter().any(|(known, _)| known == key);
        let others = self.partitions_of(topic)?.into_iter().map(|number| (Arc::clone(topic), number));
        let others: Vec<Key> = others.filter(|key| !own(key)).collect();
        let others = if others.is_empty() { Vec::new() } else { self.committed(others)? };
        let has_place = |(key, offset): &(Key, Option<i64>)| key.0 == *topic && offset.is_some();
        // What a running member finds without an offset was created since.
        if self.shared.ownership.is_assigned() || committed.iter().chain(&others).any(has_place) {
            info!(topic = &**topic, "a partition without an offset begins at its beginning: the group exists");
            return Ok(false);
        }
        if own(&(Arc::clone(topic), 0)) {
            for ((topic, number), _) in others {
                let offset = self.at(&topic, number, settings.start_position())?;
                starts.others.push(((topic, number), offset));
            }
        }
        Ok(true)
    }

    fn at(&self, topic: &str, number: i32, position: StartPosition) -> KafkaResult<i64> {
        let (earliest, end) = match position {
            StartPosition::Time(time) => return at_time(self.consumer, topic, number, time),
            _ => self.consumer.fetch_watermarks(topic, number, ANSWER_WAIT)?,
        };
        Ok(if position == StartPosition::Latest { end } else { earliest })
    }

    fn partitions_of(&self, topic: &str) -> KafkaResult<Vec<i32>> {
        let metadata = self.consumer.fetch_metadata(Some(topic), ANSWER_WAIT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found.map(|found| found.partitions().iter().map(|one| one.id()).collect()).unwrap_or_default())
    }

    /// Returns where the group is.
    fn committed(&self, keys: Vec<Key>) -> KafkaResult<Vec<(Key, Option<i64>)>> {
        let found = self.consumer.committed_offsets(list_of(&keys), ANSWER_WAIT)?;
        let mut committed = Vec::with_capacity(keys.len());
        for key in keys {
            let offset = match found.find_partition(&key.0, key.1) {
                Some(element) => element.error().map(|()| element.offset())?,
                None => Offset::Invalid,
            };
            committed.push((key, if let Offset::Offset(offset) = offset { Some(offset) } else { None }));
        }
        Ok(committed)
    }
}

fn at_time(
    consumer: &BaseConsumer<impl ConsumerContext>,
    topic: &str,
    partition: i32,
    time: SystemTime,
) -> KafkaResult<i64> {
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let mut asked = TopicPartitionList::with_capacity(1);
    asked.add_partition_offset(topic, partition, Offset::Offset(i64::try_from(millis).unwrap_or(i64::MAX)))?;
    let found = consumer.offsets_for_times(asked, ANSWER_WAIT)?;
    match found.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Ok(offset),
        // No message is that young.
        _ => Ok(consumer.fetch_watermarks(topic, partition, ANSWER_WAIT)?.1),
    }
}

pub(super) fn keys(list: &TopicPartitionList) -> Vec<Key> {
    list.elements().iter().map(|element| (Arc::from(element.topic()), element.partition())).collect()
}

pub(super) fn list_of(keys: &[Key]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(keys.len());
    for (topic, number) in keys {
        list.add_partition(topic, *number);
    }
    list
}
