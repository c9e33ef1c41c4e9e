use std::collections::VecDeque;
use std::future::ready;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{BatchSettled, BoxFuture, Received, Settle, done};
use throughline_core::{BrokerError, Settlement};

use super::awaited::AwaitedCommits;
use crate::error;

/// A partition this member owns: which of its messages are handed out, and up to where all of them are settled.
///
/// An offset is committed only when its message and all before it are settled. A partition that is assigned again is another value, so
/// that nothing of the earlier time can count for the later one.
pub(crate) struct Partition {
    pub(crate) topic: Arc<str>,
    pub(crate) number: i32,
    pub(crate) lane: u32,
    state: Mutex<State>,
    /// Told when messages are done.
    changed: Condvar,
    /// The end of the partition as the client knows it; negative as long as it does not.
    end: AtomicI64,
    /// Up to where the client has fetched as it said last; negative where it did not.
    fetched: AtomicI64,
    /// Up to where all that was fetched was handed out; what is left out between has no message. Negative where that is not known.
    read: AtomicI64,
    commits_each_message: bool,
    awaited: Arc<AwaitedCommits>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The messages handed out from the first on that is not settled, in their order.
    window: VecDeque<Entry>,
    /// How many of them are being handled.
    open: usize,
    /// The offset to commit: the one behind all that is settled.
    position: Option<i64>,
    committed: Option<i64>,
    /// The offset that comes next if none is left out.
    expected: Option<i64>,
    /// The first message that was given up although no one else gets it. No handler begins with one behind it, and when those that run are
    /// done, the partition is read again.
    given_up: Option<i64>,
    /// What the poll thread waits for; it is told only then, which is a call of the system.
    awaited: Option<Awaited>,
}

/// What the poll thread waits for.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// No handler is at work.
    Idle,
    /// No more than so many messages are held.
    Room(usize),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: i64,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    /// No handler has begun with it, or it was given up.
    Waits,
    Begun,
    Settled,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Owned,
    /// Goes to another member, or is read again: handlers that run may finish, others do not begin.
    Leaving,
    Lost,
}

/// Says where a partition begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Beginning {
    /// At an offset that is to be committed.
    At(i64),
    /// Where the group is.
    Committed(i64),
    /// Where the client finds it to be.
    Unknown,
}

/// A partition, and where it begins.
pub(super) type Start = (Arc<str>, i32, Beginning);

/// Says what became of a message that is handed out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HandedOut {
    /// It is not noted: it comes before one that was handed out already, so the topic is another one.
    Back { expected: i64 },
    /// So many are held; and where offsets before it were left out, the first of those.
    Held { messages: usize, left_out_from: Option<i64> },
}

impl State {
    fn has_come(&self, awaited: Awaited) -> bool {
        match awaited {
            Awaited::Idle => self.open == 0,
            Awaited::Room(most) => self.window.len() <= most || self.phase != Phase::Owned,
        }
    }

    /// Notes how far a message is.
    fn set(&mut self, offset: i64, progress: Progress) {
        // In order of the partition it is the first one.
        let place = match self.window.front() {
            Some(first) if first.offset == offset => Ok(0),
            _ => self.window.binary_search_by_key(&offset, |entry| entry.offset),
        };
        let Some(entry) = place.ok().and_then(|place| self.window.get_mut(place)) else { return };
        let earlier = std::mem::replace(&mut entry.progress, progress);
        self.open += usize::from(progress == Progress::Begun);
        self.open -= usize::from(earlier == Progress::Begun);
    }
}

impl Partition {
    pub(super) fn new(
        topic: Arc<str>,
        number: i32,
        lane: u32,
        awaited: &Arc<AwaitedCommits>,
        commits_each_message: bool,
    ) -> Self {
        let state = State {
            phase: Phase::Owned,
            window: VecDeque::new(),
            open: 0,
            position: None,
            committed: None,
            expected: None,
            given_up: None,
            awaited: None,
        };
        Self {
            topic,
            number,
            lane,
            state: Mutex::new(state),
            changed: Condvar::new(),
            end: AtomicI64::new(-1),
            fetched: AtomicI64::new(-1),
            read: AtomicI64::new(-1),
            commits_each_message,
            awaited: Arc::clone(awaited),
        }
    }

    /// Begins there.
    pub(crate) fn beginning(self, start: Beginning) -> Self {
        {
            let mut state = self.lock();
            match start {
                Beginning::Unknown => {}
                Beginning::Committed(offset) => {
                    (state.position, state.committed, state.expected) = (Some(offset), Some(offset), Some(offset));
                }
                // A group commits it, although no message before it was settled here.
                Beginning::At(offset) => (state.position, state.expected) = (Some(offset), Some(offset)),
            }
        }
        self
    }

