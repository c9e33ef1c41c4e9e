//! The promises of the core that the golden table does not cover, each on exported telemetry or on what the broker was told.
//!
//! The apps run on the in-memory broker through [`throughline_testing::start`]; no test touches a global provider.

// Helpers of tests may panic as tests do.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "what cannot be done is a failure of the test")]

mod altered;
mod support;

mod adapter_panics;
mod atomic;
mod baggage;
mod batches;
mod bridge;
mod brokers;
mod current_span;
mod dead_letter;
mod ended_provider;
mod ends;
mod extractors;
mod foreign;
mod forwards;
mod kept;
mod lanes;
mod limits;
mod logs;
mod metrics;
mod middleware;
mod names;
mod native_names;
mod no_sdk;
mod once;
mod parents;
mod policies;
mod requests;
mod retry;
mod retry_policy;
mod returns;
mod routers;
mod scope;
mod service;
mod settings;
mod settling;
mod starts;
mod status;
mod tasks;
mod together;
mod trust;
mod user_code;
