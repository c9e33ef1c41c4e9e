//! Sets up telemetry with one call: who is traced, and where spans, metrics and logs go.
//!
//! They go to the terminal, each trace as a waterfall and the metrics as a table at the end, over OTLP to a collector or a backend, to Zipkin,
//! and to a page that Prometheus reads.
//!
//! ```
//! use opentelemetry::global;
//! use opentelemetry::trace::Tracer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let telemetry = throughline_export::console().service_name("shop").start()?;
//!
//! global::tracer("shop").in_span("checkout", |_| ());
//!
//! let report = telemetry.shutdown().await?; // draws what is left, says what was dropped
//! assert_eq!((report.exported_spans, report.dropped_spans), (1, 0));
//! # Ok(())
//! # }
//! ```
//!
//! - [`console`] and [`from_env`] make a [`Setup`], and so does `otlp` with the feature of that name; [`Setup::and`] has several exporters
//!   beside each other.
//! - [`Setup::start`] installs the global providers, [`Setup::build`] leaves them alone.
//! - [`Telemetry`] holds the providers and shuts them down; [`Telemetry::service`] adds a second service to the same
//!   picture, for programs that play several.
//! - [`Providers`] are the tracer, meter and logger provider of one service.
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | `otlp` | OTLP over gRPC and over HTTP: `otlp-grpc` and `otlp-http` |
//! | `prometheus` | metrics on a page that Prometheus reads |
//! | `zipkin` | traces to Zipkin |
//! | `tls` | `https` for OTLP and Zipkin |
//! | `logging` | a subscriber of `tracing`: lines, log records and spans |
//!
//! # Environment
//!
//! Read once, when telemetry is set up; what the code says wins; an empty variable counts as unset.
//!
//! | variable | effect |
//! | --- | --- |
//! | `OTEL_SDK_DISABLED` | `true`: nothing is installed or exported |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | name and attributes of the service; values are not percent-decoded |
//! | `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER`, `OTEL_LOGS_EXPORTER` | what [`from_env`] exports to; `none` switches a signal off, whoever exports it |
//! | `OTEL_EXPORTER_OTLP_*`, `OTEL_BSP_*`, `OTEL_BLRP_*`, `OTEL_METRIC_EXPORT_*` | where and how OTLP is sent |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | which traces are recorded |
//! | `OTEL_ATTRIBUTE_COUNT_LIMIT`, `OTEL_SPAN_*_COUNT_LIMIT`, `OTEL_EVENT_*` and `OTEL_LINK_ATTRIBUTE_COUNT_LIMIT` | how much a span holds |
//! | `NO_COLOR`, `TERM=dumb`, `COLUMNS` | no colours; the width of the picture |
//!
//! A variable of the specification that has no effect here, such as `OTEL_CONFIG_FILE`, is a warning where it is set.

mod at_once;
mod baggage;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http", feature = "zipkin"))]
mod batches;
mod cardinality;
#[cfg(any(feature = "otlp-http", feature = "zipkin"))]
mod client;
mod console;
mod destination;
mod environment;
mod error;
mod from_env;
mod limits;
#[cfg(feature = "logging")]
mod logging;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http", feature = "zipkin"))]
mod one_line;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
mod otlp;
#[cfg(feature = "logging")]
mod places;
#[cfg(feature = "prometheus")]
mod prometheus;
mod providers;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http", feature = "zipkin"))]
mod rejections;
mod report;
mod resource;
#[cfg(any(feature = "otlp-grpc", feature = "zipkin"))]
mod retry;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http", feature = "zipkin", feature = "prometheus"))]
mod runtime;
mod setup;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http", feature = "zipkin"))]
mod tally;
mod telemetry;
#[cfg(feature = "tls")]
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http", feature = "zipkin"))]
mod tls;
mod unread;
#[cfg(feature = "zipkin")]
mod zipkin;

pub use self::console::{ColorChoice, Console, console};
pub use self::error::{ExportError, ExportErrorKind};
pub use self::from_env::{FromEnv, from_env};
#[cfg(feature = "logging")]
pub use self::logging::Logging;
#[cfg(any(feature = "otlp-grpc", feature = "otlp-http"))]
pub use self::otlp::{Otlp, Protocol, otlp};
#[cfg(feature = "prometheus")]
pub use self::prometheus::{Prometheus, prometheus};
pub use self::providers::Providers;
pub use self::report::ShutdownReport;
pub use self::setup::{Exporter, Setup};
pub use self::telemetry::Telemetry;
#[cfg(feature = "zipkin")]
pub use self::zipkin::{Zipkin, zipkin};
