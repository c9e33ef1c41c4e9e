//! One suite for every adapter: how a broker behaves, and the golden table of what it exports.
//!
//! The author of an adapter says once how to reach the broker, what it can do and what telemetry calls it (a [`Harness`]), and gets
//! one test for each case:
//!
//! ```
//! # mod harness {
//! # use async_trait::async_trait;
//! # use throughline_core::broker::Subscription;
//! # use throughline_core::message::Operations;
//! # use throughline_memory::{Channel, Memory};
//! # use throughline_testing::conformance::{Capabilities, Harness, Names, Spec};
//! # pub struct InMemory(Memory);
//! # #[async_trait]
//! # impl Harness for InMemory {
//! #     type Broker = Memory;
//! #     const CAPABILITIES: Capabilities = Capabilities { persistence: false, ..Capabilities::all(1 << 20) };
//! #     async fn start(_id: &str) -> Self { Self(Memory::new()) }
//! #     async fn connect(&self) -> Memory { self.0.clone() }
//! #     fn subscription(&self, spec: &Spec) -> Subscription { Channel::new(spec.destination.as_str()).into() }
//! #     fn names(&self) -> Names { Names::new("in_memory", Operations::DEFAULT.with_ack("ack")) }
//! # }
//! # }
//! # use harness::InMemory;
//! use throughline_testing::conformance::{EngineDoor, FrameworkDoor};
//!
//! mod behaviour {
//!     use super::InMemory;
//!     throughline_testing::conformance_behaviour!(InMemory);
//! }
//!
//! mod framework {
//!     use super::{FrameworkDoor, InMemory};
//!     throughline_testing::conformance_golden!(InMemory, FrameworkDoor<InMemory>);
//! }
//!
//! mod engine {
//!     use super::{EngineDoor, InMemory};
//!     throughline_testing::conformance_golden!(InMemory, EngineDoor<InMemory>, ignore = "needs a server: cargo xtask test");
//! }
//! # fn main() {}
//! ```
//!
//! The crate needs `tokio` with `macros` and `rt-multi-thread`. Every case has a broker of its own by unique names, waits for
//! conditions and never for a time, and prints its id when it fails, so that the broker's logs can be searched for it.
//!
//! # Behaviour and table
//!
//! A case of [`conformance_behaviour!`](crate::conformance_behaviour) is a sentence that must be true. A case of
//! [`conformance_golden!`](crate::conformance_golden) is a row of section 11 of the telemetry contract: its spans with their complete
//! attribute sets, links, parents and status, the error events, the measurements, and what the sampler was shown. A row is run
//! through a [`Door`]: [`FrameworkDoor`], [`EngineDoor`], and the raw-client functions of the adapter, for which its author
//! implements the trait.
//!
//! What a broker or a door cannot do is left out by its [`Capabilities`] and [`Ability`]; [`rows_left_out`] names those rows, so that a
//! test can state them.

#[doc(hidden)]
pub mod behaviour;
mod bench;
mod capabilities;
mod carrier;
mod cases;
mod door;
#[doc(hidden)]
pub mod golden;
mod harness;
#[doc(hidden)]
pub mod hostile;
mod wait;

pub use self::capabilities::Capabilities;
pub use self::carrier::{assert_carrier, assert_carrier_on};
pub use self::door::{Ability, Door, DoorKind, EngineDoor, FrameworkDoor, GoldenError, Intake, Job, Message, Work};
pub use self::golden::left_out as rows_left_out;
pub use self::harness::{Harness, Names, Refusal, Spec, Wildcard};
pub use self::hostile::{Given, HeaderSet, HostileClass, PlainStranger, Stranger, Strangers};
#[doc(hidden)]
pub use self::wait::case;
