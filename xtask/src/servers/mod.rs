//! The servers that tests and examples need: found, or started.
//!
//! For every broker, in this order:
//!
//! 1. an address from the environment (for NATS: `THROUGHLINE_NATS_URL`);
//! 2. Docker Compose with `compose.yaml`, when an engine really answers;
//! 3. a local server on a free loopback port with a fresh data folder; its program is looked for on the path
//!    and in the project's tool folder inside `target/`, and installed there when it is in neither.
//!
//! What services in other languages run on is in [`PEERS`], and what shows telemetry in [`BACKENDS`]: their programs are found or installed
//! here, and started by the tests.
//!
//! [`BROKERS`] is the table that `cargo xtask` works from. A new broker is one file here, one line in that
//! table and one service in `compose.yaml`.

mod backends;
mod broker;
mod compose;
mod error;
mod install;
mod java;
pub mod kafka;
mod local;
pub mod nats;
mod peers;
mod python;
pub mod rabbit;
mod server;
mod table;

pub use self::backends::{BACKENDS, Backend};
pub use self::broker::{Broker, Pass, Program};
pub use self::error::{ServerError, ServerErrorKind};
pub use self::peers::PEERS;
pub use self::server::{Origin, Server};
pub use self::table::{BROKERS, broker};

/// What the user set; an empty value is as good as none.
fn set_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
