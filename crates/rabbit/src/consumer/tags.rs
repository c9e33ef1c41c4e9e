use std::collections::VecDeque;

/// Which messages of one channel are settled, by their tags, which grow by one.
///
/// A server keeps each message until it hears of it, and one frame can acknowledge all up to a tag.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// Those that somebody handles, or that wait, in their order.
    open: VecDeque<u64>,
    /// Those that are acknowledged, and of which the server is to be told.
    acked: Vec<u64>,
}

/// An acknowledgement to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    /// Whether it counts for all messages before it, too.
    pub(super) multiple: bool,
}

impl Tags {
    /// Notes that a message came.
    pub(super) fn deliver(&mut self, tag: u64) {
        self.open.push_back(tag);
    }

    /// Tells whether all messages are settled.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Notes that a message is acknowledged; false where it was settled before.
    pub(super) fn ack(&mut self, tag: u64) -> bool {
        let is_open = self.tell(tag);
        if is_open {
            self.acked.push(tag);
        }
        is_open
    }

    /// Notes that the server is told of a message another way; false where it was settled before.
    pub(super) fn tell(&mut self, tag: u64) -> bool {
        // Most often it is the first one.
        let place = if self.open.front() == Some(&tag) { Ok(0) } else { self.open.binary_search(&tag) };
        place.is_ok_and(|place| self.open.remove(place).is_some())
    }

    /// Takes the acknowledgements to send: one for all before the first message that is not settled, and one for each behind it.
    pub(super) fn take_acks(&mut self) -> impl Iterator<Item = Ack> {
        let mut acked = std::mem::take(&mut self.acked);
        acked.sort_unstable();
        let before = self.open.front().map_or(acked.len(), |first| acked.partition_point(|tag| tag < first));
        let behind = acked.split_off(before);
        let together = acked.last().map(|tag| Ack { tag: *tag, multiple: acked.len() > 1 });
        together.into_iter().chain(behind.into_iter().map(|tag| Ack { tag, multiple: false }))
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
        assert_eq!(
            tags.take_acks().collect::<Vec<_>>(),
            [Ack { tag: 3, multiple: true }, Ack { tag: 5, multiple: false }]
        );
        assert!(!tags.ack(3) && !tags.tell(5), "settled before");
        assert!(tags.ack(4));
        assert_eq!(tags.take_acks().collect::<Vec<_>>(), [Ack { tag: 4, multiple: false }]);
        assert_eq!((tags.take_acks().count(), tags.open.len()), (0, 0));
    }

    #[test]
    fn one_that_was_rejected_is_not_acknowledged_with_others() {
        let mut tags = delivered(3);
        assert!(tags.tell(2) && tags.ack(1) && tags.ack(3));
        assert_eq!(
            tags.take_acks().collect::<Vec<_>>(),
            [Ack { tag: 3, multiple: true }],
            "the server has forgotten number 2"
        );
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
            prop_assert_eq!(tags.open.len(), open);
        }
    }
}
