//! The contract of an adapter: what a broker must offer so that everything above works on it.
//!
//! An adapter implements [`Broker`], [`Subscriber`], [`Publish`] and, where messages are acknowledged, [`Settle`].
//! `throughline-memory` is the reference; the conformance suite of `throughline-testing` says what must hold.

mod contract;
pub(crate) mod error;
mod error_reply;
mod future;
mod header_names;
mod observe;
mod outbound;
mod publish;
mod reception;
mod retry;
mod routes;
mod seldom;
mod state;
mod subscription;

pub use self::contract::{BatchSettled, Broker, Received, Settle, Subscriber};
pub(crate) use self::error::{BrokerError, PublishError};
pub use self::error::{BrokerErrorKind, PublishErrorKind};
pub use self::error_reply::{ErrorReply, ErrorReplyHeaders};
pub use self::future::{BoxFuture, done};
pub use self::header_names::HeaderNames;
pub use self::observe::Observe;
pub use self::outbound::{Existence, Outbound, OutboundUse};
pub use self::publish::Publish;
pub use self::reception::Reception;
pub use self::retry::{RETRY_ATTEMPT, RETRY_DUE, RETRY_ERROR, RetryPlace, RetryRoute};
pub(crate) use self::routes::RouteOfApp;
pub use self::routes::Routes;
pub use self::seldom::Seldom;
pub use self::state::ConnectionState;
pub use self::subscription::{BatchPolicy, Subscription};
pub use crate::message::pattern::{Pattern, Wildcards};
