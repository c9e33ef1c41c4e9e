//! The three services on the real brokers, and what backends then show.
//!
//! `cargo xtask test` finds or starts the brokers, finds or installs the programs of the backends, and runs it. The addresses of the brokers are in
//! `THROUGHLINE_NATS_URL`, `THROUGHLINE_KAFKA_URL` and `THROUGHLINE_RABBIT_URL`, the paths of the programs in variables such as
//! `THROUGHLINE_COLLECTOR_SERVER`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests: what cannot be done is a failure of the test"
)]

#[allow(dead_code, reason = "the tests of the workspace's own backends use the rest")]
#[path = "../../../tests/backends/api.rs"]
mod api;
#[path = "together/brokers.rs"]
mod brokers;
#[path = "together/in_process.rs"]
mod in_process;
#[allow(dead_code, reason = "the tests of the workspace's own backends use the rest")]
#[path = "../../../tests/backends/server.rs"]
mod server;
mod shop;
