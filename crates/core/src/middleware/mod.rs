//! Code around every delivery and every publish: the [`Middleware`] trait, its chain, and the provided ones, one file each.

pub(crate) mod chain;
mod concurrency;
mod dead_letter;
mod failure_rule;
mod filter;
mod forwarding;
mod retry;
mod retry_later;
pub(crate) mod retry_policy;
mod telemetry;
mod timeout;

pub(crate) use self::chain::Middleware;
pub(crate) use self::chain::{Endpoint, Outlet};
pub use self::chain::{Next, NextPublish};
pub use self::concurrency::ConcurrencyLimit;
pub use self::dead_letter::DeadLetter;
pub(crate) use self::failure_rule::{Attempts, PolicyInForce, decide, panic_failure, panicked};
pub use self::filter::Filter;
pub(crate) use self::forwarding::unpublishable;
pub use self::retry::Retry;
pub(crate) use self::retry_later::RetryLater;
pub(crate) use self::retry_policy::RetryPolicy;
pub use self::telemetry::TelemetryMiddleware;
pub(crate) use self::telemetry::{InnerTelemetry, Overrides, SendSpan, Settler, outgoing, process_with, target};
pub use self::timeout::Timeout;
