//! The telemetry engine: spans, metrics, error events and propagation, once for the framework and for raw clients.
//!
//! [`Instrumentation`] is the engine; a [`Consumer`] made by it stands for one subscription and a [`Producer`] for one connection.
//! Handlers see [`CurrentSpan`] and [`CurrentBaggage`]. What is emitted is fixed by the OpenTelemetry messaging conventions 1.44.0.

mod attributes;
mod builder;
mod changes;
mod choices;
mod consumer;
mod current;
mod engine;
mod incoming;
mod instrumentation;
mod interned;
mod operation;
mod origin;
mod pending;
mod prepared;
mod processing;
mod producer;
mod reply_address;
mod run_in;
mod seen_as;
pub mod semconv;

pub use self::builder::Builder;

pub use self::choices::{BaggagePolicy, BatchBaggage, OperationInfo, ParentMode, SettleSpans, Trust};
pub use self::consumer::Consumer;
pub(crate) use self::current::publish_context;
pub use self::current::{Baggage, CurrentBaggage, CurrentSpan, ProcessSpan, Scope};
pub(crate) use self::engine::Clock;
pub use self::incoming::Incoming;
pub use self::instrumentation::Instrumentation;
pub use self::pending::{Receiving, Settling};
pub use self::processing::Processing;
pub use self::producer::{Outgoing, Producer, Sending};
pub(crate) use self::run_in::run_in;
pub use crate::message::CreationContext;
pub use crate::propagation::Carrier;
