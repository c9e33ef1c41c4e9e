//! From a plain `async fn` to something that handles deliveries: [`Handler`](crate::Handler), what it may return, and the
//! [`Route`](crate::Route) that adds
//! replies, middleware and limits to it.

mod arguments;
mod erased;
pub(crate) mod function;
pub(crate) mod route;

pub use self::arguments::Arguments;
pub(crate) use self::erased::ErasedHandler;
pub use self::function::{Async, Function};
pub(crate) use self::route::IntoRoute;
pub(crate) use self::route::RouteOptions;
pub(crate) use crate::codec::IntoOutcome;
