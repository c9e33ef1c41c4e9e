//! RabbitMQ for Throughline, on the client `lapin`.

mod address;
mod broker;
mod carrier;
mod connection;
mod consumer;
mod copy;
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
mod requests;
mod semconv;
mod size;
mod subscription;
#[cfg(test)]
mod testing;
mod topology;

pub use self::address::Addresses;
pub use self::broker::Rabbit;
pub use self::carrier::{ClientHeaders, HeaderExtractor, HeaderInjector};
pub use self::death::{Death, DeathEntry, DeathReason, FirstDeath};
pub use self::delivery::NativeMessage;
pub use self::destination::ToExchange;
pub use self::extract::{DeliveryTag, ExchangeName, Redelivered, RoutingKey};
pub use self::instrument::{ClientMessage, Instrumentation, PublisherConfirm, SubscriptionTelemetry};
pub use self::options::RabbitOptions;
pub use self::properties::Properties;
pub use self::publish::PublishFailure;
pub use self::subscription::{Exchange, Overflow, Queue, StreamOffset};
