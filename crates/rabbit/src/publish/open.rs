use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use lapin::Confirmation;
use lapin::message::BasicReturnMessage;
use slab::Slab;
use tokio::time::Instant;

use super::fingerprint::Fingerprint;

/// What the server did with a message.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Stored,
    /// No queue took it.
    Returned {
        code: u16,
        text: String,
    },
    /// A queue could not take it.
    Refused,
    /// The channel has ended before the server said so.
    Unknown(lapin::Error),
}

pub(super) type Confirmed = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>;

/// The publishes of a channel whose answers nobody has taken yet.
///
/// The client hands a returned message to any publish: to the one that it confirms next. But the return of a message comes before its
/// confirmation. So a publish that is confirmed without a return has been told all there is, once those that were confirmed before it are
/// looked at. One that is handed the return of another may have left its own to a third. It is held until all that have come back are
/// confirmed too: then each return is with its publish.
#[derive(Default)]
pub(super) struct Open {
    publishes: Slab<Publish>,
    /// How many there have been.
    published: u64,
    unanswered: usize,
    /// How many were answered.
    answered: u64,
    /// Those that are confirmed and not answered.
    confirmed: Vec<usize>,
    /// What came back, and belongs to a publish that is not answered.
    returned: Vec<Return>,
    /// Why the channel has ended.
    failed: Option<lapin::Error>,
    /// Wakes callers that looked before, in vain.
    released: Vec<Waker>,
    /// Keeps the memory of a list of keys for the next time.
    pub(super) keys: Vec<usize>,
}

/// One publish that the client has taken. What waits for its confirmation is never dropped before that comes: the client would keep it for
/// ever, and hand it the return of another one.
struct Publish {
    number: u64,
    print: Fingerprint,
    mandatory: bool,
    waker: Waker,
    begun: Instant,
    state: State,
    /// Whether the client has put a message that came back with its confirmation.
    is_handed: bool,
    /// Whether nobody takes the answer.
    is_left: bool,
}

enum State {
    Waiting(Confirmed),
    /// The answer, as far as it does not depend on others.
    Confirmed(Answer),
    Answered(Answer),
}

/// A message that came back.
struct Return {
    print: Fingerprint,
    /// With whose confirmation it came.
    handed: usize,
    why: Answer,
}

impl Open {
    /// Returns the key of the publish that is noted next.
    pub(super) fn next_key(&self) -> usize {
        self.publishes.vacant_key()
    }

    /// Notes a publish. `confirmed` was polled with `waker`, which wakes whoever waits for the answer.
    pub(super) fn note(
        &mut self,
        print: Fingerprint,
        mandatory: bool,
        confirmed: Confirmed,
        waker: Waker,
        begun: Instant,
    ) {
        self.publishes.insert(Publish {
            number: self.published,
            print,
            mandatory,
            waker,
            begun,
            state: State::Waiting(confirmed),
            is_handed: false,
            is_left: false,
        });
        self.published += 1;
        self.unanswered += 1;
    }

    /// Returns how many publishes have no answer.
    pub(super) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Returns how many have been answered.
    pub(super) const fn answered(&self) -> u64 {
        self.answered
    }

    /// Answers all, and wakes their callers: the channel is given up, and nobody waits for what the server may say yet.
    pub(super) fn give_up(&mut self, why: &lapin::Error) {
        for (key, publish) in &mut self.publishes {
            if matches!(publish.state, State::Waiting(_)) {
                publish.state = State::Confirmed(Answer::Unknown(why.clone()));
                self.confirmed.push(key);
                self.released.push(publish.waker.clone());
            }
        }
        self.failed = Some(why.clone());
        self.answer_confirmed();
    }

    /// Returns the callers of publishes that had begun at that time and are not answered.
    pub(super) fn begun_before(&self, time: Instant) -> Vec<Waker> {
        let is_late = |publish: &&Publish| publish.begun <= time && !matches!(publish.state, State::Answered(_));
        self.publishes.iter().map(|(_, publish)| publish).filter(is_late).map(|late| late.waker.clone()).collect()
    }

