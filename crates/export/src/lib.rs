//! Sets up telemetry with one call: who is traced, and where spans, metrics and logs go.
//!
//! In this version they go to the terminal: each trace as a waterfall, the metrics as a table at the end.
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
//! - [`console`] configures, [`Console::start`] installs the global providers, [`Console::build`] leaves them alone.
//! - [`Telemetry`] holds the providers and shuts them down; [`Telemetry::service`] adds a second service to the same
//!   picture, for programs that play several.
//! - [`Providers`] are the tracer, meter and logger provider of one service.
//!
//! # Environment
//!
//! Read once, when telemetry is set up; what the code says wins; an empty variable counts as unset.
//!
//! | variable | effect |
//! | --- | --- |
//! | `OTEL_SDK_DISABLED` | `true`: nothing is installed or drawn |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | name and attributes of the service; values are not percent-decoded |
//! | `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER`, `OTEL_LOGS_EXPORTER` | `console` (the default here) or `none`; a known exporter that is not built in is an error |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`, `OTEL_SPAN_*_COUNT_LIMIT` | read by the SDK |
//! | `NO_COLOR`, `TERM=dumb`, `COLUMNS` | no colours; the width of the picture |

mod console;
mod destination;
mod environment;
mod error;
mod providers;
mod report;
mod telemetry;

pub use self::console::{ColorChoice, Console, console};
pub use self::error::{ExportError, ExportErrorKind};
pub use self::providers::Providers;
pub use self::report::ShutdownReport;
pub use self::telemetry::Telemetry;
