//! Services in other languages at the other end: one trace, one baggage.
//!
//! `cargo xtask interop` finds or starts what is needed and runs it. The peers are Python's FastStream (`interop/faststream_*.py`) and a Java service
//! under the OpenTelemetry Java agent. Both ends send their spans to a Collector of the test, which asserts on all of them together.

#![allow(clippy::expect_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

#[path = "interop/baggage.rs"]
mod baggage;
#[path = "interop/cases.rs"]
mod cases;
#[path = "interop/collector.rs"]
mod collector;
#[path = "interop/handlers.rs"]
mod handlers;
#[path = "interop/kafka.rs"]
mod kafka;
#[path = "interop/nats.rs"]
mod nats;
#[path = "interop/others.rs"]
mod others;
#[path = "interop/peer.rs"]
mod peer;
#[path = "interop/rabbit.rs"]
mod rabbit;
#[path = "interop/world.rs"]
mod world;

#[allow(dead_code, reason = "the tests of backends use the rest")]
#[path = "backends/api.rs"]
mod api;
#[allow(dead_code, reason = "the tests of backends use the rest")]
#[path = "backends/otlp.rs"]
mod otlp;
#[allow(dead_code, reason = "the tests of backends use the rest")]
#[path = "backends/server.rs"]
mod server;
#[allow(dead_code, reason = "the tests of backends use the rest")]
#[path = "backends/span.rs"]
mod span;
