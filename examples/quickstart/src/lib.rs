//! An order through three services, drawn as a waterfall.
//!
//! Run it with `cargo run -p quickstart`, or on a real server with `cargo run -p quickstart --features nats -- --broker nats`.
//! The client of a broker is built only with its feature: `nats`, `kafka`, `rabbit`.
//!
//! | file | holds |
//! | --- | --- |
//! | [`orders`] | what travels |
//! | [`handlers`] | what the services do |
//! | [`services`] | the three apps: handlers with their replies, retries and dead letter |
//! | [`memory`], `nats`, `kafka`, `rabbit` | what the services subscribe to: all that differs between the brokers |
//! | [`story`] | serves the apps, places the orders, waits for the end of each |

pub mod handlers;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;
pub mod orders;
#[cfg(feature = "rabbit")]
pub mod rabbit;
pub mod services;
pub mod story;
