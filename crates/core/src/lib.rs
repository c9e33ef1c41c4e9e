//! Core of Throughline: everything that knows no broker.
//!
//! A service is an [`App`] of subscriptions and handlers, run by [`serve()`] on a [`Broker`](broker::Broker). Handlers are plain
//! `async fn`s whose arguments are extractors; spans, baggage, metrics, acknowledgement and retries happen around them.
//! A service that keeps its own client uses [`telemetry::Instrumentation`] instead: the same engine.
//!
//! ```
//! use throughline_core::{App, CurrentBaggage, CurrentSpan, Handler};
//! use throughline_core::broker::{Pattern, Subscription};
//! use throughline_core::extract::{Baggage, ProcessSpan};
//!
//! async fn reserve(order: String, span: ProcessSpan, baggage: Baggage) -> String {
//!     span.set_attribute("order.length", order.len() as i64);
//!     baggage.set("warehouse", "north"); // later publishes of this handler carry it
//!     format!("reserved {order}")
//! }
//!
//! let orders = Subscription::new("in_memory", Pattern::exact("orders.placed")); // adapters have typed ones
//! let app: App = App::new().subscribe(orders, reserve.reply_to("stock.reserved"));
//! ```
//!
//! | room | holds |
//! | --- | --- |
//! | [`message`] | what arrives, what leaves, what is decided about it: plain data |
//! | [`codec`] | bodies as bytes, text, JSON |
//! | [`propagation`] | trace context and baggage in headers |
//! | [`broker`] | the contract of an adapter |
//! | [`telemetry`] | the engine: spans, metrics, events, current span and baggage |
//! | [`raw`] | what the raw doors of the adapters are made of |
//! | [`middleware`] | the trait, its chain, and the provided ones |
//! | [`publish`] | publishing from anywhere |
//! | [`extract`] | arguments of handlers |
//! | [`handler`] | from `async fn` to handler |
//! | [`mod@serve`] | receive, dispatch, settle, shut down |

mod app;
pub mod broker;
mod causes;
pub mod codec;
pub mod extract;
mod guard;
pub mod handler;
mod later;
mod log;
pub mod message;
pub mod middleware;
pub mod propagation;
pub mod publish;
pub mod raw;
pub mod serve;
pub mod telemetry;

pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use opentelemetry;

pub use self::app::{App, Router};
pub use self::broker::error::{BrokerError, PublishError};
pub use self::codec::into_outcome::IntoOutcome;
pub use self::handler::function::Handler;
pub use self::handler::route::{IntoRoute, Route};
pub use self::message::delivery::Delivery;
pub use self::message::destination::Destination;
pub use self::message::envelope::Envelope;
pub use self::message::failure::{BoxError, Failure, IntoFailure};
pub use self::message::headers::Headers;
pub use self::message::outcome::Outcome;
pub use self::message::receipt::Receipt;
pub use self::message::settlement::Settlement;
pub use self::middleware::chain::Middleware;
pub use self::middleware::retry_policy::RetryPolicy;
pub use self::publish::publisher::Publisher;
pub use self::serve::error::{ServeError, ServeErrorKind};
pub use self::serve::service::serve;
pub use self::telemetry::current::baggage::CurrentBaggage;
pub use self::telemetry::current::span::CurrentSpan;
