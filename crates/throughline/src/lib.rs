//! Throughline carries one OpenTelemetry trace, its baggage and its metrics through message-driven services.
//!
//! A service is an [`App`] of subscriptions and plain `async fn` handlers, run by [`serve()`] on a broker. Spans, links, headers,
//! acknowledgements, retries and metrics happen around the handlers; what a handler needs of them it takes as an argument.
//!
#![cfg_attr(feature = "memory", doc = "```")]
#![cfg_attr(not(feature = "memory"), doc = "```text")]
//! use throughline::{App, CurrentBaggage, CurrentSpan, Handler, serve};
//! use throughline::extract::{Baggage, ProcessSpan};
//! use throughline::memory::{Channel, Memory};
//!
//! async fn reserve(order: String, span: ProcessSpan, baggage: Baggage) -> String {
//!     span.set_attribute("order.length", order.len() as i64);
//!     baggage.set("warehouse", "north"); // later publishes of this handler carry it
//!     format!("reserved {order}")
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Memory::new();
//! let app = App::new().subscribe(Channel::new("orders.placed").group("stock"), reserve.reply_to("stock.reserved"));
//! let running = serve(broker.clone(), app).start().await?;
//! broker.publisher().publish("orders.placed", "42").await?;
//! running.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | feature | adds |
//! | --- | --- |
//! | `json` (default) | [`Json`](extract) bodies |
//! | `memory` | the in-memory broker, `throughline::memory` |
//! | `kafka` | Kafka, `throughline::kafka`; a C compiler and `make` build its client |
//! | `nats` | core NATS and JetStream, `throughline::nats` |
//! | `rabbit` | RabbitMQ, `throughline::rabbit` |
//! | `export` | telemetry in the terminal, `throughline::export` |
//! | `otlp` | telemetry over OTLP, to a collector or a backend |
//! | `tls` | `https` for OTLP and Zipkin |
//! | `zipkin` | traces to Zipkin |
//! | `prometheus` | metrics on a page that Prometheus reads |
//! | `logging` | a subscriber of `tracing`: lines, log records and spans |

pub use throughline_core::*;

/// Telemetry pipelines: the waterfall in the terminal, and OTLP.
#[cfg(feature = "export")]
#[doc(inline)]
pub use throughline_export as export;
/// Kafka.
#[cfg(feature = "kafka")]
#[doc(inline)]
pub use throughline_kafka as kafka;
/// The in-memory broker, for quickstarts and tests.
#[cfg(feature = "memory")]
#[doc(inline)]
pub use throughline_memory as memory;
/// Core NATS and JetStream.
#[cfg(feature = "nats")]
#[doc(inline)]
pub use throughline_nats as nats;
/// RabbitMQ.
#[cfg(feature = "rabbit")]
#[doc(inline)]
pub use throughline_rabbit as rabbit;
