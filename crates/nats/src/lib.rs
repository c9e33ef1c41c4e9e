//! NATS for Throughline: core NATS and JetStream, on the client `async-nats`.
//!
//! ```no_run
//! use throughline_core::broker::Broker;
//! use throughline_nats::{Nats, Stream, StreamSubject};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let nats = Nats::connect("localhost:4222").await?;
//! let stream = Stream::new("ORDERS").subjects(["orders.>"]).durable("stock").filter("orders.placed");
//! let mut orders = nats.subscribe(&stream.into()).await?;
//! nats.publisher().publish(StreamSubject::new("orders.placed"), "{}").await?;
//! let received = orders.receive().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A service that keeps its own client uses [`Instrumentation`] instead: the client's own calls, with the same
//! telemetry.
//!
//! # Core NATS or JetStream
//!
//! | | core NATS | JetStream |
//! | --- | --- | --- |
//! | consume | [`Subject`] | [`Stream`] |
//! | publish | a plain destination, [`CoreSubject`] | [`StreamSubject`], or all with [`Nats::publish_to_streams`] |
//! | promises | at most once: what nobody takes in time is gone | at least once: stored, confirmed, acknowledged |
//! | offers | queue groups, request and reply | delivery again, a place in the stream |
//!
//! A message id travels as `Nats-Msg-Id`, by which a stream drops what it already has (for two minutes unless the
//! stream says otherwise); the correlation id as `correlation-id`, the content type as `content-type`. Headers that
//! start with `Nats-` are never copied to an outgoing message. Values are printable ASCII: an id that is not is
//! [escaped](throughline_core::message::header_text), any other header is an error.
//!
//! A sampled `traceparent` switches the server's own message tracing on where its account is configured for it, from
//! server 2.11 on. A header value with a bare carriage return, which other clients can send, ends the
//! connection of the client for good: an error is logged and another one is made. With a client of one's own,
//! [`Nats::from_client`], subscriptions end with an error.
//!
//! # Features
//!
//! The client's own, passed on: `ring` (default) and `aws-lc-rs` choose the cryptography, `nkeys` (default) is needed
//! for credentials files, `websockets` for `ws://`. A feature of the client that is not here, such as `fips`, is
//! switched on by a dependency of one's own on the same version of `async-nats`, which cargo unites with this one.

mod acks;
mod address;
mod altered;
mod backlog;
mod broker;
mod carrier;
mod connection;
mod delivery;
mod denied;
mod destination;
mod error;
mod extract;
mod forwarded;
mod header_names;
mod instrument;
mod jetstream;
mod link;
mod losses;
mod pipeline;
mod protocol;
mod publisher;
mod renewal;
mod semconv;
mod sender;
mod status;
mod subscriber;
mod subscription;

pub use self::broker::Nats;
pub use self::carrier::{HeaderExtractor, HeaderInjector};
pub use self::delivery::{NativeMessage, StreamPosition};
pub use self::destination::{CoreSubject, StreamSubject};
pub use self::extract::{StreamSequence, SubjectName};
pub use self::instrument::{
    ClientMessage, ClientPublisher, Fetched, Instrumentation, PublishAckFuture, Pulled, SubscriptionTelemetry,
};
pub use self::subscription::{StartPosition, Stream, Subject};
