//! The seam between the providers of a program and where they lead.

use std::fmt;

use crate::error::ExportError;
use crate::providers::{Parts, Providers};
use crate::report::ShutdownReport;

/// A place where the telemetry of a program leads, such as the console. All services of the program feed it, and a program may have
/// several beside each other.
///
/// Providers are flushed and shut down by [`Telemetry`](crate::Telemetry), before it asks the destination for the rest.
pub(crate) trait Destination: fmt::Debug + Send + Sync {
    /// Adds to the providers of a service what brings their telemetry here: a span processor, a metric reader, a log processor.
    fn attach(&self, service: Parts) -> Parts;

    /// Measures itself with the meters of the main service.
    fn watch(&self, _service: &Providers) {}

    /// Brings what it holds to its end, and says whether that worked. Blocks.
    fn flush(&self) -> Result<(), ExportError>;

    /// Ends, after the last flush, and says what became of the spans.
    fn close(&self) -> ShutdownReport;

    /// Saves what can be saved at once, where a program ends without a shutdown.
    fn abandon(&self);
}
