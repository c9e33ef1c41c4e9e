//! What the raw doors of the adapters are made of: the telemetry of a service that keeps its own client.
//!
//! An adapter says how a message of its client is read ([`ReadMessage`]) and what a user may say about the client ([`Settings`]). A
//! [`Door`] then processes such messages, and a [`Handle`] holds what is set. What the adapter adds are the client's own calls:
//! publish, receive, settle.

mod door;
mod handle;
mod message;

pub use self::door::Door;
pub use self::handle::{ClientSettings, Handle, Settings};
pub use self::message::{RawMessage, ReadMessage};
