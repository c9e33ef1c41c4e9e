//! What a message costs: this project and hand-written spans, side by side in one process.
//!
//! One table of [`cases`](case::cases) has three users: `cargo bench` (criterion), `cargo xtask bench` (the table with its spread) and the
//! test of allocation counts. `docs/src/cost/measurements.md` says what is compared with what.
//!
//! | module | holds |
//! | --- | --- |
//! | [`case`] | the table: what is measured, and its target |
//! | [`load`] | what a message carries and what telemetry is there |
//! | [`hand`] | the baseline: dispatch and spans written by hand, on plain OpenTelemetry |
//! | [`ours`] | the same through this project, by both doors |
//! | [`side`] | one of the two, ready to be measured |
//! | [`pipeline`] | SDK providers whose exporters drop everything |
//! | [`rounds`] | interleaved rounds, and what they took |
//! | [`memory`] | the table of the in-process cases |
//! | [`growth`] | how cost grows, and the pictures of it |
//! | `programs` | those that take turns on a real server, and what they are compared with |
//! | `resident` | the memory of this process |
//! | `stopwatch` | what one round on a server took: time and processor time |
//! | `tally` | what such a program has handled |
//! | [`kafka`] | the table of a real Kafka server |
//! | [`nats`] | the table of a real NATS server |
//! | [`rabbit`] | the table of a real RabbitMQ server |
//! | [`stats`] | median and spread |
//! | [`report`] | the table for a terminal, as JSON and as Markdown |
//! | [`summary`] | the table of the guide |

pub mod case;
pub mod growth;
pub mod hand;
pub mod kafka;
pub mod load;
pub mod memory;
pub mod nats;
pub mod ours;
pub mod pipeline;
mod programs;
pub mod rabbit;
pub mod report;
mod resident;
pub mod rounds;
pub mod side;
pub mod stats;
mod stopwatch;
pub mod summary;
mod tally;
