use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Statistics, TopicPartitionList};
use tracing::{error, warn};

use super::orders::{Orders, Task};
use super::partition::{Beginning, Partition};
use super::report::{Occasion, named, report_assigned, report_given_up};
use super::shared::Shared;
use super::start::{self, Starts};
use crate::subscription::StartPosition;

/// Hears from the client, on the poll thread: which partitions come and go, and what became of commits.
pub(crate) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: Arc<Orders>,
    pub(super) client: crate::context::Context,
}

/// How often it is tried to find out where partitions begin, unless the subscription ends before: each takes as long as a question to the
/// broker may.
const START_ATTEMPTS: u32 = 6;

impl Context {
    /// Takes partitions over, from where they are to be read.
    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) {
        let starts = self.starts(consumer, partitions);
        report_assigned(self.group(), starts.own.iter().map(|(topic, number, _)| (topic, *number)));
        // Owned first: messages may come as soon as the client knows.
        self.shared.ownership.own(starts.own.iter().cloned());
        let assigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
            _ => consumer.assign(partitions),
        };
        note(assigned, "partitions could not be assigned");
        self.shared.tell_of_share();
        starts.commit(consumer);
        self.shared.commits.commit_starts(consumer);
    }

    /// Finds out where to begin, for as long as the subscription is wanted. A place that stays unknown ends the subscription, unless the
    /// client finds the same one by itself.
    fn starts(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) -> Starts {
        for attempt in 1.. {
            match start::positions(consumer, &self.shared, partitions) {
                Ok(starts) => return starts,
                Err(failed) if attempt < START_ATTEMPTS && self.orders.task() != Task::End => {
                    warn!(group = self.group(), attempt, error = %failed, "where to begin is not known yet; the brokers are asked again");
                }
                Err(failed) => {
                    let settings = &self.shared.settings;
                    if settings.group.is_none() || settings.start_position() != StartPosition::Earliest {
                        self.shared
                            .fail(crate::error::broker("the brokers do not say where partitions begin", &failed));
                    }
                    break;
                }
            }
        }
        let unknown = |(topic, number)| (topic, number, Beginning::Unknown);
        Starts::of(start::keys(partitions).into_iter().map(unknown).collect())
    }

    /// Runs a callback of the client. One that panics ends the subscription: what it was to do is not done.
    fn guarded(&self, what: &str, callback: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(callback)).is_err() {
            error!(group = self.group(), "the handling of {what} panicked; the subscription ends");
            self.shared.fail(crate::error::panicked(what));
        }
    }

    fn group(&self) -> Option<&str> {
        self.shared.settings.group.as_deref()
    }

    /// Gives partitions up: handlers that run may finish, what is settled is committed, and from then on nothing of them counts.
    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let gone = self.shared.disown(partitions);
        self.shared.tell_of_share();
        if consumer.assignment_lost() {
            // Another member may have them already: a commit would be refused.
            warn!(
                group = self.group(),
                partitions = %named(&gone),
                "partitions were lost: the group counts this member as gone; what was not committed comes again, to the member that has them next"
            );
        } else {
            let began = Instant::now();
            let late = |partition: &&Arc<Partition>| {
                let left = self.shared.settings.rebalance_timeout.saturating_sub(began.elapsed());
                !partition.wait_until_idle(left)
            };
            let late: Vec<_> = gone.iter().filter(late).map(Arc::clone).collect();
            if !late.is_empty() {
                warn!(
                    group = self.group(),
                    partitions = %named(&late),
                    "handlers outlast the rebalance; their messages come again elsewhere"
                );
            }
            // A failure is reported there.
            let _ = self.shared.commits.commit_and_wait(consumer, &gone, Occasion::Rebalance);
        }
        for partition in &gone {
            partition.lose();
        }
        report_given_up(self.group(), &gone);
        let unassigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
            _ => consumer.unassign(),
        };
        note(unassigned, "partitions could not be given up");
    }
}

fn note(result: KafkaResult<()>, what: &str) {
    if let Err(failed) = result {
        error!(error = %failed, "{what}");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        self.guarded("a rebalance", || match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, partitions),
            _ => self.revoke(consumer, partitions),
        });
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.guarded("the answer to a commit", || self.shared.commits.note_answer(&result, offsets));
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.client.log(level, facility, line);
    }

    /// The only place where the client says up to where it has fetched.
    fn stats(&self, statistics: Statistics) {
        self.guarded("statistics", || {
            self.client.note_brokers(&statistics);
            let topics = statistics.topics.values();
            let partitions = topics.flat_map(|topic| topic.partitions.values().map(|one| (topic.topic.as_str(), one)));
            let active = partitions.filter(|(_, one)| one.fetch_state == "active" && one.next_offset >= 0);
            self.shared.ownership.note_fetched(active.map(|(topic, one)| (topic, one.partition, one.next_offset)));
        });
    }

    fn error(&self, failed: KafkaError, reason: &str) {
        self.client.error(failed, reason);
    }
}
