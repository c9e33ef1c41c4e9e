use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use throughline_core::Destination;
use throughline_core::broker::{Pattern, Received, Subscription};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout_at};

use super::lock::lock;
use super::{Ledger, Message};

/// Stands for "never" where a delay is too long to be added to the present.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Holds the messages of one subscription, or of all subscriptions of one group to the same patterns.
pub(crate) struct Queue {
    group: Option<Arc<str>>,
    patterns: Vec<Pattern>,
    /// How often a message is delivered at most.
    delivery_limit: Option<u32>,
    ledger: Arc<Ledger>,
    /// Wakes one member for a message that is ready, and all of them for a change of what they wait for.
    changed: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order of their places.
    ready: VecDeque<Held>,
    /// By the time at which they become ready, then by their places.
    delayed: BTreeMap<(Instant, u64), Held>,
    next_place: u64,
    members: Members,
    /// At least as many as wait for `changed`.
    waiting: usize,
    /// No one will ever take from the queue again.
    closed: bool,
}

/// One message in a queue.
pub(crate) struct Held {
    pub(crate) message: Message,
    /// Where in the order of the queue it belongs.
    pub(crate) place: u64,
}

/// Identifies a subscription among those that share a queue.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Member(u64);

#[derive(Default)]
struct Members {
    joined: u64,
    /// Members that joined before this one are ended.
    first_live: u64,
    live: usize,
    served_last: Option<Member>,
}

/// Says whether a member that was served last has let the others go first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Turn {
    First,
    GaveWay,
}

/// What a queue has for a member that asks.
pub(crate) enum Taken {
    /// The subscription is ended.
    Ended,
    /// A message, marked as handed out.
    Message(Received),
    /// Nothing now; the next delayed message, if there is one, becomes ready then.
    Nothing(Option<Instant>),
    /// A message, but others of the group may want it and did not have the last one.
    OthersFirst,
}

impl Queue {
    pub(super) fn new(subscription: &Subscription, ledger: &Arc<Ledger>) -> Self {
        Self {
            group: group_of(subscription).map(Arc::from),
            patterns: subscription.patterns().to_vec(),
            delivery_limit: subscription.delivery_limit(),
            ledger: Arc::clone(ledger),
            changed: Notify::new(),
            state: Mutex::default(),
        }
    }

    pub(super) fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Tells whether a subscription belongs to the group of this queue and wants the same messages.
    pub(super) fn is_shared_with(&self, subscription: &Subscription) -> bool {
        self.group.is_some() && self.group() == group_of(subscription) && self.patterns == subscription.patterns()
    }

    /// Tells whether messages to that destination go here: a pattern takes it, and there is someone to take them.
    pub(super) fn wants(&self, destination: &Destination) -> bool {
        self.patterns.iter().any(|pattern| pattern.takes(destination)) && lock(&self.state).members.live > 0
    }

    /// Whether a message is not delivered again after this attempt.
    pub(crate) fn is_last(&self, attempt: u32) -> bool {
        self.delivery_limit.is_some_and(|most| attempt >= most)
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn join(&self) -> Member {
        let members = &mut lock(&self.state).members;
        let member = Member(members.joined);
        members.joined += 1;
        members.live += 1;
        member
    }

    /// Removes a member and returns whether it was the last.
    pub(super) fn leave(&self, member: Member) -> bool {
        let members = &mut lock(&self.state).members;
        if member.0 >= members.first_live {
            members.live = members.live.saturating_sub(1);
        }
        members.live == 0
    }

    /// Ends all members.
    pub(super) fn end_members(&self) {
        let members = &mut lock(&self.state).members;
        members.first_live = members.joined;
        members.live = 0;
        self.changed.notify_waiters();
    }

    /// Drops all messages, also those that come later.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let (ready, delayed) = (std::mem::take(&mut state.ready), std::mem::take(&mut state.delayed));
        drop(state);
        self.ledger.closed(ready.len() + delayed.len());
    }

    /// Appends a message; it counts as open already.
    #[inline]
    pub(super) fn push(&self, message: Message) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            return self.ledger.closed(1);
        }
        let place = state.next_place;
        state.next_place += 1;
        state.ready.push_back(Held { message, place });
        self.wake_one(state);
    }

    /// Wakes a member for a message that became ready, if one waits.
    fn wake_one(&self, mut state: MutexGuard<'_, State>) {
        let Some(left) = state.waiting.checked_sub(1) else { return };
        state.waiting = left;
        drop(state);
        self.changed.notify_one();
    }

    /// Takes back a message that was handed out, to be delivered again after a delay.
    pub(crate) fn put_back(&self, held: Held, delay: Duration) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            self.ledger.closed(1);
        } else if delay.is_zero() {
            state.insert_ready(held);
            self.wake_one(state);
        } else {
            state.delayed.insert((after(delay), held.place), held);
            drop(state);
            // All of them: whichever goes on waiting must know when the message is due.
            self.changed.notify_waiters();
        }
    }

    /// Hands the next message to a member, if it is the member's turn.
    pub(crate) fn take(self: &Arc<Self>, member: Member, turn: Turn) -> Taken {
        let mut state = lock(&self.state);
        if member.0 < state.members.first_live {
            return Taken::Ended;
        }
        state.move_due();
        if turn == Turn::First && !state.ready.is_empty() && state.members.should_give_way(member) {
            return Taken::OthersFirst;
        }
        let Some(held) = state.ready.pop_front() else { return Taken::Nothing(state.next_due()) };
        state.members.served_last = Some(member);
        drop(state);
        let settle: Arc<Self> = Arc::clone(self);
        let mut delivery = held.message.into_delivery();
        if self.is_last(delivery.attempt()) {
            delivery = delivery.with_last_attempt();
        }
        Taken::Message(Received::new(delivery).with_settle(settle, held.place))
    }

    /// Returns what [`wait`](Self::wait) waits for.
    pub(crate) fn change(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Announces that a member is going to wait; called before the queue is asked, so that no message slips through between.
    pub(crate) fn announce(&self, change: Pin<&mut Notified<'_>>) {
        change.enable();
        lock(&self.state).waiting += 1;
    }

    /// Waits until the queue should be asked again.
    pub(crate) async fn wait(change: Pin<&mut Notified<'_>>, due: Option<Instant>) {
        match due {
            None => change.await,
            // Both ways of waking mean the same.
            Some(due) => drop(timeout_at(due, change).await),
        }
    }
}

impl State {
    /// Moves delayed messages whose time has come to their places.
    fn move_due(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            let held = entry.remove();
            self.insert_ready(held);
        }
    }

    /// Puts a message back to its place: before all that came later.
    fn insert_ready(&mut self, held: Held) {
        let index = self.ready.partition_point(|other| other.place < held.place);
        self.ready.insert(index, held);
    }

    fn next_due(&self) -> Option<Instant> {
        self.delayed.keys().next().map(|(due, _)| *due)
    }
}

impl Members {
    fn should_give_way(&self, member: Member) -> bool {
        self.live > 1 && self.served_last == Some(member)
    }
}

/// Returns what makes subscriptions compete: their group or, on brokers that keep a position under a name, that name.
fn group_of(subscription: &Subscription) -> Option<&str> {
    subscription.group().or(subscription.name())
}

fn after(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay).or_else(|| now.checked_add(FAR)).unwrap_or(now)
}
