//! Zipkin as a place where telemetry leads.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::exporter::ZipkinExporter;
use crate::batches::Batches;
use crate::destination::Destination;
use crate::error::ExportError;
use crate::providers::Parts;
use crate::rejections::Rejections;
use crate::report::ShutdownReport;
use crate::runtime::Runtime;
use crate::tally::{Counted, Tally};

/// Sends the spans of all services of a program.
#[derive(Debug)]
pub(super) struct ZipkinDestination {
    endpoint: Uri,
    timeout: Duration,
    batches: Batches,
    runtime: Runtime,
    spans: Arc<Tally>,
}

impl ZipkinDestination {
    pub(super) fn new(endpoint: Uri, timeout: Duration, batches: Batches) -> Result<Self, ExportError> {
        let spans = Tally::new("spans", endpoint.to_string());
        let destination = Self { endpoint, timeout, batches, runtime: Runtime::start()?, spans };
        destination.exporter()?;
        Ok(destination)
    }

    fn exporter(&self) -> Result<ZipkinExporter, ExportError> {
        ZipkinExporter::new(&self.runtime, self.endpoint.clone(), self.timeout)
    }
}

impl Destination for ZipkinDestination {
    fn attach(&self, mut service: Parts) -> Parts {
        // What made one at the start makes another one for a further service of the program.
        let Ok(exporter) = self.exporter() else { return service };
        let exporter = Counted::exporter(exporter, &self.spans, Rejections::default());
        let processor = self.batches.span_processor(exporter, &self.spans);
        service.tracer = service.tracer.with_span_processor(processor);
        service
    }

    /// The providers have flushed everything already.
    fn flush(&self) -> Result<(), ExportError> {
        Ok(())
    }

    fn close(&self) -> ShutdownReport {
        ShutdownReport {
            exported_spans: self.spans.exported(),
            dropped_spans: self.spans.dropped(),
            unfinished_spans: self.spans.unfinished(),
            ..ShutdownReport::default()
        }
    }

    /// Nothing can be sent at once.
    fn abandon(&self) {}
}
