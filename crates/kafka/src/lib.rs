//! Kafka for Throughline, on the client `rdkafka`.

mod broker;
mod carrier;
mod config;
mod consumer;
mod context;
mod destination;
mod error;
mod extract;
mod producer;
mod publisher;
mod raw_headers;
mod receipt;
mod record;
mod semconv;
mod subscriber;
mod subscription;
mod tombstone;
mod transaction;

pub use self::broker::Kafka;
pub use self::carrier::{HeaderExtractor, HeaderInjector, RecordHeaders};
pub use self::destination::TopicDestination;
pub use self::extract::{Key, Offset, Partition, Timestamp, TopicName};
pub use self::receipt::RecordMetadata;
pub use self::record::NativeRecord;
pub use self::subscription::{Assignment, Isolation, StartPosition, Topic};
pub use self::tombstone::Tombstone;
