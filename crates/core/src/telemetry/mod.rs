//! The telemetry engine: spans, metrics, error events and propagation, once for the framework and for raw clients.
//!
//! [`Instrumentation`] is the engine; a [`Consumer`] made by it stands for one subscription and a [`Producer`] for one connection.
//! Handlers see [`CurrentSpan`] and [`CurrentBaggage`]. What is emitted is fixed by the OpenTelemetry messaging conventions 1.44.0.

mod attributes;
mod builder;
mod changes;
mod choices;
mod consume;
pub(crate) mod current;
mod engine;
mod instrumentation;
mod interned;
mod operation;
mod prepared;
mod produce;
mod reply_address;
mod run_in;
pub mod semconv;
mod server_span;

pub use self::builder::Builder;
pub use self::choices::{BaggagePolicy, BatchBaggage, OperationInfo, ParentMode, SettleSpans, Trust};
pub use self::consume::{Consumer, Incoming, ProcessOutput, Processing, Receiving, Settling};
pub use self::current::Scope;
pub(crate) use self::current::{Baggage, CurrentBaggage, CurrentSpan, ProcessSpan};
pub(crate) use self::current::{ScopeState, publish_context};
pub(crate) use self::engine::Clock;
pub use self::instrumentation::Instrumentation;
pub use self::produce::{Outgoing, Producer, Sending};
pub(crate) use self::run_in::run_in;
