//! What the consumer tells telemetry by itself: commits in the background, and the lag.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use opentelemetry::KeyValue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use throughline_core::broker::Observe;
use throughline_core::telemetry::semconv::{
    MESSAGING_CONSUMER_GROUP_NAME, MESSAGING_DESTINATION_NAME, MESSAGING_SYSTEM, RETRY_DESTINATION,
};
use tracing::{debug, info, warn};

use super::ownership::Ownership;
use super::partition::Partition;
use crate::error;
use crate::outage::Repeats;
use crate::semconv::{SYSTEM, offset_attribute, partition_attribute};
use crate::subscription::Topic;

/// The metric of the lag: how many messages of a partition are not settled yet.
const LAG: &str = "throughline.consumer.lag";

/// Says what a commit is, and so what becomes of messages whose offsets it could not commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Occasion {
    /// The next one follows.
    Background,
    /// It is tried again while the group divides its partitions, and then the member leaves.
    End,
    /// The partitions go to another member.
    Rebalance,
}

/// What the consumer tells of commits.
pub(crate) struct Reports {
    pub(super) group: Option<Arc<str>>,
    settings: Topic,
    observer: OnceLock<Arc<dyn Observe>>,
    /// What the log has said of commits that failed.
    failures: Repeats<(Option<RDKafkaErrorCode>, bool)>,
}

impl Reports {
    pub(super) fn new(settings: &Topic) -> Self {
        let (group, settings) = (settings.group.clone(), settings.clone());
        Self { group, settings, observer: OnceLock::new(), failures: Repeats::default() }
    }

    pub(super) fn set_observer(&self, observer: Arc<dyn Observe>) {
        let _ = self.observer.set(observer);
    }

    /// Returns whom to tell, once that is known.
    pub(super) fn observer(&self) -> Option<&Arc<dyn Observe>> {
        self.observer.get()
    }

    /// Records a commit of several messages.
    // SPAN-33, ATTR-K-11.
    pub(super) fn commit(
        &self,
        started: Instant,
        positions: &[(Arc<Partition>, i64)],
        failed: Option<&KafkaError>,
        occasion: Occasion,
    ) {
        if let Some(failed) = failed {
            self.log_failure(positions, failed, occasion);
        } else {
            self.failures.forget();
        }
        let failed = failed.map(error::commit);
        let Some(observer) = self.observer.get() else { return };
        let mut topics = positions.iter().map(|(partition, _)| self.settings.shown_as(&partition.topic));
        let destination = topics.next().filter(|first| topics.all(|other| other == *first));
        let attributes = match positions {
            [(partition, position)] => {
                // The offset of a message: the last one that is settled.
                let attributes = [partition_attribute(partition.number), offset_attribute(position - 1)];
                let waited = destination.is_some_and(|shown| *shown != *partition.topic);
                let own_topic = || KeyValue::new(RETRY_DESTINATION, Arc::clone(&partition.topic));
                attributes.into_iter().chain(waited.then(own_topic)).collect()
            }
            _ => Vec::new(),
        };
        observer.settled(started, destination, attributes, failed.as_ref());
    }

    /// Says why offsets were not committed and what becomes of their messages; while that goes on, every half minute.
    fn log_failure(&self, positions: &[(Arc<Partition>, i64)], failed: &KafkaError, occasion: Occasion) {
        // One that is lost by now is another member's.
        let is_lost = is_of_others(failed) || positions.iter().all(|(partition, _)| partition.is_lost());
        if occasion == Occasion::End && is_rebalancing(failed) {
            debug!(group = self.group.as_deref(), error = %failed, "the last offsets are committed when the group is divided");
            return;
        }
        let comes_again = is_lost || occasion != Occasion::Background;
        let Some(left_out) = self.failures.admit((failed.rdkafka_error_code(), comes_again)) else { return };
        let group = self.group.as_deref();
        let partitions: Vec<_> = positions.iter().map(|(partition, _)| Arc::clone(partition)).collect();
        let partitions = named(&partitions);
        if comes_again {
            warn!(
                group, %partitions, left_out, error = %failed,
                "offsets were not committed: their messages come again, to the member that has their partitions next"
            );
        } else {
            warn!(group, %partitions, left_out, error = %failed, "offsets were not committed yet: that is tried again with the next commit");
        }
    }
}

