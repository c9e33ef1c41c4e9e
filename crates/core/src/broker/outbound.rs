use super::{BrokerError, Subscription};
use crate::message::Destination;

/// A destination that is known at the start: messages of a subscription will be published there.
///
/// # Examples
///
/// ```
/// use throughline_core::Destination;
/// use throughline_core::broker::{Outbound, OutboundUse, Pattern, Subscription};
///
/// let (orders, dead) = (Subscription::new("kafka", Pattern::exact("orders")), Destination::new("orders.dead"));
/// let outbound = Outbound::new(&orders, &dead, OutboundUse::DeadLetter);
/// assert_eq!(outbound.destination.name(), "orders.dead");
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Outbound<'a> {
    /// The subscription whose messages go there.
    pub subscription: &'a Subscription,
    /// Where they go.
    pub destination: &'a Destination,
    /// What goes there.
    pub used_for: OutboundUse,
}

impl<'a> Outbound<'a> {
    /// Creates it from the subscription, the destination and what goes there.
    #[must_use]
    pub const fn new(subscription: &'a Subscription, destination: &'a Destination, used_for: OutboundUse) -> Self {
        Self { subscription, destination, used_for }
    }
}

/// What is published to a destination that is known at the start.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum OutboundUse {
    /// Messages that were given up (`dead_letter`).
    DeadLetter,
    /// What the handler returns (`reply_to`).
    Reply,
}

impl OutboundUse {
    /// The setting of the user's.
    pub(crate) const fn setting(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead_letter",
            Self::Reply => "reply_to",
        }
    }
}

/// What a broker says about a destination that is not known to be missing.
#[derive(Debug)]
#[non_exhaustive]
pub enum Existence {
    /// Messages can be published there: it exists, or it comes into being with the first message, or the broker needs nothing there.
    Usable,
    /// The broker could not be asked, or does not say.
    Unknown(BrokerError),
}
