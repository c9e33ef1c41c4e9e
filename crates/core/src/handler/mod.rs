//! From a plain `async fn` to something that handles deliveries: [`Handler`], what it may return, and the [`Route`] that adds
//! replies, middleware and limits to it.

mod erased;
mod failure_rule;
mod function;
mod into_outcome;
mod route;

pub(crate) use self::erased::ErasedHandler;
pub(crate) use self::failure_rule::{Attempts, decide, panicked};
pub use self::function::Handler;
pub use self::into_outcome::IntoOutcome;
pub(crate) use self::route::RouteOptions;
pub use self::route::{IntoRoute, Route};
