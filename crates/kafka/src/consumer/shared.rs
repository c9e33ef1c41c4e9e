use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use throughline_core::BrokerError;
use throughline_core::broker::Observe;

use super::awaited::AwaitedCommits;
use super::commits::Commits;
use super::member::Member;
use super::ownership::Ownership;
use super::partition::Partition;
use super::report::{Reports, measure_lag};
use super::waiting::WaitingRoom;
use crate::subscription::{Commit, Topic};

/// What the poll thread, its callbacks, the handlers that settle and the metrics have in common.
pub(crate) struct Shared {
    pub(crate) settings: Topic,
    pub(super) member: Arc<Member>,
    pub(crate) ownership: Arc<Ownership>,
    /// Messages that are not due yet.
    pub(super) waiting: WaitingRoom,
    pub(super) commits: Commits,
    /// Why the subscription cannot go on, found out where no error can be returned.
    failure: Mutex<Option<BrokerError>>,
}

impl Shared {
    pub(crate) fn new(settings: Topic) -> Self {
        let member = Arc::<Member>::default();
        let has_group = settings.group.is_some();
        let awaited = Arc::new(AwaitedCommits::new(Arc::clone(&member), has_group));
        let commits_each_message = settings.commit == Commit::EachMessage;
        let ownership = Arc::new(Ownership::new(!has_group, commits_each_message, Arc::clone(&awaited)));
        let reports = Reports::new(&settings);
        let commits = Commits::new(Arc::clone(&ownership), awaited, reports, settings.exactly_once.is_some());
        Self { settings, member, ownership, waiting: WaitingRoom::default(), commits, failure: Mutex::default() }
    }

    /// Lets the subscription end with an error, at the next turn of the poll thread.
    pub(crate) fn fail(&self, error: BrokerError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(crate) fn take_failure(&self) -> Option<BrokerError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn observe(&self, observer: Arc<dyn Observe>) {
        measure_lag(&self.ownership, self.settings.group.clone(), &*observer);
        self.commits.reports.set_observer(observer);
    }

    /// Gives partitions up and returns them: no handler begins with a message of theirs any more.
    pub(crate) fn disown(&self, revoked: &TopicPartitionList) -> Vec<Arc<Partition>> {
        let gone = self.ownership.disown(revoked);
        // Given up here: nobody handles them, and the rebalance need not wait.
        self.waiting.give_up(|partition| !self.ownership.owns(partition));
        gone
    }

    /// Returns as what this member commits offsets in a transaction; `None` when it is none any more. Blocks shortly.
    pub(crate) fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.member.metadata()
    }
}
