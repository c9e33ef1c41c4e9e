use std::collections::VecDeque;

/// What is known of the messages that one channel has delivered, in the order of their tags.
///
/// A server keeps each message until it hears of it, and one frame can acknowledge all up to a tag.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// The tag of the first one in the list.
    first: u64,
    states: VecDeque<State>,
    /// How many are acknowledged and the server was not told.
    noted: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Somebody handles it, or it waits.
    Open,
    /// It is acknowledged, and the server is to be told.
    Acked,
    /// The server was told.
    Told,
}

/// An acknowledgement to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    /// Whether it counts for all messages before it, too.
    pub(super) multiple: bool,
}

impl Tags {
    /// Notes that a message came. Tags of one channel grow by one.
    pub(super) fn deliver(&mut self, tag: u64) {
        if self.states.is_empty() {
            self.first = tag;
        }
        // One that is missing was told of by somebody else.
        while self.first + (self.states.len() as u64) < tag {
            self.states.push_back(State::Told);
        }
        if tag >= self.first + self.states.len() as u64 {
            self.states.push_back(State::Open);
        }
    }

    /// Notes that a message is acknowledged; false where it was settled before.
    pub(super) fn ack(&mut self, tag: u64) -> bool {
        let is_open = self.set(tag, State::Acked);
        self.noted += usize::from(is_open);
        is_open
    }

    /// Notes that the server is told of a message another way; false where it was settled before.
    pub(super) fn tell(&mut self, tag: u64) -> bool {
        self.set(tag, State::Told)
    }

    fn set(&mut self, tag: u64, to: State) -> bool {
        let place = tag.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        match place.and_then(|place| self.states.get_mut(place)) {
            Some(state) if *state == State::Open => {
                *state = to;
                true
            }
            _ => false,
        }
    }

    /// Tells whether there is something to send.
    pub(super) const fn is_noted(&self) -> bool {
        self.noted > 0
    }

    /// Takes the acknowledgements to send: one for all at the beginning that are settled, and one for each behind a message that is not.
    pub(super) fn take_acks(&mut self) -> Vec<Ack> {
        let mut acks = Vec::new();
        let (mut last, mut count) = (0, 0);
        while let Some(state) = self.states.front().filter(|state| **state != State::Open) {
            if *state == State::Acked {
                (last, count) = (self.first, count + 1);
            }
            self.states.pop_front();
            self.first += 1;
        }
        if count > 0 {
            acks.push(Ack { tag: last, multiple: count > 1 });
            self.noted -= count;
        }
        let mut place = 0;
        while self.noted > 0 {
            let Some(state) = self.states.get_mut(place) else { break };
            if *state == State::Acked {
                *state = State::Told;
                self.noted -= 1;
                acks.push(Ack { tag: self.first + place as u64, multiple: false });
            }
            place += 1;
        }
        acks
    }

    /// Counts the messages that nobody has settled.
    #[cfg(test)]
    fn open(&self) -> usize {
        self.states.iter().filter(|state| **state == State::Open).count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn delivered(count: u64) -> Tags {
        let mut tags = Tags::default();
        (1..=count).for_each(|tag| tags.deliver(tag));
        tags
    }

    #[test]
    fn all_at_the_beginning_are_one_frame() {
        let mut tags = delivered(5);
        for tag in [3, 1, 2, 5] {
            assert!(tags.ack(tag));
        }
        assert_eq!(tags.take_acks(), [Ack { tag: 3, multiple: true }, Ack { tag: 5, multiple: false }]);
        assert!(!tags.ack(3) && !tags.tell(5), "settled before");
        assert!(tags.ack(4));
        assert_eq!(tags.take_acks(), [Ack { tag: 4, multiple: false }]);
        assert!(tags.take_acks().is_empty() && !tags.is_noted() && tags.open() == 0);
    }

    #[test]
    fn one_that_was_rejected_is_not_acknowledged_with_others() {
        let mut tags = delivered(3);
        assert!(tags.tell(2) && tags.ack(1) && tags.ack(3));
        assert_eq!(tags.take_acks(), [Ack { tag: 3, multiple: true }], "the server has forgotten number 2");
        assert!(!tags.ack(7), "never delivered");
    }

    proptest! {
        /// Whatever the order of settling and sending: the server hears of each message once, and of none that is open.
        #[test]
        fn frames_settle_exactly_what_was_settled(steps in prop::collection::vec((1..40_u64, 0..3_u8), 0..120)) {
            let (mut tags, mut at_server) = (delivered(40), (1..=40).collect::<BTreeSet<u64>>());
            let (mut acked, mut told) = (BTreeSet::new(), BTreeSet::new());
            for (tag, step) in steps {
                match step {
                    0 => if tags.ack(tag) { acked.insert(tag); },
                    1 => if tags.tell(tag) { told.insert(tag); prop_assert!(at_server.remove(&tag)); },
                    _ => for ack in tags.take_acks() {
                        let frame: Vec<_> = at_server.iter().copied().filter(|one| *one == ack.tag || (ack.multiple && *one < ack.tag)).collect();
                        prop_assert!(frame.contains(&ack.tag), "an unknown tag closes the channel");
                        for one in frame { prop_assert!(acked.contains(&one)); at_server.remove(&one); }
                    },
                }
            }
            for ack in tags.take_acks() {
                at_server.retain(|one| *one != ack.tag && !(ack.multiple && *one < ack.tag));
            }
            let open = 40 - acked.len() - told.len();
            prop_assert_eq!(at_server.len(), open);
            prop_assert_eq!(tags.open(), open);
        }
    }
}
