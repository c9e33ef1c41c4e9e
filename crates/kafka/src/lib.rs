//! Kafka for Throughline, on the client `rdkafka`.

mod error;
