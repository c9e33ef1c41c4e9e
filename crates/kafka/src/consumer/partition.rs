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
    /// Whether a message was given up that no one else gets.
    rewind: bool,
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
    /// Goes to another member: handlers that run may finish, others do not begin.
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
            rewind: false,
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

    /// Returns where to read again after a message was given up, once.
    pub(crate) fn take_rewind(&self) -> Option<i64> {
        let mut state = self.lock();
        if !std::mem::take(&mut state.rewind) || state.phase != Phase::Owned {
            return None;
        }
        state.window.front().map(|first| first.offset)
    }

    /// Asks for it once more, where the move failed.
    pub(crate) fn ask_for_rewind(&self) {
        self.lock().rewind = true;
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

    /// Asked right before a handler begins. That is noted in the same step: a rebalance waits for those that began, and lets no
    /// other one begin.
    fn is_withdrawn(&self, message: &Received) -> bool {
        let mut state = self.lock();
        if state.phase != Phase::Owned {
            return true;
        }
        state.set(offset_of(message), Progress::Begun);
        false
    }

    fn abandon(&self, message: &Received) {
        let mut state = self.lock();
        state.set(offset_of(message), Progress::Waits);
        state.rewind = state.phase == Phase::Owned;
        self.tell(state);
    }
}

/// The tag of a message is its offset.
fn offset_of(message: &Received) -> i64 {
    i64::try_from(message.tag).unwrap_or(i64::MAX)
}
