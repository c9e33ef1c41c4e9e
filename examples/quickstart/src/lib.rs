//! An order through three services, drawn as a waterfall.
//!
//! Run it with `cargo run -p quickstart`, or on a real server with `cargo run -p quickstart -- --broker nats`
//! or `-- --broker kafka`.
//!
//! | file | holds |
//! | --- | --- |
//! | [`orders`] | what travels |
//! | [`handlers`] | what the services do |
//! | [`services`] | the three apps: handlers with their replies, retries and dead letter |
//! | [`memory`], [`nats`], [`kafka`] | what the services subscribe to: all that differs between the brokers |
//! | [`story`] | serves the apps, places the orders, waits for the end of each |

pub mod handlers;
pub mod kafka;
pub mod memory;
pub mod nats;
pub mod orders;
pub mod services;
pub mod story;

#[cfg(doctest)]
mod documents;
