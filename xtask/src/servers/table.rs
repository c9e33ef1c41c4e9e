//! The table of brokers.

use super::broker::Broker;
use super::{kafka, nats, rabbit};

/// Every broker that the project's tests need.
///
/// # Examples
///
/// ```
/// use xtask::servers::BROKERS;
///
/// let names: Vec<_> = BROKERS.iter().map(|broker| broker.name).collect();
/// assert!(names.contains(&"nats"));
/// ```
pub const BROKERS: &[Broker] = &[nats::BROKER, kafka::BROKER, rabbit::BROKER];

/// The broker of this name.
///
/// # Examples
///
/// ```
/// assert!(xtask::servers::broker("nats").is_some());
/// assert!(xtask::servers::broker("carrier-pigeon").is_none());
/// ```
#[must_use]
pub fn broker(name: &str) -> Option<&'static Broker> {
    BROKERS.iter().find(|broker| broker.name == name)
}
