//! NATS for Throughline: core NATS and JetStream, on the client `async-nats`.
//!
//! ```no_run
//! use throughline_core::Envelope;
//! use throughline_core::broker::Broker;
//! use throughline_nats::{Nats, Stream, StreamSubject};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let nats = Nats::connect("localhost:4222").await?;
//! let stream = Stream::new("ORDERS").subjects(["orders.>"]).durable("stock").filter("orders.placed");
//! let mut orders = nats.subscribe(&stream.into()).await?;
//! nats.transport().publish(Envelope::new(StreamSubject::new("orders.placed"), "{}")).await?;
//! let received = orders.receive().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Core NATS or JetStream
//!
//! | | consume | publish | promises |
//! | --- | --- | --- | --- |
//! | core NATS | [`Subject`] | a plain destination, [`CoreSubject`] | at most once: what nobody takes in time is gone; a queue group shares the work; request and reply |
//! | JetStream | [`Stream`] | [`StreamSubject`], or all with [`Nats::publish_to_streams`] | at least once: stored and confirmed, acknowledged, delivered again |
//!
//! A message id travels as `Nats-Msg-Id`, by which a stream drops what it already has (for two minutes unless the stream says
//! otherwise); the correlation id as `correlation-id`, the content type as `content-type`. Headers that start with `Nats-` are
//! never copied to an outgoing message (PROP-N-04).
//!
//! A sampled `traceparent` switches the server's own message tracing on where its account is configured for it, from server 2.11
//! on (PROP-N-06). A header value with a bare carriage return, which other clients can send, ends the connection of the client
//! for good; subscriptions then end with an error (PROP-N-07).
//!
//! # Features
//!
//! The client's own, passed on: `ring` (default), `aws-lc-rs` and `fips` choose the cryptography, `nkeys` (default) is needed for
//! credentials files, `websockets` for `ws://`.

mod broker;
mod carrier;
mod delivery;
mod destination;
mod error;
mod jetstream;
mod publisher;
mod semconv;
mod subscriber;
mod subscription;

pub use self::broker::Nats;
pub use self::carrier::{HeaderExtractor, HeaderInjector};
pub use self::delivery::{NativeMessage, StreamPosition};
pub use self::destination::{CoreSubject, StreamSubject};
pub use self::subscription::{StartPosition, Stream, Subject};
