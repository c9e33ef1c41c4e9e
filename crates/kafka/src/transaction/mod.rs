//! Exactly once: what a message's handler publishes and the offset of the message, committed in one transaction.

mod client;
mod ids;
mod publisher;
mod settings;
mod settle;
mod subscriber;
mod unit;
mod units;

pub(crate) use self::ids::TransactionalIds;
pub(crate) use self::subscriber::subscribe;
