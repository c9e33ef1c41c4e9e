//! In-memory broker for Throughline: the default of quickstarts and tests, and the reference adapter.
//!
//! A [`Memory`] lives inside the process and needs no server. It has no special rights: it implements the same contract as
//! every other adapter, and an app written for a real broker starts on it unchanged.
//!
//! ```
//! use throughline_core::broker::{Broker, Subscriber};
//! use throughline_core::Settlement;
//! use throughline_memory::{Channel, Memory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memory = Memory::new();
//! let mut stock = memory.subscribe(&Channel::new("orders.placed").group("stock").into()).await?;
//! memory.publisher().publish("orders.placed", "{}").await?;
//!
//! let mut received = stock.receive().await?;
//! assert_eq!(received.delivery.payload().as_ref(), b"{}");
//! received.settle(&Settlement::Ack).await?;
//! memory.idle().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - A message goes to the subscriptions that exist when it is published, as on core NATS. One that nobody subscribes to is
//!   dropped without an error; a *request* that nobody subscribes to fails with `no_responders`.
//! - Every subscription without a group receives every message that matches it. Subscriptions of one group compete: one of them
//!   receives each message, and one that was just served lets the others go first.
//! - Messages of a subscription keep their order. One that comes back goes to the place it had, before all later ones.
//! - `Retry` delivers again, after its delay, with the attempt counted up. `Reject` drops. A message that is dropped
//!   unsettled (an aborted handler, a shutdown) is delivered again at once.
//! - A subscription that was made for another broker is tried again as there: in place where that broker does not deliver again, and
//!   where it has retry topics, in those and after their delays.
//! - What a subscription of a group leaves behind stays for the others, and for the next one when it was the last. What one without
//!   a group leaves behind ends with it.
//! - Queues are unbounded: a publish never waits. Payloads are shared between subscriptions and never copied.
//! - Dropping the process drops the messages. Nothing is stored.
//!
//! # Where things are
//!
//! | to | see |
//! | --- | --- |
//! | say what to consume | [`Channel`] |
//! | run an app, publish, wait until all is done | [`Memory`] |
//! | look at what was settled in a test, and at what is not done | [`Memory::recording`], [`SettledMessage`], [`OpenMessage`] |
//! | make a publish, a settlement or the connection fail | [`Memory::fail_next_publish`], [`Memory::fail_next_settlement`], [`Memory::disconnect`] |
//! | test what reads a real broker's own message data | [`Memory::deliver`] |

mod broker;
mod delivery;
mod publisher;
mod retry;
mod semconv;
mod server;
mod subscriber;
mod subscription;
#[cfg(test)]
mod testing;

pub use self::broker::Memory;
pub use self::server::{OpenMessage, OpenState, SettledMessage};
pub use self::subscription::Channel;
