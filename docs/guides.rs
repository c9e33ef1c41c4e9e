//! The Rust blocks of the README and of the guides, as doc tests.

#[doc = include_str!("../README.md")]
struct Readme;

#[doc = include_str!("src/introduction.md")]
struct Introduction;

#[doc = include_str!("src/first-service.md")]
struct FirstService;

#[doc = include_str!("src/quickstart.md")]
struct Quickstart;

#[doc = include_str!("src/five-minutes.md")]
struct FiveMinutes;

#[doc = include_str!("src/handlers.md")]
struct Handlers;

#[doc = include_str!("src/publishing.md")]
struct Publishing;

#[doc = include_str!("src/baggage.md")]
struct Baggage;

#[doc = include_str!("src/batches.md")]
struct Batches;

#[doc = include_str!("src/failures.md")]
struct Failures;

#[doc = include_str!("src/export.md")]
struct Export;

#[doc = include_str!("src/collector.md")]
struct Collector;

#[doc = include_str!("src/jaeger.md")]
struct Jaeger;

#[doc = include_str!("src/tempo.md")]
struct Tempo;

#[doc = include_str!("src/zipkin.md")]
struct Zipkin;

#[doc = include_str!("src/prometheus.md")]
struct Prometheus;

#[doc = include_str!("src/grafana.md")]
struct Grafana;

#[doc = include_str!("src/health.md")]
struct Health;

#[doc = include_str!("src/http.md")]
struct Http;

#[doc = include_str!("src/telemetry.md")]
struct Telemetry;

#[doc = include_str!("src/propagation.md")]
struct Propagation;

#[doc = include_str!("src/hostile-headers.md")]
struct HostileHeaders;

#[doc = include_str!("src/testing.md")]
struct Testing;

#[doc = include_str!("src/nats.md")]
struct Nats;

#[doc = include_str!("src/kafka.md")]
struct Kafka;

#[doc = include_str!("src/rabbit.md")]
struct Rabbit;

#[doc = include_str!("src/raw-clients.md")]
struct RawClients;

#[doc = include_str!("src/from-faststream.md")]
struct FromFastStream;

#[doc = include_str!("src/from-raw-clients.md")]
struct FromRawClients;

#[doc = include_str!("src/writing-an-adapter.md")]
struct WritingAnAdapter;

#[doc = include_str!("src/limits.md")]
struct Limits;

#[doc = include_str!("src/interop.md")]
struct Interop;

#[doc = include_str!("src/header-contract.md")]
struct HeaderContract;

#[doc = include_str!("src/cost.md")]
struct Cost;

#[doc = include_str!("../crates/memory/README.md")]
struct MemoryPackage;

#[doc = include_str!("../crates/nats/README.md")]
struct NatsPackage;

#[doc = include_str!("../crates/kafka/README.md")]
struct KafkaPackage;

#[doc = include_str!("../crates/rabbit/README.md")]
struct RabbitPackage;

#[doc = include_str!("../crates/export/README.md")]
struct ExportPackage;

#[doc = include_str!("../crates/testing/README.md")]
struct TestingPackage;
