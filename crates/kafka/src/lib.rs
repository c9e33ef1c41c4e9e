//! Kafka for Throughline, on the client `rdkafka`.
