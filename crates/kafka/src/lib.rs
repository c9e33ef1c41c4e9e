//! Kafka for Throughline, on the client `rdkafka`.

mod carrier;
mod error;
mod extract;
mod instrument;
mod raw_headers;
mod record;
mod semconv;

pub use self::carrier::{HeaderExtractor, HeaderInjector, RecordHeaders};
pub use self::extract::{Key, Offset, Partition, Timestamp, TopicName};
pub use self::instrument::{CallbackProducer, DeliveryFuture, Instrumentation, PendingDelivery, ProducerTelemetry};
pub use self::record::NativeRecord;
