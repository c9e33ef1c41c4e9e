//! Running an app on a broker: receive, dispatch, settle, and shut down without losing a message.

mod alarm;
mod alongside;
mod batching;
mod checks;
mod destinations;
mod dispatch;
mod dropped;
pub(crate) mod error;
mod error_replies;
mod failed;
mod handling;
mod health;
mod lanes;
mod observer;
mod patience;
mod phase;
mod replies;
mod running;
pub(crate) mod service;
mod settle;
mod signals;
mod subscriptions;
mod work;
mod worker;

pub use self::alongside::StopSignal;
pub use self::health::{ConnectionHealth, Health, HealthState, SubscriptionHealth};
pub use self::running::Running;
pub use self::service::Serve;
