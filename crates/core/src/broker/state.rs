use std::borrow::Cow;
use std::time::Instant;

/// Whether a connection reaches its server, as its adapter knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The server is reached, and takes no messages at present: publishes wait.
    Blocked {
        /// When the server said so.
        since: Instant,
        /// Why, in one line without a secret.
        why: Cow<'static, str>,
    },
    /// It was closed, and is not made again.
    Closed,
    /// The server is reached.
    Connected,
    /// The server is not reached; the adapter tries again by itself.
    Disconnected {
        /// When that was noticed.
        since: Instant,
        /// Why, in one line without a secret.
        why: Cow<'static, str>,
    },
    /// The adapter does not say.
    Unknown,
}
