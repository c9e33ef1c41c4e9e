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
        Self { exchange: destination.namespace().unwrap_or_default(), key: destination.name() }
    }
}
