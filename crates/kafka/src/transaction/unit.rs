use std::sync::Arc;
use std::time::Duration;

use throughline_core::Settlement;
use throughline_core::broker::{Received, Settle};
use tokio::time::Instant;

use crate::consumer::Partition;
use crate::delivery::NativeRecord;

/// A wait that no process lives to see.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// A message that waits to be handed out, or is kept until its transaction is committed. Dropped, it is given up.
pub(super) struct Held {
    received: Received,
    /// Whether it has a transaction of its own, since one of those before failed.
    pub(super) is_alone: bool,
    /// When it may be handed out again.
    pub(super) due: Option<Instant>,
}

impl Held {
    pub(super) const fn new(received: Received) -> Self {
        Self { received, is_alone: false, due: None }
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.received.is_withdrawn()
    }

    /// The message once more; whoever gets it settles it with the unit.
    fn lend(&self, unit: &Arc<dyn Settle>, index: usize) -> Received {
        let tag = u64::try_from(index).unwrap_or(u64::MAX);
        let received = Received::new(self.received.delivery.clone()).with_settle(Arc::clone(unit), tag);
        if self.is_alone { received.with_batch_end() } else { received }
    }

    /// Where the message stands: the partition as it was when the message came, and the offset behind it.
    fn place(&self) -> Option<(&Arc<Partition>, i64)> {
        let record = self.received.delivery.native::<NativeRecord>()?;
        Some((self.received.delivery.extension::<Arc<Partition>>()?, record.offset() + 1))
    }

    /// Counts it as settled, which the broker knows.
    fn note_committed(mut self) {
        if let Some((partition, position)) = self.place() {
            // In this order, so that nobody finds an offset to commit.
            partition.note_commit(position);
            // Lost since then: another member begins behind it.
            let _ = partition.note_settled(position - 1);
        }
        drop(self.received.take_settle());
    }

    fn count_attempt(&mut self) {
        let next = self.received.delivery.attempt().saturating_add(1);
        self.received.delivery = self.received.delivery.clone().with_attempt(next);
    }
}

/// What became of a message of a unit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Open,
    Done,
    /// To be handled again after a time.
    Failed(Duration),
    GivenUp,
    /// The same, and not through its handler: its transaction could not be committed.
    Uncommitted(Duration),
}

/// How far the transaction of a unit is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Running,
    /// The client is at it.
    Ending,
    TakenBack,
}

/// The messages of one transaction.
pub(super) struct Unit {
    handle: Arc<dyn Settle>,
    members: Vec<(Held, Verdict)>,
    pub(super) stage: Stage,
    /// How many messages it may have, and until when they may come.
    most: usize,
    until: Option<Instant>,
}

/// What is to be done after a message was settled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Task {
    /// Commit offsets and what was published.
    Commit,
    /// Nothing yet, or no more.
    Nothing,
    /// Take back what was published and commit the offsets alone.
    Skip,
    TakeBack,
}

impl Unit {
    pub(super) const fn new(handle: Arc<dyn Settle>, most: usize, until: Option<Instant>) -> Self {
        Self { handle, members: Vec::new(), stage: Stage::Running, most, until }
    }

    /// Adds a message and hands it out.
    pub(super) fn hand_out(&mut self, held: Held) -> Received {
        let received = held.lend(&self.handle, self.members.len());
        if held.is_alone {
            self.most = 1;
        }
        self.members.push((held, Verdict::Open));
        received
    }

    /// Whether a batch may still be collected. The framework's own time for it began after this one.
    pub(super) fn takes_more(&self, now: Instant) -> bool {
        self.stage == Stage::Running
            && self.members.len() < self.most
            && self.until.is_some_and(|until| now < until)
            && self.members.iter().all(|(_, verdict)| *verdict == Verdict::Open)
    }

    pub(super) fn is_done(&self) -> bool {
        self.members.iter().all(|(_, verdict)| *verdict != Verdict::Open)
    }