    /// Returns the callers to be woken: what they wait for was answered while somebody else looked.
    pub(super) fn released(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.released)
    }

    /// Looks whether a publish is confirmed.
    pub(super) fn look(&mut self, key: usize) {
        let Some(publish) = self.publishes.get_mut(key) else { return };
        let State::Waiting(confirmed) = &mut publish.state else { return };
        let Poll::Ready(result) = confirmed.as_mut().poll(&mut Context::from_waker(&publish.waker)) else { return };
        let (answer, message) = match result {
            Ok(Confirmation::Nack(message)) => (Answer::Refused, message),
            Ok(Confirmation::Ack(message)) => (Answer::Stored, message),
            Ok(Confirmation::NotRequested) => (Answer::Stored, None),
            Err(failed) => {
                self.failed = Some(failed.clone());
                (Answer::Unknown(failed), None)
            }
        };
        publish.state = State::Confirmed(answer);
        self.confirmed.push(key);
        if let Some(message) = message {
            publish.is_handed = true;
            self.returned.push(Return::new(message, key));
        }
    }

    /// Answers what can be answered. All that were confirmed before any of those that were looked at must have been looked at, too.
    pub(super) fn answer_confirmed(&mut self) {
        let mut confirmed = std::mem::take(&mut self.confirmed);
        if !self.returned.is_empty() {
            self.give_back(&mut confirmed);
        }
        let is_settled = self.returned.is_empty();
        confirmed.retain(|key| {
            let is_held = !is_settled && self.publishes.get(*key).is_some_and(|publish| publish.is_handed);
            if !is_held {
                self.answer(*key, None);
            }
            is_held
        });
        self.confirmed = confirmed;
    }

    /// Gives what came back to those of the confirmed publishes that it belongs to, in the order of publishing.
    fn give_back(&mut self, confirmed: &mut Vec<usize>) {
        confirmed.sort_unstable_by_key(|key| self.publishes.get(*key).map(|publish| publish.number));
        confirmed.retain(|key| {
            let Some(returned) = self.return_of(*key) else { return true };
            self.answer(*key, Some(returned.why));
            false
        });
        // The server has changed where it says it was to go. The client's guess is the best there is.
        let publishes = &self.publishes;
        let is_open = |one: &Return| publishes.iter().any(|(_, publish)| publish.is_at(one.print.place));
        let strays: Vec<Return> = self.returned.extract_if(.., |one| !is_open(one)).collect();
        for Return { handed, why, .. } in strays {
            if let Some(position) = confirmed.iter().position(|key| *key == handed) {
                confirmed.remove(position);
                self.answer(handed, Some(why));
            }
        }
    }

    /// Takes the return that belongs to a publish: one that looks like it, or, where the server changed what it looks like, one to the same
    /// place that looks like no other. Those that look alike are interchangeable.
    fn return_of(&mut self, key: usize) -> Option<Return> {
        let print = self.publishes.get(key).filter(|publish| publish.mandatory)?.print;
        let looks_like =
            |one: &Return, other: &Publish| other.is_at(one.print.place) && other.print.exact == one.print.exact;
        let is_alike = |one: &Return| {
            one.print.place == print.place && !self.publishes.iter().any(|(_, other)| looks_like(one, other))
        };
        let exact = self.returned.iter().position(|one| one.print == print);
        let found = exact.or_else(|| self.returned.iter().position(is_alike))?;
        Some(self.returned.remove(found))
    }

    /// Answers a confirmed publish, whose message may have come back.
    fn answer(&mut self, key: usize, returned: Option<Answer>) {
        let Some(publish) = self.publishes.get_mut(key) else { return };
        let State::Confirmed(answer) = &publish.state else { return };
        let answer = match (returned, &self.failed) {
            (Some(returned), _) => returned,
            // Its own message may have come back after that.
            (None, Some(failed)) if publish.is_handed => Answer::Unknown(failed.clone()),
            (None, _) => answer.clone(),
        };
        self.unanswered -= 1;
        self.answered += 1;
        if publish.is_left {
            self.publishes.remove(key);
            return;
        }
        publish.state = State::Answered(answer);
        if publish.is_handed {
            self.released.push(publish.waker.clone());
        }
    }

    /// Takes the answer to a publish.
    pub(super) fn take(&mut self, key: usize) -> Option<Answer> {
        if !matches!(self.publishes.get(key)?.state, State::Answered(_)) {
            return None;
        }
        match self.publishes.try_remove(key)?.state {
            State::Answered(answer) => Some(answer),
            State::Waiting(_) | State::Confirmed(_) => None,
        }
    }

    /// Notes that nobody takes the answer to a publish.
    pub(super) fn leave(&mut self, key: usize) {
        if self.take(key).is_none()
            && let Some(publish) = self.publishes.get_mut(key)
        {
            publish.is_left = true;
        }
    }
}

impl Publish {
    /// Tells whether a message that came back to that place may be its own.
    fn is_at(&self, place: u64) -> bool {
        self.mandatory && self.print.place == place && !matches!(self.state, State::Answered(_))
    }
}

