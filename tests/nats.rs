//! The conformance suite on a real NATS server, core NATS and JetStream, and what only a server that goes away can show.
//!
//! `cargo xtask test --broker nats` finds or starts the server and runs it; the address is in `THROUGHLINE_NATS_URL`.

#![allow(clippy::expect_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

#[path = "nats/core.rs"]
mod core_nats;
#[path = "nats/hostile.rs"]
mod hostile;
#[path = "nats/jetstream.rs"]
mod jetstream;
#[path = "nats/raw_core.rs"]
mod raw_core;
#[path = "nats/raw_jetstream.rs"]
mod raw_jetstream;
#[path = "nats/restart.rs"]
mod restart;
#[path = "nats/server.rs"]
mod server;
#[path = "nats/supervision.rs"]
mod supervision;
#[path = "nats/wire.rs"]
mod wire;
