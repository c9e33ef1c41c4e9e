//! From a plain `async fn` to something that handles deliveries: [`Handler`], what it may return, and the [`Route`] that adds
//! replies, middleware and limits to it.

mod arguments;
mod erased;
mod function;
mod route;

pub use self::arguments::Arguments;
pub(crate) use self::erased::ErasedHandler;
pub use self::function::{Async, Function, Handler};
pub(crate) use self::route::RouteOptions;
pub use self::route::{IntoRoute, Route};
pub use crate::codec::IntoOutcome;
