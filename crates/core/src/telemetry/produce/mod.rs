//! Telemetry of what leaves: create and send.

mod outgoing;
mod producer;
mod sending;

pub use self::outgoing::Outgoing;
pub use self::producer::Producer;
pub use self::sending::Sending;
