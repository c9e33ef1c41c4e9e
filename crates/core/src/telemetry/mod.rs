//! The telemetry engine: spans, metrics, error events and propagation, once for the framework and for raw clients.
//!
//! [`Instrumentation`] is the engine; a [`Consumer`] made by it stands for one subscription and a [`Producer`] for one connection.
//! Handlers see [`CurrentSpan`] and [`CurrentBaggage`]. What is emitted is fixed by the OpenTelemetry messaging conventions 1.44.0.

mod attempt;
mod attributes;
mod builder;
mod consumer;
mod current;
mod events;
mod incoming;
mod instrumentation;
mod interned;
mod metrics;
mod operation;
mod origin;
mod pending;
mod prepared;
mod processing;
mod producer;
mod reply_address;
mod run_in;
mod scope;
mod seen_as;
pub mod semconv;
mod settings;
mod span;
mod tracer;

pub use self::builder::Builder;

pub use self::consumer::Consumer;
pub use self::current::{Baggage, CurrentBaggage, CurrentSpan, ProcessSpan};
pub use self::incoming::Incoming;
pub use self::instrumentation::Instrumentation;
pub(crate) use self::operation::Clock;
pub use self::pending::{Receiving, Settling};
pub use self::processing::Processing;
pub use self::producer::{Outgoing, Producer, Sending};
pub(crate) use self::run_in::run_in;
pub use self::scope::Scope;
pub(crate) use self::scope::publish_context;
pub use self::settings::{BaggagePolicy, BatchBaggage, OperationInfo, ParentMode, SettleSpans, Trust};
pub use crate::message::CreationContext;
pub use crate::propagation::Carrier;
