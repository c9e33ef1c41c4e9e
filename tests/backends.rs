//! The three services of the quickstart with real set-ups, and what backends then show through their own interfaces.
//!
//! `cargo xtask test --backends` finds or installs the programs and runs it. Each test starts what it needs, with the files of the guides. Jaeger,
//! Zipkin and Tempo are those of `THROUGHLINE_JAEGER_URL`, `THROUGHLINE_ZIPKIN_URL` and `THROUGHLINE_TEMPO_URL` where these are set.

#![allow(clippy::expect_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

#[path = "backends/api.rs"]
mod api;
#[path = "backends/collector.rs"]
mod collector;
#[path = "backends/environment.rs"]
mod environment;
#[path = "backends/jaeger.rs"]
mod jaeger;
#[path = "backends/otlp.rs"]
mod otlp;
#[path = "backends/outage.rs"]
mod outage;
#[path = "backends/play.rs"]
mod play;
#[path = "backends/prometheus.rs"]
mod prometheus;
#[path = "backends/prometheus_server.rs"]
mod prometheus_server;
#[path = "backends/server.rs"]
mod server;
#[path = "backends/span.rs"]
mod span;
#[path = "backends/tail_sampling.rs"]
mod tail_sampling;
#[path = "backends/tempo.rs"]
mod tempo;
#[path = "backends/zipkin.rs"]
mod zipkin;
#[path = "backends/zipkin_server.rs"]
mod zipkin_server;
