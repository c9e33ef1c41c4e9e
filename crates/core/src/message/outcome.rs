use smallvec::SmallVec;

use super::{Envelope, Failure, Fate, Settlement, Surroundings};

/// What came of handling a delivery: the settlement, the replies and, if it failed, why.
///
/// # Examples
///
/// ```
/// use throughline_core::{Failure, Outcome, Settlement};
///
/// assert_eq!(Outcome::ack().settlement(), &Settlement::Ack);
/// let failed = Outcome::failed(Failure::new("out_of_stock", "no item left"));
/// assert_eq!(failed.settlement(), &Settlement::retry());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    settlement: Settlement,
    /// `None` for a message that is just done. An outcome is handed from future to future, so it is kept small.
    more: Option<Box<More>>,
}

#[derive(Clone, Debug, Default)]
struct More {
    failure: Option<Failure>,
    replies: Replies,
    each: Vec<Option<Outcome>>,
    surroundings: Option<Surroundings>,
    fate: Fate,
}

/// One reply, the usual number, needs no list.
pub(crate) type Replies = SmallVec<[Envelope; 1]>;

impl Outcome {
    /// Says that the message is done.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Outcome::ack().failure().is_none());
    /// ```
    #[must_use]
    pub fn ack() -> Self {
        Self::default()
    }

    /// Settles as told; a decision is not a failure.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Outcome, Settlement};
    /// assert_eq!(Outcome::settle(Settlement::retry()).settlement(), &Settlement::retry());
    /// ```
    #[must_use]
    pub fn settle(settlement: Settlement) -> Self {
        Self { settlement, ..Self::default() }
    }

    /// Says that handling failed: to be retried, or rejected when another attempt makes no sense.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Failure, Outcome, Settlement};
    /// let outcome = Outcome::failed(Failure::new("decode_error", "not JSON").permanent());
    /// assert_eq!(outcome.settlement(), &Settlement::reject("decode_error"));
    /// ```
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        let settlement = if failure.is_retryable() {
            Settlement::retry()
        } else {
            Settlement::reject(failure.error_type().to_owned())
        };
        Self { settlement, more: Some(Box::new(More { failure: Some(failure), ..More::default() })) }
    }

    /// Says that the message is done and answers it.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Envelope, Outcome};
    /// let outcome = Outcome::reply(Envelope::new("stock.reserved", "ok"));
    /// assert_eq!(outcome.replies().len(), 1);
    /// ```
    #[must_use]
    pub fn reply(envelope: Envelope) -> Self {
        Self::default().with_reply(envelope)
    }

    /// Adds a reply.
    #[must_use]
    pub fn with_reply(mut self, envelope: Envelope) -> Self {
        self.more_mut().replies.push(envelope);
        self
    }

    /// Replaces the settlement.
    #[must_use]
    pub fn with_settlement(mut self, settlement: Settlement) -> Self {
        self.settlement = settlement;
        self
    }

    /// Sets the outcomes of single messages of a batch, in message order; `None` means: as the whole batch.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Outcome, Settlement};
    /// let outcome = Outcome::ack().with_each(vec![None, Some(Outcome::settle(Settlement::retry()))]);
    /// assert_eq!(outcome.settlement_of(0), &Settlement::Ack);
    /// assert_eq!(outcome.settlement_of(1), &Settlement::retry());
    /// ```
    #[must_use]
    pub fn with_each(mut self, each: Vec<Option<Self>>) -> Self {
        if self.more.is_some() || !each.is_empty() {
            self.more_mut().each = each;
        }
        self
    }

    fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Returns the settlement of the delivery; of a batch, that of the messages without one of their own.
    #[must_use]
    pub const fn settlement(&self) -> &Settlement {
        &self.settlement
    }

    /// Returns the settlement of one message of a batch.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Outcome, Settlement};
    /// assert_eq!(Outcome::ack().settlement_of(7), &Settlement::Ack);
    /// ```
    #[must_use]
    pub fn settlement_of(&self, index: usize) -> &Settlement {
        self.each_of(index).map_or(&self.settlement, |own| &own.settlement)
    }

    /// Returns the failure of one message of a batch.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::Outcome::ack().failure_of(0).is_none());
    /// ```
    #[must_use]
    pub fn failure_of(&self, index: usize) -> Option<&Failure> {
        self.each_of(index).map_or(self.own_failure(), Self::own_failure)
    }

    fn each_of(&self, index: usize) -> Option<&Self> {
        self.each().get(index)?.as_ref()
    }

    /// Returns the outcomes of single messages of a batch.
    #[must_use]
    pub fn each(&self) -> &[Option<Self>] {
        self.more.as_ref().map_or(&[], |more| &more.each)
    }

    /// Returns why handling failed; of a batch without a failure of its own, the first failure of one of its messages.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.own_failure().or_else(|| self.each().iter().flatten().find_map(Self::own_failure))
    }

    /// Returns the replies that are still to be published.
    #[must_use]
    pub fn replies(&self) -> &[Envelope] {
        self.more.as_ref().map_or(&[], |more| &more.replies)
    }

    /// The failure of the delivery as a whole.
    pub(crate) fn own_failure(&self) -> Option<&Failure> {
        self.more.as_ref()?.failure.as_ref()
    }

    /// Marks the failure of the delivery as one that no further attempt can mend.
    pub(crate) fn with_permanent_failure(mut self) -> Self {
        if let Some(more) = &mut self.more {
            more.failure = more.failure.take().map(Failure::permanent);
        }
        self
    }

    /// What the framework did with the message.
    pub(crate) fn fate(&self) -> &Fate {
        self.more.as_ref().map_or(&Fate::Settled, |more| &more.fate)
    }

    pub(crate) fn with_fate(mut self, fate: Fate) -> Self {
        self.more_mut().fate = fate;
        self
    }

    /// What telemetry keeps for the message, where the handler's arguments asked for it: replies are published under it.
    pub(crate) fn surroundings(&self) -> Option<&Surroundings> {
        self.more.as_ref()?.surroundings.as_ref()
    }

    pub(crate) fn set_surroundings(&mut self, surroundings: Surroundings) {
        self.more_mut().surroundings = Some(surroundings);
    }

    pub(crate) fn has_replies(&self) -> bool {
        !self.replies().is_empty() || self.each().iter().flatten().any(Self::has_replies)
    }

    pub(crate) fn take_replies(&mut self) -> Replies {
        self.more.as_mut().map(|more| std::mem::take(&mut more.replies)).unwrap_or_default()
    }

    pub(crate) fn take_each(mut self) -> (Self, Vec<Option<Self>>) {
        let each = self.more.as_mut().map(|more| std::mem::take(&mut more.each)).unwrap_or_default();
        (self, each)
    }

    pub(crate) fn map_each(mut self, count: usize, mut f: impl FnMut(usize, Self) -> Self) -> Self {
        if count == 0 {
            return f(0, self);
        }
        let shared = Self { more: None, settlement: self.settlement.clone() };
        let shared = match self.own_failure() {
            Some(failure) => {
                Self { more: Some(Box::new(More { failure: Some(failure.clone()), ..More::default() })), ..shared }
            }
            None => shared,
        };
        let mut each = std::mem::take(&mut self.more_mut().each);
        each.resize(count, None);
        self.more_mut().each = each
            .into_iter()
            .enumerate()
            .map(|(index, own)| Some(f(index, own.unwrap_or_else(|| shared.clone()))))
            .collect();
        self
    }
}
