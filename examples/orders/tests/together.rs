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
#[path = "together/backends.rs"]
mod backends;
#[path = "together/boards.rs"]
mod boards;
#[path = "together/brokers.rs"]
mod brokers;
#[path = "together/collector.rs"]
mod collector;
#[path = "together/crash.rs"]
mod crash;
#[path = "together/demo.rs"]
mod demo;
#[path = "together/in_process.rs"]
mod in_process;
mod monitoring;
#[path = "../../../tests/backends/prometheus_server.rs"]
mod prometheus_server;
#[allow(dead_code, reason = "the tests of the workspace's own backends use the rest")]
#[path = "../../../tests/backends/server.rs"]
mod server;
#[path = "together/services.rs"]
mod services;
mod shop;
#[path = "together/zipkin.rs"]
mod zipkin;
#[path = "../../../tests/backends/zipkin_server.rs"]
mod zipkin_server;
