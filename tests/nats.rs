//! The conformance suite on a real NATS server, core NATS and JetStream, and what only a server that goes away can show.
//!
//! `cargo xtask test --broker nats` finds or starts the server and runs it; the address is in `THROUGHLINE_NATS_URL`.

#![allow(clippy::expect_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

// The programs of the guides name the facade.
extern crate throughline_core as throughline;

#[path = "nats/answers.rs"]
mod answers;
#[path = "http/client.rs"]
mod client;
#[path = "nats/contract.rs"]
mod contract;
#[path = "nats/core.rs"]
mod core_nats;
#[path = "nats/forwards.rs"]
mod forwards;
#[path = "nats/health.rs"]
mod health;
#[path = "nats/hostile.rs"]
mod hostile;
#[path = "nats/jetstream.rs"]
mod jetstream;
#[path = "nats/kept.rs"]
mod kept;
#[path = "nats/last_delivery.rs"]
mod last_delivery;
#[path = "nats/limits.rs"]
mod limits;
#[path = "nats/logs.rs"]
mod logs;
#[path = "nats/raw_core.rs"]
mod raw_core;
#[path = "nats/raw_jetstream.rs"]
mod raw_jetstream;
#[path = "nats/restart.rs"]
mod restart;
#[path = "nats/server.rs"]
mod server;
#[path = "nats/silence.rs"]
mod silence;
#[path = "nats/slow.rs"]
mod slow;
#[path = "nats/starts.rs"]
mod starts;
#[path = "nats/statuses.rs"]
mod statuses;
#[path = "nats/streams.rs"]
mod streams;
#[path = "nats/supervision.rs"]
mod supervision;
#[path = "nats/trouble.rs"]
mod trouble;
#[path = "nats/wire.rs"]
mod wire;
#[path = "nats/witness.rs"]
mod witness;