    /// Notes a message that is handed out.
    pub(crate) fn hand_out(&self, offset: i64) -> HandedOut {
        let mut state = self.lock();
        let expected = state.expected.filter(|expected| *expected != offset);
        if let Some(expected) = expected.filter(|expected| *expected > offset) {
            return HandedOut::Back { expected };
        }
        state.window.push_back(Entry { offset, progress: Progress::Waits });
        state.expected = Some(offset + 1);
        HandedOut::Held { messages: state.window.len(), left_out_from: expected }
    }

    /// Returns how many messages are held: handed out, and not to be committed yet.
    pub(crate) fn held(&self) -> usize {
        self.lock().window.len()
    }

    /// Waits until no more than so many are held; false when that took too long.
    pub(crate) fn wait_for_room(&self, most: usize, limit: Duration) -> bool {
        self.wait_for(Awaited::Room(most), limit)
    }

    /// Lets no further handler begin with a message of it.
    pub(crate) fn leave(&self) {
        self.lock().phase = Phase::Leaving;
    }

    /// Waits until no handler is at work. Messages that nobody has begun with need no wait: since [`leave`](Self::leave) nobody will.
    pub(crate) fn wait_until_idle(&self, limit: Duration) -> bool {
        self.wait_for(Awaited::Idle, limit)
    }