/// Tells whether a commit was refused because this member is none any more.
fn is_of_others(failed: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AssignmentLost, FencedInstanceId, FencedMemberEpoch, UnknownMemberId};
    let code = failed.rdkafka_error_code();
    matches!(code, Some(AssignmentLost | FencedInstanceId | FencedMemberEpoch | UnknownMemberId))
}

/// Tells whether a commit was refused only because the group is dividing its partitions anew.
pub(super) fn is_rebalancing(failed: &KafkaError) -> bool {
    use RDKafkaErrorCode::{IllegalGeneration, RebalanceInProgress};
    matches!(failed.rdkafka_error_code(), Some(IllegalGeneration | RebalanceInProgress))
}

/// How many partitions a line of the log names.
const MOST_NAMED: usize = 10;

/// Names partitions for the log: topic and number of each.
pub(super) fn named(partitions: &[Arc<Partition>]) -> String {
    let mut names: Vec<String> =
        partitions.iter().map(|partition| format!("{}/{}", partition.topic, partition.number)).collect();
    names.sort_unstable();
    if names.len() > MOST_NAMED {
        let more = names.len() - MOST_NAMED;
        names.truncate(MOST_NAMED);
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

/// Logs which partitions are read from now on, in a line for each topic.
pub(super) fn report_assigned<'a>(group: Option<&str>, partitions: impl Iterator<Item = (&'a Arc<str>, i32)>) {
    let topics = by_topic(partitions);
    for (topic, partitions) in &topics {
        info!(topic, group, partitions, "partitions were assigned");
    }
    if topics.is_empty() {
        info!(group, "no partitions were assigned: other members of the group have them");
    }
}

/// Logs which partitions are read no more.
pub(super) fn report_given_up(group: Option<&str>, gone: &[Arc<Partition>]) {
    for (topic, partitions) in by_topic(gone.iter().map(|partition| (&partition.topic, partition.number))) {
        info!(topic, group, partitions, "partitions were given up");
    }
}

/// The numbers of partitions as a text, for each topic.
fn by_topic<'a>(partitions: impl Iterator<Item = (&'a Arc<str>, i32)>) -> BTreeMap<&'a str, String> {
    let mut numbers: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, number) in partitions {
        numbers.entry(topic).or_default().push(number);
    }
    let text = |mut numbers: Vec<i32>| {
        numbers.sort_unstable();
        numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    numbers.into_iter().map(|(topic, numbers)| (topic, text(numbers))).collect()
}

/// Lets the meter of the app ask for the lag, from what the client knows by itself. Returns whether there is a meter.
pub(super) fn measure_lag(ownership: &Arc<Ownership>, group: Option<Arc<str>>, observer: &dyn Observe) -> bool {
    let Some(meter) = observer.meter() else { return false };
    // The meter keeps the callback for as long as it lives.
    let ownership: Weak<Ownership> = Arc::downgrade(ownership);
    meter
        .i64_observable_gauge(LAG)
        .with_unit("{message}")
        .with_description("Messages of a partition between the last settled one and its end, as the client knows it.")
        .with_callback(move |gauge| {
            let Some(ownership) = ownership.upgrade() else { return };
            for partition in ownership.partitions() {
                let Some(lag) = partition.lag() else { continue };
                let mut attributes = vec![
                    KeyValue::new(MESSAGING_SYSTEM, SYSTEM),
                    KeyValue::new(MESSAGING_DESTINATION_NAME, Arc::clone(&partition.topic)),
                    partition_attribute(partition.number),
                ];
                if let Some(group) = &group {
                    attributes.push(KeyValue::new(MESSAGING_CONSUMER_GROUP_NAME, Arc::clone(group)));
                }
                gauge.observe(lag, &attributes);
            }
        })
        .build();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_for_each_topic_in_their_order() {
        let (orders, bills) = (Arc::from("orders"), Arc::from("bills"));
        let partitions = [(&orders, 10), (&bills, 1), (&orders, 2)];
        let named: Vec<_> = by_topic(partitions.into_iter()).into_iter().collect();
        assert_eq!(named, [("bills", "1".to_owned()), ("orders", "2, 10".to_owned())]);
        assert!(by_topic(std::iter::empty()).is_empty());
    }
}
