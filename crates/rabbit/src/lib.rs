//! RabbitMQ for Throughline, on the client `lapin`.

mod carrier;
mod connection;
mod consumer;
mod death;
mod delivery;
mod destination;
mod error;
mod extract;
mod instrument;
mod link;
mod names;
mod options;
mod properties;
mod publish;
mod semconv;
mod subscription;
mod topology;
