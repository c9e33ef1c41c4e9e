//! Kafka on a real server, and what only a server that goes away can show.
//!
//! `cargo xtask test --broker kafka` finds or starts the server and runs it; the address is in `THROUGHLINE_KAFKA_URL`.

#![allow(clippy::expect_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

#[path = "kafka/child.rs"]
mod child;
#[path = "kafka/commits.rs"]
mod commits;
#[path = "kafka/consume.rs"]
mod consume;
#[path = "kafka/contract.rs"]
mod contract;
#[path = "kafka/exactly_once.rs"]
mod exactly_once;
#[path = "kafka/faults.rs"]
mod faults;
#[path = "kafka/foreign.rs"]
mod foreign;
#[path = "kafka/framework.rs"]
mod framework;
#[path = "kafka/gone.rs"]
mod gone;
#[path = "kafka/harness.rs"]
mod harness;
#[path = "kafka/hostile.rs"]
mod hostile;
#[path = "kafka/limits.rs"]
mod limits;
#[path = "kafka/load.rs"]
mod load;
#[path = "kafka/logs.rs"]
mod logs;
#[path = "kafka/odd.rs"]
mod odd;
#[path = "kafka/order.rs"]
mod order;
#[path = "kafka/places.rs"]
mod places;
#[path = "kafka/publish.rs"]
mod publish;
#[path = "kafka/raw.rs"]
mod raw;
#[path = "kafka/raw_rows.rs"]
mod raw_rows;
#[path = "kafka/replies.rs"]
mod replies;
#[path = "kafka/retry_topics.rs"]
mod retry_topics;
#[path = "kafka/server.rs"]
mod server;
#[path = "kafka/silent.rs"]
mod silent;
#[path = "kafka/starts.rs"]
mod starts;
#[path = "kafka/topics.rs"]
mod topics;
#[path = "kafka/waits.rs"]
mod waits;
