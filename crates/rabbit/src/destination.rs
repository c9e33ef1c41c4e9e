use std::borrow::Cow;
use std::sync::Arc;

use throughline_core::Destination;

/// Where a message goes: exchange and routing key. A plain destination is a queue's name, through the default exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Address<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) key: &'a str,
}

impl<'a> Address<'a> {
    /// Reads the address of a destination: its namespace is the exchange, its name the key.
    pub(crate) fn of(destination: &'a Destination) -> Self {
        let key = if destination.native::<Options>().is_some_and(|options| options.is_keyless) { "" } else { destination.name() };
        Self { exchange: destination.namespace().unwrap_or_default(), key }
    }
}

/// What a typed destination says beyond exchange and key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Options {
    pub(crate) mandatory: bool,
    /// The exchange takes messages without a key.
    pub(crate) is_keyless: bool,
}
