//! An order through three services on three brokers, as one trace.
//!
//! | service | takes | gives |
//! | --- | --- | --- |
//! | [`storefront`] | orders over HTTP | orders to Kafka, requests for prices to RabbitMQ |
//! | [`warehouse`] | orders from Kafka, requests for prices from RabbitMQ | a question to billing over HTTP, reservations to RabbitMQ |
//! | [`billing`] | reservations from RabbitMQ in batches, the question over HTTP | notices to NATS, which the storefront reads |
//!
//! What travels between them is in [`messages`]. Each service is a function that takes its connections, so it runs on the in-memory broker in
//! tests as it does on the real ones. [`demo`] shows them at work.

pub mod billing;
pub mod config;
pub mod demo;
pub mod http;
pub mod messages;
pub mod storefront;
pub mod warehouse;