    fn wait_for(&self, awaited: Awaited, limit: Duration) -> bool {
        let mut state = self.lock();
        state.awaited = Some(awaited);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, limit, |state| !state.has_come(awaited))
            .unwrap_or_else(PoisonError::into_inner);
        state.awaited = None;
        state.has_come(awaited)
    }

    pub(crate) fn is_owned(&self) -> bool {
        self.lock().phase == Phase::Owned
    }

    /// Tells whether another member may have it by now, so that nothing of it may be committed.
    pub(crate) fn is_lost(&self) -> bool {
        self.lock().phase == Phase::Lost
    }

    /// From now on nothing is settled or committed.
    pub(crate) fn lose(&self) {
        self.lock().phase = Phase::Lost;
    }

    /// Returns the offset to commit, if it was not committed yet.
    pub(crate) fn uncommitted(&self) -> Option<i64> {
        let state = self.lock();
        state.position.filter(|position| state.phase != Phase::Lost && state.committed != Some(*position))
    }

    pub(crate) fn note_commit(&self, position: i64) {
        let mut state = self.lock();
        state.committed = state.committed.max(Some(position));
    }

    /// Returns where to read again after a message was given up: at the first one that is not settled. `None` as long as a handler is at
    /// work, whose message would be handled twice. From then on no other handler begins.
    pub(crate) fn rewind_to(&self) -> Option<i64> {
        let mut state = self.lock();
        if state.given_up.is_none() || state.open > 0 || state.phase == Phase::Lost {
            return None;
        }
        let first = state.window.front()?.offset;
        state.phase = Phase::Leaving;
        Some(first)
    }

    /// Returns where to go on: at the first message that is not settled. `None` as long as that is not known.
    pub(crate) fn next(&self) -> Option<i64> {
        let state = self.lock();
        state.window.front().map(|first| first.offset).or(state.position)
    }

    /// Notes where the partition ends at present.
    pub(crate) fn note_end(&self, offset: i64) {
        self.end.store(offset, Ordering::Relaxed);
    }

    /// Notes up to where the client has fetched, which need not be handed out yet.
    pub(crate) fn note_fetched(&self, offset: i64) {
        self.fetched.store(offset, Ordering::Relaxed);
    }

    /// Notes that all that was fetched is handed out.
    pub(crate) fn note_all_handed_out(&self) {
        let fetched = self.fetched.swap(-1, Ordering::Relaxed);
        self.read.fetch_max(fetched, Ordering::Relaxed);
    }

    /// Returns how many messages are between what is settled and the end, as far as the client knows. What stands where nothing is read,
    /// such as the end of a transaction, is no message.
    pub(crate) fn lag(&self) -> Option<i64> {
        let end = self.end.load(Ordering::Relaxed);
        let read = Some(self.read.load(Ordering::Relaxed)).filter(|read| *read >= 0 && self.held() == 0);
        let next = self.next().max(read)?;
        (end >= 0).then(|| (end - next).max(0))
    }

    async fn commit_now(&self, position: i64) -> Result<(), BrokerError> {
        // Where messages are handled side by side another one may have come further: never commit behind it.
        let position = || self.uncommitted().map_or(position, |latest| latest.max(position));
        self.awaited.commit(&self.topic, self.number, position).await
    }

    /// Marks a message as settled. Returns the offset to commit where it moved.
    pub(crate) fn note_settled(&self, offset: i64) -> Result<Option<i64>, BrokerError> {
        self.note_all_settled([offset])
    }

    /// Notes that several messages are settled, and returns the position that they moved to, if they did.
    fn note_all_settled(&self, offsets: impl IntoIterator<Item = i64>) -> Result<Option<i64>, BrokerError> {
        let mut state = self.lock();
        offsets.into_iter().for_each(|offset| state.set(offset, Progress::Settled));
        if state.phase == Phase::Lost {
            return Err(error::partition_lost(&self.topic, self.number));
        }
        let mut moved = None;
        while let Some(done) = state.window.front().filter(|first| first.progress == Progress::Settled) {
            moved = Some(done.offset + 1);
            state.window.pop_front();
        }
        state.position = moved.or(state.position);
        self.tell(state);
        Ok(moved)
    }

    /// Wakes the poll thread where what it waits for has come.
    fn tell(&self, state: MutexGuard<'_, State>) {
        let has_come = state.awaited.is_some_and(|awaited| state.has_come(awaited));
        drop(state);
        if has_come {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Settle for Partition {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        _settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        match self.note_settled(offset_of(message)) {
            Err(lost) => Box::pin(ready(Err(lost))),
            Ok(Some(position)) if self.commits_each_message => Box::pin(self.commit_now(position)),
            Ok(_) => done(),
        }
    }

    async fn settle_batch(&self, messages: &[&Received], settlement: &Settlement) -> BatchSettled {
        if self.commits_each_message {
            return BatchSettled::one_by_one(self, messages, settlement).await;
        }
        let offsets = messages.iter().map(|message| offset_of(message));
        BatchSettled::Together(self.note_all_settled(offsets).map(drop))
    }

    fn is_deferred(&self, _message: &Received) -> bool {
        !self.commits_each_message
    }

    /// Asked right before a handler begins. That is noted in the same step: a rebalance, or a move to an earlier message, waits for those
    /// that began, and lets no other one begin.
    fn is_withdrawn(&self, message: &Received) -> bool {
        let mut state = self.lock();
        let offset = offset_of(message);
        if state.phase != Phase::Owned || state.given_up.is_some_and(|given_up| given_up < offset) {
            return true;
        }
        state.set(offset, Progress::Begun);
        false
    }

    fn abandon(&self, message: &Received) {
        let mut state = self.lock();
        let offset = offset_of(message);
        state.set(offset, Progress::Waits);
        if state.phase == Phase::Owned {
            state.given_up = Some(state.given_up.map_or(offset, |given_up| given_up.min(offset)));
        }
        self.tell(state);
    }
}

/// The tag of a message is its offset.
fn offset_of(message: &Received) -> i64 {
    i64::try_from(message.tag).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use throughline_core::Delivery;

    use super::*;

    /// A partition of which messages from offset 0 on are handed out.
    fn handed_out(count: i64) -> (Arc<Partition>, Vec<Received>) {
        let awaited = Arc::new(AwaitedCommits::new(Arc::default(), true));
        let partition = Arc::new(Partition::new("orders".into(), 0, 0, &awaited, false));
        let received = |offset: i64| {
            assert!(matches!(partition.hand_out(offset), HandedOut::Held { left_out_from: None, .. }));
            let settle = Arc::clone(&partition) as Arc<dyn Settle>;
            Received::new(Delivery::new("orders", "")).with_settle(settle, offset.unsigned_abs())
        };
        let messages = (0..count).map(received).collect();
        (partition, messages)
    }

    #[tokio::test]
    async fn what_was_given_up_is_read_again_only_when_no_handler_is_at_work() {
        let (partition, mut messages) = handed_out(3);
        let (last, given_up) = (messages.pop().unwrap(), messages.pop().unwrap());
        let mut first = messages.pop().unwrap();
        assert!(!first.is_withdrawn(), "its handler begins");
        drop(given_up);
        assert_eq!(partition.rewind_to(), None, "the first one would be handled twice");
        assert!(last.is_withdrawn(), "it would be handled here, and once more when the partition is read again");
        first.settle(&Settlement::Ack).await.unwrap();
        assert_eq!(partition.rewind_to(), Some(1));
        assert_eq!(partition.uncommitted(), Some(1));
    }

    #[tokio::test]
    async fn what_came_before_one_that_was_given_up_is_still_handled() {
        let (partition, mut messages) = handed_out(2);
        drop(messages.pop());
        let mut first = messages.pop().unwrap();
        assert!(!first.is_withdrawn());
        first.settle(&Settlement::Ack).await.unwrap();
        assert_eq!(partition.rewind_to(), Some(1));
    }

    #[test]
    fn no_handler_begins_while_a_partition_is_read_again() {
        let (partition, mut messages) = handed_out(2);
        drop(messages.pop());
        assert_eq!(partition.rewind_to(), Some(0));
        assert!(messages[0].is_withdrawn());
        assert_eq!(partition.rewind_to(), Some(0), "the move may fail, and is tried again");
    }

    #[test]
    fn a_partition_of_which_nothing_was_given_up_is_not_read_again() {
        let (partition, messages) = handed_out(1);
        assert_eq!(partition.rewind_to(), None);
        partition.lose();
        drop(messages);
        assert_eq!(partition.rewind_to(), None, "another member has it");
    }
}
