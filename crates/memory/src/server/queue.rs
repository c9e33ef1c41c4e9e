use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use throughline_core::broker::{Pattern, Received, RetryRoute, Settle, Subscription};
use throughline_core::{Destination, Failure, Settlement};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout_at};

use super::lock::lock;
use super::open::{Watched, text_of};
use super::{Ledger, Message, OpenMessage, OpenState};
use crate::retry::Waits;

/// Stands for "never" where a delay is too long to be added to the present.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Holds the messages of one subscription, or of all subscriptions of one group to the same patterns.
pub(crate) struct Queue {
    group: Option<Arc<str>>,
    patterns: Vec<Pattern>,
    /// How often a message is delivered at most.
    delivery_limit: Option<u32>,
    /// What knows the places where messages wait for their next attempt, where a subscription has such.
    retry_route: Option<Arc<dyn RetryRoute>>,
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
    /// What is known of single messages, where somebody may ask.
    watched: Option<Box<Watched>>,
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
            retry_route: subscription.retry_route().map(Arc::clone),
            ledger: Arc::clone(ledger),
            changed: Notify::new(),
            state: Mutex::new(State { watched: ledger.is_recording().then(Box::default), ..State::default() }),
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
        let is_wanted = self.takes(destination) || self.place_at(destination.name()).is_some();
        is_wanted && lock(&self.state).members.live > 0
    }

    fn takes(&self, destination: &Destination) -> bool {
        self.patterns.iter().any(|pattern| pattern.takes(destination))
    }

    /// Returns the first destination of the messages that wait at a place of this queue, and how long each does.
    fn place_at<'a>(&self, destination: &'a str) -> Option<(&'a str, Duration)> {
        let (origin, wait) = self.retry_route.as_ref()?.place_at(destination)?;
        self.patterns.iter().any(|pattern| pattern.matches(origin)).then_some((origin, wait))
    }

    /// Whether a message is not delivered again after this attempt.
    pub(crate) fn is_last(&self, attempt: u32) -> bool {
        self.delivery_limit.is_some_and(|most| attempt >= most)
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
        if self.retry_route.is_some()
            && let Some((origin, wait)) = self.place_at(message.destination().name())
        {
            let wait = message.waits().map_or(wait, |Waits(asked)| asked);
            let origin = Arc::from(origin);
            return self.add(message.into_further_attempt(origin), wait);
        }
        self.add(message, Duration::ZERO);
    }

    #[inline]
    fn add(&self, message: Message, wait: Duration) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            return self.ledger.closed(1);
        }
        let place = state.next_place;
        state.next_place += 1;
        let held = Held { message, place };
        if wait.is_zero() {
            state.ready.push_back(held);
            self.wake_one(state);
        } else {
            self.delay(state, held, wait);
        }
    }

    /// Keeps a message until it is due.
    fn delay(&self, mut state: MutexGuard<'_, State>, held: Held, wait: Duration) {
        state.delayed.insert((after(wait), held.place), held);
        drop(state);
        // All of them: whichever goes on waiting must know when the message is due.
        self.changed.notify_waiters();
    }

    /// Lets all who wait look again at what they wait for.
    pub(super) fn wake_all(&self) {
        self.changed.notify_waiters();
    }

    /// Wakes a member in the place of one that was woken and cannot take the message.
    pub(crate) fn hand_on(&self) {
        self.wake_one(lock(&self.state));
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
            return;
        }
        if let Some(watched) = &mut state.watched {
            watched.put_back(held.place);
        }
        if delay.is_zero() {
            state.insert_ready(held);
            self.wake_one(state);
        } else {
            self.delay(state, held, delay);
        }
    }

    /// Forgets a message that was handed out: it is done.
    pub(crate) fn done(&self, place: u64) {
        if self.ledger.is_recording()
            && let Some(watched) = &mut lock(&self.state).watched
        {
            watched.done(place);
        }
        self.ledger.closed(1);
    }

    /// Notes that an attempt of a message has failed. One that was forwarded waits in this queue already, at another place.
    pub(crate) fn failed(&self, message: &Received, failure: &Failure, next: &Settlement) {
        if !self.ledger.is_recording() {
            return;
        }
        // Before the lock is taken: it is code of the user.
        let (error, delivery) = (text_of(failure), &message.delivery);
        let state = &mut *lock(&self.state);
        let Some(watched) = &mut state.watched else { return };
        watched.failed(message.tag, delivery.attempt(), error, next);
        let is_forwarded = |held: &&Held| match &held.message {
            Message::Delivery(other) => {
                other.attempt() == delivery.attempt() + 1
                    && (other.payload().as_ptr(), other.id()) == (delivery.payload().as_ptr(), delivery.id())
            }
            Message::Published(..) => false,
        };
        if let (Settlement::Ack, Some(held)) = (next, state.delayed.values().rev().find(is_forwarded)) {
            watched.moved(message.tag, held.place);
        }
    }

    /// Returns the messages that are not done; none where nothing is remembered.
    pub(super) fn open(&self) -> Vec<OpenMessage> {
        let state = lock(&self.state);
        let Some(watched) = &state.watched else { return Vec::new() };
        let now = Instant::now();
        let delivery = |held: &Held| held.message.clone().into_delivery();
        let ready = state.ready.iter().map(|held| (held.place, delivery(held), OpenState::Queued));
        let delayed = state.delayed.iter().map(|((due, place), held)| {
            (*place, delivery(held), OpenState::Waiting { left: due.saturating_duration_since(now) })
        });
        let names: Vec<&str> = self.patterns.iter().map(Pattern::as_str).collect();
        let subscription: Arc<str> = names.join(", ").into();
        let open = watched.with_handlers(now).chain(delayed).chain(ready).map(|(place, delivery, state)| {
            let (failed, last_error) = watched.failures_of(place, &delivery);
            let (subscription, group) = (Arc::clone(&subscription), self.group.clone());
            OpenMessage { delivery, subscription, group, state, failed, last_error }
        });
        open.collect()
    }

    /// Hands the next message to a member, if it is the member's turn; `settle` settles it.
    pub(crate) fn take(&self, member: Member, turn: Turn, settle: &Arc<dyn Settle>) -> Taken {
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
        let mut delivery = held.message.into_delivery();
        if self.is_last(delivery.attempt()) {
            delivery = delivery.with_last_attempt();
        }
        if self.ledger.is_recording()
            && let Some(watched) = &mut lock(&self.state).watched
        {
            watched.handed_out(held.place, delivery.clone());
        }
        Taken::Message(Received::new(delivery).with_settle(Arc::clone(settle), held.place))
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
