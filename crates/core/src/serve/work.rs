use crate::broker::Received;

/// What is handled in one go: a message or a batch.
pub(super) enum Work {
    Single(Received),
    Batch(Vec<Received>),
}

impl Work {
    pub(super) fn messages(&self) -> &[Received] {
        match self {
            Self::Single(received) => std::slice::from_ref(received),
            Self::Batch(received) => received,
        }
    }

    pub(super) fn messages_mut(&mut self) -> &mut [Received] {
        match self {
            Self::Single(received) => std::slice::from_mut(received),
            Self::Batch(received) => received,
        }
    }

    /// Drops the messages that are not wanted, by their place; `None` where no message is left.
    pub(super) fn retain(self, mut is_wanted: impl FnMut(usize, &Received) -> bool) -> Option<Self> {
        match self {
            Self::Single(received) => is_wanted(0, &received).then_some(Self::Single(received)),
            Self::Batch(mut received) => {
                let mut index = 0..;
                received.retain(|message| index.next().is_some_and(|index| is_wanted(index, message)));
                (!received.is_empty()).then_some(Self::Batch(received))
            }
        }
    }
}
