use std::time::Duration;

use throughline_core::Destination;

/// What a destination of our own says beyond its topic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Purpose {
    /// Of a retry topic: how long the message waits there; zero where that is the topic's own delay.
    pub(crate) retry: Option<Duration>,
    /// Whether the name came with a message, so that nobody here knows of it.
    pub(crate) is_asked: bool,
}

impl Purpose {
    pub(crate) fn of(destination: &Destination) -> Self {
        destination.native::<Self>().copied().unwrap_or_default()
    }
}
