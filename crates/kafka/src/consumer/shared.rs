use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    /// Whether the lag is measured.
    is_measured: AtomicBool,
    /// Whether the app knows that there was no share for this member when it started. Held while the app is told of the share.
    lacks_share: Mutex<bool>,
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
        Self {
            settings,
            member,
            ownership,
            waiting: WaitingRoom::default(),
            commits,
            is_measured: AtomicBool::new(false),
            lacks_share: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Lets the subscription end with an error, at the next turn of the poll thread.
    pub(crate) fn fail(&self, error: BrokerError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    pub(crate) fn take_failure(&self) -> Option<BrokerError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn observe(&self, observer: Arc<dyn Observe>) {
        self.commits.reports.set_observer(observer);
        self.measure();
        self.tell_of_share();
    }

    /// Measures the lag, if that is not done yet: who measures may come later than this.
    pub(super) fn measure(&self) {
        let Some(observer) = self.commits.reports.observer() else { return };
        if !self.is_measured.load(Ordering::Relaxed) {
            let is_measured = measure_lag(&self.ownership, self.settings.group.clone(), &**observer);
            self.is_measured.store(is_measured, Ordering::Relaxed);
        }
    }

    /// Tells the app which partitions are this member's. Where the group gave it none yet, that is what is wrong.
    pub(super) fn tell_of_share(&self) {
        let Some(observer) = self.commits.reports.observer() else { return };
        let mut lacks_share = self.lacks_share.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.ownership.is_assigned() {
            *lacks_share = true;
            return observer.degraded(Some("the group has not assigned any partition yet".into()));
        }
        if std::mem::take(&mut *lacks_share) {
            observer.degraded(None);
        }
        let mut share: Vec<_> =
            self.ownership.partitions().iter().map(|one| (Arc::clone(&one.topic), one.number)).collect();
        share.sort_unstable();
        observer.assigned(share.iter().map(|(topic, number)| format!("{topic} {number}")).collect());
    }

    /// Tells the app that the brokers were asked for messages.
    pub(super) fn polled(&self, again_within: Duration) {
        if let Some(observer) = self.commits.reports.observer() {
            observer.polled(again_within);
        }
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
