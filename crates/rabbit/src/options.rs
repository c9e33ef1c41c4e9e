use std::time::Duration;

/// How long each wait may last, and how much may be under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For each answer of the server to a declaration, an open, a consume, a cancel.
    pub(crate) answer: Duration,
    /// For the confirmation of a publish, from when it was sent.
    pub(crate) confirm: Duration,
    /// Of a publish for a connection, for the end of an alarm, and for room among those that are not confirmed; zero fails at once.
    pub(crate) publish_wait: Duration,
    /// How many publishes may wait for their confirmation at a time.
    pub(crate) unconfirmed: usize,
    /// The heartbeat that was asked for.
    pub(crate) heartbeat: Duration,
}

impl Limits {
    pub(crate) const DEFAULT: Self = Self {
        answer: Duration::from_secs(10),
        confirm: Duration::from_secs(30),
        publish_wait: Duration::from_secs(30),
        unconfirmed: 1_024,
        heartbeat: Duration::from_secs(10),
    };
}
