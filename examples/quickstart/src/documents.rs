//! The Rust blocks of the README and of the guides, as doc tests.

#[doc = include_str!("../../../README.md")]
struct Readme;

#[doc = include_str!("../../../docs/src/quickstart.md")]
struct Quickstart;

#[doc = include_str!("../../../docs/src/handlers.md")]
struct Handlers;

#[doc = include_str!("../../../docs/src/publishing.md")]
struct Publishing;

#[doc = include_str!("../../../docs/src/baggage.md")]
struct Baggage;

#[doc = include_str!("../../../docs/src/batches.md")]
struct Batches;

#[doc = include_str!("../../../docs/src/failures.md")]
struct Failures;

#[doc = include_str!("../../../docs/src/health.md")]
struct Health;

#[doc = include_str!("../../../docs/src/http.md")]
struct Http;

#[doc = include_str!("../../../docs/src/telemetry.md")]
struct Telemetry;

#[doc = include_str!("../../../docs/src/propagation.md")]
struct Propagation;

#[doc = include_str!("../../../docs/src/hostile-headers.md")]
struct HostileHeaders;

#[doc = include_str!("../../../docs/src/testing.md")]
struct Testing;

#[doc = include_str!("../../../docs/src/nats.md")]
struct Nats;

#[doc = include_str!("../../../docs/src/kafka.md")]
struct Kafka;

#[doc = include_str!("../../../docs/src/raw-clients.md")]
struct RawClients;

#[doc = include_str!("../../../docs/src/writing-an-adapter.md")]
struct WritingAnAdapter;

#[doc = include_str!("../../../docs/src/limits.md")]
struct Limits;

#[doc = include_str!("../../../docs/src/cost.md")]
struct Cost;
