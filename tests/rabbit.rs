//! RabbitMQ on a real server, and what only a server that goes away can show.
//!
//! `cargo xtask test --broker rabbit` finds or starts the server and runs it; the address is in `THROUGHLINE_RABBIT_URL`. On the oldest
//! server that is tested only `conformance`, `faults`, `foreign`, `golden`, `hostile`, `poison` and
//! `raw_rows` run.

#![allow(clippy::expect_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

#[path = "rabbit/child.rs"]
mod child;
#[path = "rabbit/conformance.rs"]
mod conformance;
#[path = "rabbit/consume.rs"]
mod consume;
#[path = "rabbit/contract.rs"]
mod contract;
#[path = "rabbit/faults.rs"]
mod faults;
#[path = "rabbit/foreign.rs"]
mod foreign;
#[path = "rabbit/golden.rs"]
mod golden;
#[path = "rabbit/harness.rs"]
mod harness;
#[path = "rabbit/hostile.rs"]
mod hostile;
#[path = "rabbit/load.rs"]
mod load;
#[path = "rabbit/log.rs"]
mod log;
#[path = "rabbit/poison.rs"]
mod poison;
#[path = "rabbit/proxy.rs"]
mod proxy;
#[path = "rabbit/publish.rs"]
mod publish;
#[path = "rabbit/raw.rs"]
mod raw;
#[path = "rabbit/raw_rows.rs"]
mod raw_rows;
#[path = "rabbit/refused.rs"]
mod refused;
#[path = "rabbit/rows.rs"]
mod rows;
#[path = "rabbit/server.rs"]
mod server;
#[path = "rabbit/topology.rs"]
mod topology;
#[path = "rabbit/wire.rs"]
mod wire;
