//! Kafka for Throughline, on the client `rdkafka`.
//!
//! ```no_run
//! use std::time::SystemTime;
//!
//! use throughline_core::broker::Broker;
//! use throughline_kafka::{Kafka, RecordProperties, Tombstone};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let kafka = Kafka::connect("localhost:9092").await?;
//! let publisher = kafka.publisher();
//! publisher.publish("orders.placed", "{}").key("42").header("source", "web").await?;
//! let placed = RecordProperties::new().partition(3).timestamp(SystemTime::now());
//! publisher.publish("orders.placed", "{}").native(placed).await?;
//! publisher.publish("users", Tombstone).key("42").await?;
//! kafka.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A service that keeps its own client uses [`Instrumentation`] instead: the client's own calls, with the same telemetry.
//!
//! The message id travels as the header `message-id`, the correlation id as `correlation-id`, the content type as
//! `content-type`, the place of an answer as `reply-to`. Kafka knows no request that waits for its reply.
//!
//! # Errors
//!
//! `error.type` of what a broker refuses is the error's name in the Kafka protocol, such as `NOT_ENOUGH_REPLICAS` or
//! `MESSAGE_TOO_LARGE`; `UNKNOWN_TOPIC_OR_PARTITION` also where the client itself finds nothing in the metadata of the
//! brokers, and `INVALID_TOPIC_EXCEPTION` where the name of a topic is no name. What fails in the client is one of:
//! `all_brokers_down`, `assignment_lost`, `authentication_failed`, `auto_offset_reset`, `canceled`, `configuration`,
//! `fatal`, `fenced`, `gapless_guarantee`, `invalid_argument`, `invalid_different_record`, `invalid_state`,
//! `max_poll_exceeded`, `no_offset`, `panic`, `partition_lost`, `purged`, `queue_full`, `resolve`, `ssl`, `timeout`, `transport`,
//! `unsupported`,
//! `_OTHER`.
//!
//! # Features
//!
//! The client's own, passed on: `ssl` for TLS and SCRAM with the system's OpenSSL, `ssl-vendored` with its own, `sasl` for
//! Kerberos with the system's Cyrus SASL, `zstd` for that compression, `cmake` to build the C library with CMake. None is on
//! by default: a C compiler is enough.

mod admin;
mod alone;
mod broker;
mod carrier;
mod config;
mod connection;
mod consumer;
mod context;
mod copied_headers;
mod delivery;
mod destination;
mod error;
mod extract;
mod instrument;
mod lookup;
mod names;
mod outage;
mod outgoing;
mod producer;
mod properties;
mod publisher;
mod raw_headers;
mod receipt;
mod semconv;
mod subscriber;
mod subscription;
mod thread;
mod tombstone;
mod transaction;
mod waits_on;

pub use self::broker::Kafka;
pub use self::carrier::{HeaderExtractor, HeaderInjector, RecordHeaders};
pub use self::delivery::NativeRecord;
pub use self::extract::{Key, Offset, Partition, Timestamp, TopicName};
pub use self::instrument::{CallbackProducer, DeliveryFuture, Instrumentation, PendingDelivery, ProducerTelemetry};
pub use self::properties::RecordProperties;
pub use self::receipt::RecordMetadata;
pub use self::subscription::{Assignment, Isolation, NewTopic, StartPosition, Topic};
pub use self::tombstone::Tombstone;
