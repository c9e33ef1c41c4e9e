//! The console as a place where telemetry leads.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::metrics::PeriodicReader;
use throughline_waterfall::Screen;

use super::collector::Collector;
use super::logs::ConsoleLogs;
use super::metrics::ConsoleMetrics;
use super::processor::{ConsoleSpans, service_name};
use crate::cardinality::Watched;
use crate::destination::Destination;
use crate::environment::Signals;
use crate::error::ExportError;
use crate::providers::Parts;
use crate::report::ShutdownReport;

/// The collecting period of the metric readers: never, because drawing the metrics collects them.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Draws what all services of a program tell.
#[derive(Debug)]
pub(super) struct ConsoleDestination {
    collector: Arc<Collector>,
    signals: Signals,
}

impl ConsoleDestination {
    pub(super) fn new(screen: Screen, quiet: Duration, signals: Signals) -> Self {
        Self { collector: Collector::new(screen, quiet), signals }
    }
}

impl Destination for ConsoleDestination {
    fn attach(&self, mut service: Parts) -> Parts {
        // The first service takes the first colour, whoever emits first.
        self.collector.screen.introduce(&service_name(&service.resource));
        if self.signals.traces {
            service.tracer = service.tracer.with_span_processor(ConsoleSpans::new(self.collector.clone()));
        }
        if self.signals.metrics {
            let exporter = Watched::new(ConsoleMetrics::new(self.collector.clone()), &service.cardinality);
            service.meter = service.meter.with_reader(PeriodicReader::builder(exporter).with_interval(NEVER).build());
        }
        if self.signals.logs {
            service.logger = service.logger.with_log_processor(ConsoleLogs::new(self.collector.clone()));
        }
        service
    }

    /// Draws everything and says whether the console could be written.
    fn flush(&self) -> Result<(), ExportError> {
        self.collector.draw_all();
        self.collector.draw_metrics()
    }

    /// Stops drawing by itself.
    fn close(&self) -> ShutdownReport {
        self.collector.close()
    }

    /// Draws all traces that have finished spans, quiet or not.
    fn abandon(&self) {
        self.collector.draw_all();
    }
}
