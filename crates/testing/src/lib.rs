//! Tests with Throughline: an app on the in-memory broker, the telemetry it makes, and the traces as trees.
//!
//! ```
//! use throughline_core::{App, Handler};
//! use throughline_memory::Channel;
//!
//! async fn reserve(order: String) -> String { format!("reserved {order}") }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let app = App::new().subscribe(Channel::new("orders.placed"), reserve.reply_to("stock.reserved"));
//! let test = throughline_testing::start(app).await; // in-memory broker, captured telemetry, no globals
//! test.publish("orders.placed", "42").await;
//! assert_eq!(test.next::<String>("stock.reserved").await, "reserved 42");
//! test.trace().await.assert_tree("
//!     publish orders.placed
//!     └─ process orders.placed
//!        └─ publish stock.reserved
//! ");
//! # }
//! ```
//!
//! For adapters there is [`conformance`]: one suite of behaviour and one table of exported telemetry that every broker passes.

mod app_test;
mod capture;
pub mod conformance;
mod patience;
mod report;
mod snapshot;
mod tree;

pub use self::app_test::{AppTest, start, start_in, start_with};
pub use self::capture::{Bucket, Capture, CapturedLog, MetricKind, MetricPoint, SamplerCall};
pub use self::tree::{TraceTree, attribute, attributes};