impl Return {
    fn new(message: BasicReturnMessage, handed: usize) -> Self {
        let BasicReturnMessage { delivery, reply_code, reply_text, .. } = message;
        let (exchange, key) = (delivery.exchange.as_str(), delivery.routing_key.as_str());
        let print = Fingerprint::new(exchange, key, &delivery.properties, &delivery.data);
        Self { print, handed, why: Answer::Returned { code: reply_code, text: reply_text.as_str().to_owned() } }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use lapin::types::ShortString;
    use lapin::{BasicProperties, ErrorKind};
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::*;
    use crate::testing::arrived;

    const QUEUE: &str = "queue";
    const MISSING: &str = "missing";
    const FULL: &str = "full";

    /// The client as it is seen running: it hands what came back to the publishes that it confirms next.
    #[derive(Default)]
    struct Client {
        waiting: VecDeque<BasicReturnMessage>,
        open: Open,
        resolvers: Vec<Option<oneshot::Sender<lapin::Result<Confirmation>>>>,
        woken: Arc<Woken>,
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Client {
        fn publish(&mut self, place: &str, body: &[u8]) -> usize {
            let (resolver, confirmed) = oneshot::channel();
            let confirmed = Box::pin(async { confirmed.await.expect("the server answers") });
            let print = Fingerprint::new("", place, &BasicProperties::default(), body);
            let key = self.open.next_key();
            self.open.note(print, true, confirmed, Waker::from(Arc::clone(&self.woken)), Instant::now());
            self.resolvers.push(Some(resolver));
            key
        }

        fn comes_back(&mut self, place: &str, body: &[u8]) {
            let mut delivery = arrived("", place, BasicProperties::default());
            delivery.data = body.to_vec();
            let reply_text = ShortString::from("NO_ROUTE");
            self.waiting.push_back(BasicReturnMessage { delivery, reply_code: 312, reply_text });
        }

        fn resolve(&mut self, key: usize, result: lapin::Result<Confirmation>) {
            let resolver = self.resolvers[key].take().expect("one confirmation");
            assert!(resolver.send(result).is_ok(), "a confirmation was dropped before it came");
        }

        fn confirm(&mut self, key: usize, place: &str) {
            let message = self.waiting.pop_front();
            let is_nack = place == FULL;
            self.resolve(key, Ok(if is_nack { Confirmation::Nack(message) } else { Confirmation::Ack(message) }));
        }

        fn look(&mut self, keys: &[usize]) {
            keys.iter().for_each(|key| self.open.look(*key));
            self.open.answer_confirmed();
        }
    }

    fn is_right(place: &str, answer: &Answer) -> bool {
        match place {
            MISSING => matches!(answer, Answer::Returned { code: 312, .. }),
            FULL => matches!(answer, Answer::Refused),
            _ => matches!(answer, Answer::Stored),
        }
    }

    proptest! {
        /// Whatever comes in whatever order, as long as a message comes back before it is confirmed.
        #[test]
        fn each_publish_hears_of_its_own_message(
            messages in prop::collection::vec((prop::sample::select(vec![QUEUE, MISSING, FULL]), 0_u8..3), 1..24),
            order in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>(), any::<u32>()), 24),
        ) {
            let mut client = Client::default();
            let keys: Vec<usize> = messages.iter().map(|(place, body)| client.publish(place, &[*body])).collect();
            let mut events = Vec::new();
            for (index, (place, _)) in messages.iter().enumerate() {
                let (one, other, ..) = order[index];
                events.push((one.max(other), true, index));
                if *place == MISSING {
                    events.push((one.min(other), false, index));
                }
            }
            // What comes back does so first, where both come at the same time.
            events.sort_unstable();
            let mut unseen: Vec<usize> = Vec::new();
            let mut answered = 0;
            for (_, is_confirmation, index) in events {
                let (place, body) = messages[index];
                if !is_confirmation {
                    client.comes_back(place, &[body]);
                    continue;
                }
                client.confirm(keys[index], place);
                unseen.push(index);
                let (_, _, looks, mixed) = order[index];
                if looks {
                    let mut seen: Vec<usize> = unseen.drain(..).map(|index| keys[index]).collect();
                    let first = mixed as usize % seen.len();
                    seen.rotate_left(first);
                    client.look(&seen);
                    for (index, (place, _)) in messages.iter().enumerate() {
                        let Some(answer) = client.open.take(keys[index]) else { continue };
                        prop_assert!(is_right(place, &answer), "message {} to {}: {:?}", index, place, answer);
                        answered += 1;
                    }
                }
            }
            client.look(&unseen.into_iter().map(|index| keys[index]).collect::<Vec<_>>());
            for (index, (place, _)) in messages.iter().enumerate() {
                let Some(answer) = client.open.take(keys[index]) else { continue };
                prop_assert!(is_right(place, &answer), "message {} to {}: {:?}", index, place, answer);
                answered += 1;
            }
            prop_assert_eq!((answered, client.open.unanswered()), (messages.len(), 0));
        }
    }

