use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Context;
use super::shared::Shared;
use crate::subscription::StartPosition;

/// How long the broker may take to say where a partition begins.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A partition, and the offset it begins at where that is not the group's.
pub(super) type Start = (Arc<str>, i32, Option<i64>);

/// Finds out where to begin in partitions that were assigned, and notes it in the list. Blocks.
///
/// The end of a partition is asked for now and not left to the first fetch: what is published from here on must not be missed.
pub(super) fn positions(
    consumer: &BaseConsumer<Context>,
    shared: &Shared,
    assigned: &mut TopicPartitionList,
) -> KafkaResult<Vec<Start>> {
    let keys = keys(assigned);
    let topic = &shared.settings;
    let position = topic.start_position();
    // Without a group this member has every partition from its start on: what it gets later was created since.
    let is_later = topic.group.is_none() && shared.is_assigned();
    if keys.is_empty() || (position == StartPosition::Earliest && topic.group.is_some()) {
        return Ok(keys.into_iter().map(|(name, number)| (name, number, None)).collect());
    }
    let committed = match topic.group {
        Some(_) => Some(consumer.committed_offsets(list_of(&keys), ANSWER_WAIT)?),
        None => None,
    };
    let mut starts = Vec::with_capacity(keys.len());
    for (name, number) in keys {
        let has_place = committed
            .as_ref()
            .and_then(|committed| committed.find_partition(&name, number))
            .is_some_and(|element| matches!(element.offset(), Offset::Offset(_)));
        if has_place {
            starts.push((name, number, None));
            continue;
        }
        let offset = match (shared.place(&name, number), position) {
            (Some(place), _) => place,
            (None, StartPosition::Latest) if is_later => consumer.fetch_watermarks(&name, number, ANSWER_WAIT)?.0,
            (None, StartPosition::Earliest) => consumer.fetch_watermarks(&name, number, ANSWER_WAIT)?.0,
            (None, StartPosition::Latest) => consumer.fetch_watermarks(&name, number, ANSWER_WAIT)?.1,
            (None, StartPosition::Time(time)) => at_time(consumer, &name, number, time)?,
        };
        if let Some(mut element) = assigned.find_partition(&name, number) {
            element.set_offset(Offset::Offset(offset))?;
        }
        starts.push((name, number, Some(offset)));
    }
    Ok(starts)
}

fn at_time(consumer: &BaseConsumer<Context>, topic: &str, partition: i32, time: SystemTime) -> KafkaResult<i64> {
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

pub(super) fn keys(list: &TopicPartitionList) -> Vec<(Arc<str>, i32)> {
    list.elements().iter().map(|element| (Arc::from(element.topic()), element.partition())).collect()
}

pub(super) fn list_of(keys: &[(Arc<str>, i32)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(keys.len());
    for (topic, number) in keys {
        list.add_partition(topic, *number);
    }
    list
}