    pub(super) fn is_withdrawn(&self, index: usize) -> bool {
        self.members.get(index).is_some_and(|(held, _)| held.is_withdrawn())
    }

    /// Notes the settlement of a message and says what follows.
    pub(super) fn settle(&mut self, index: usize, settlement: &Settlement) -> Task {
        let is_single = self.members.iter().filter(|(_, verdict)| *verdict != Verdict::GivenUp).count() == 1;
        let (verdict, task) = match settlement {
            Settlement::Ack => (Verdict::Done, Task::Commit),
            Settlement::Reject { .. } if is_single => (Verdict::Done, Task::Skip),
            Settlement::Reject { .. } => (Verdict::Failed(Duration::ZERO), Task::TakeBack),
            Settlement::Retry { after } => (Verdict::Failed(after.unwrap_or_default()), Task::TakeBack),
            // A settlement that is not known here is no reason to lose the message.
            _ => (Verdict::Failed(Duration::ZERO), Task::TakeBack),
        };
        if let Some((_, own)) = self.members.get_mut(index) {
            *own = verdict;
        }
        match task {
            _ if self.stage != Stage::Running => Task::Nothing,
            Task::TakeBack => Task::TakeBack,
            _ if !self.is_done() => Task::Nothing,
            // Given up in the middle of it, and not because it went to another member.
            _ if self.members.iter().any(|(held, verdict)| *verdict == Verdict::GivenUp && !held.is_withdrawn()) => {
                Task::TakeBack
            }
            task => task,
        }
    }

    pub(super) fn give_up(&mut self, index: usize) {
        if let Some((_, verdict)) = self.members.get_mut(index) {
            *verdict = Verdict::GivenUp;
        }
    }

    /// The offsets to commit, for each partition the last one.
    pub(super) fn places(&self) -> Vec<(Arc<Partition>, i64)> {
        let mut places: Vec<(Arc<Partition>, i64)> = Vec::new();
        let done = self.members.iter().filter(|(_, verdict)| *verdict == Verdict::Done);
        for (partition, position) in done.filter_map(|(held, _)| held.place()) {
            match places.iter_mut().find(|(known, _)| Arc::ptr_eq(known, partition)) {
                Some((_, last)) => *last = position,
                None => places.push((Arc::clone(partition), position)),
            }
        }
        places
    }

    /// Ends a unit that was committed; those that were given up before are given up now.
    pub(super) fn note_committed(self) {
        for (held, verdict) in self.members {
            if verdict == Verdict::Done {
                held.note_committed();
            }
        }
    }

    /// Ends a unit that was taken back, and returns its messages as they are to come again. Where failed messages wait elsewhere
    /// between their attempts, one that failed among others has not waited yet: that is no attempt of its own.
    pub(super) fn again(self, now: Instant, waits_elsewhere: bool) -> Vec<Held> {
        let failed = |(_, verdict): &(Held, Verdict)| match verdict {
            Verdict::Failed(after) | Verdict::Uncommitted(after) => Some(*after),
            _ => None,
        };
        let is_attempt = !waits_elsewhere || self.members.len() == 1;
        let longest = self.members.iter().filter_map(failed).max();
        let again = self.members.into_iter().map(|(mut held, verdict)| {
            if let Some(wait) = longest {
                (held.is_alone, held.due) = (true, Some(after(now, wait)));
            }
            if is_attempt && matches!(verdict, Verdict::Failed(_)) {
                held.count_attempt();
            }
            held
        });
        // Those of partitions that were lost meanwhile are given up here.
        again.filter(|held| !held.is_withdrawn()).collect()
    }

    /// Lets all messages come again after a time, since their transaction could not be committed.
    pub(super) fn fail(&mut self, after: Duration) {
        for (_, verdict) in &mut self.members {
            if *verdict == Verdict::Done {
                *verdict = Verdict::Uncommitted(after);
            }
        }
    }
}

/// Returns the time after a wait, however long that is.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or_else(|| now + FAR)
}