    #[test]
    fn who_was_handed_the_return_of_another_is_woken_when_that_one_is_confirmed() {
        let mut client = Client::default();
        let (first, second) = (client.publish(QUEUE, b"1"), client.publish(MISSING, b"2"));
        client.comes_back(MISSING, b"2");
        client.confirm(first, QUEUE);
        client.look(&[first]);
        assert!(client.open.take(first).is_none(), "its own message may still come back");
        client.confirm(second, MISSING);
        client.look(&[second]);
        client.open.released().into_iter().for_each(Waker::wake);
        assert_eq!(client.woken.0.load(Ordering::Relaxed), 1);
        assert!(matches!(client.open.take(first), Some(Answer::Stored)));
        assert!(matches!(client.open.take(second), Some(Answer::Returned { .. })));
    }

    #[test]
    fn of_two_alike_the_one_that_is_confirmed_first_takes_the_return_of_the_other() {
        let mut client = Client::default();
        let [queue, first, second] = [QUEUE, MISSING, MISSING].map(|place| client.publish(place, b""));
        client.comes_back(MISSING, b"");
        client.confirm(queue, QUEUE);
        client.look(&[queue]);
        client.confirm(second, MISSING);
        client.look(&[second]);
        assert!(matches!(client.open.take(second), Some(Answer::Returned { .. })));
        client.comes_back(MISSING, b"");
        client.confirm(first, MISSING);
        client.look(&[first]);
        assert!(matches!(client.open.take(first), Some(Answer::Returned { .. })));
        assert!(matches!(client.open.take(queue), Some(Answer::Stored)));
    }

    #[test]
    fn the_end_of_the_channel_leaves_open_what_is_not_known() {
        let mut client = Client::default();
        let keys = [QUEUE, MISSING, QUEUE].map(|place| client.publish(place, b""));
        client.comes_back(MISSING, b"");
        client.confirm(keys[0], QUEUE);
        for key in &keys[1..] {
            client.resolve(*key, Err(ErrorKind::MissingHeartbeatError.into()));
        }
        client.look(&keys);
        let answers = keys.map(|key| client.open.take(key).expect("all are answered"));
        assert!(matches!(&answers[0], Answer::Unknown(_)), "its own message may have come back after that");
        assert!(matches!(&answers[1], Answer::Returned { .. }));
        assert!(matches!(&answers[2], Answer::Unknown(_)));
    }

    #[test]
    fn what_the_server_changed_goes_to_the_same_place_or_to_whom_the_client_says() {
        let mut client = Client::default();
        let keys = [QUEUE, MISSING].map(|place| client.publish(place, b"1"));
        client.comes_back(MISSING, b"changed");
        keys.iter().zip([QUEUE, MISSING]).for_each(|(key, place)| client.confirm(*key, place));
        client.look(&keys);
        assert!(matches!(client.open.take(keys[0]), Some(Answer::Stored)));
        assert!(matches!(client.open.take(keys[1]), Some(Answer::Returned { .. })));
        let alone = client.publish(MISSING, b"1");
        client.resolvers.swap(alone, 2);
        client.comes_back("elsewhere", b"1");
        client.confirm(alone, MISSING);
        client.look(&[alone]);
        assert!(matches!(client.open.take(alone), Some(Answer::Returned { .. })));
    }

    #[test]
    fn who_has_gone_is_no_more_there_when_the_server_has_answered() {
        let mut client = Client::default();
        let keys = [MISSING, QUEUE].map(|place| client.publish(place, b""));
        client.open.leave(keys[0]);
        assert_eq!(client.open.unanswered(), 2);
        client.comes_back(MISSING, b"");
        client.confirm(keys[1], QUEUE);
        client.confirm(keys[0], MISSING);
        client.look(&keys);
        assert!(matches!(client.open.take(keys[1]), Some(Answer::Stored)));
        assert!(client.open.publishes.is_empty() && client.open.unanswered() == 0);
    }
}
