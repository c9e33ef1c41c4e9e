//! OTLP as a place where telemetry leads.

use std::fmt;
use std::sync::Arc;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::PeriodicReader;

use super::Protocol;
use super::exporters::Exporters;
use super::measures::{Names, measure};
use super::settings::Settings;
use crate::cardinality::Watched;
use crate::destination::Destination;
use crate::environment::Signals;
use crate::error::ExportError;
use crate::providers::{Parts, Providers};
use crate::rejections::Rejections;
use crate::report::ShutdownReport;
use crate::runtime::Runtime;
use crate::tally::{Counted, Tally};

/// Sends what all services of a program tell.
pub(super) struct OtlpDestination {
    exporters: Exporters,
    signals: Signals,
    spans: Arc<Tally>,
    metrics: Arc<Tally>,
    logs: Arc<Tally>,
}

/// Makes the exporter of a signal and does something with it: those over gRPC and over HTTP have no common type.
macro_rules! exporter {
    ($exporters:expr, $sending:ident, $http:ident, $rejections:expr, $($arms:tt)*) => {
        match $exporters.settings.$sending.protocol {
            #[cfg(feature = "otlp-grpc")]
            Protocol::Grpc => match $exporters.over_grpc(&$exporters.settings.$sending, $rejections) { $($arms)* },
            #[cfg(feature = "otlp-http")]
            Protocol::HttpProtobuf | Protocol::HttpJson => match $exporters.$http($rejections) { $($arms)* },
        }
    };
}

impl OtlpDestination {
    /// Fails where the settings do not make exporters.
    pub(super) fn new(settings: Settings, signals: Signals) -> Result<Self, ExportError> {
        let tally = |items, endpoint: &str| Tally::new(items, endpoint.to_owned());
        let spans = tally("spans", &settings.traces.endpoint);
        let metrics = tally("metrics", &settings.metrics.endpoint);
        let logs = tally("log records", &settings.logs.endpoint);
        let destination =
            Self { exporters: Exporters { settings, runtime: Runtime::start()? }, signals, spans, metrics, logs };
        let unread = Rejections::default();
        exporter!(destination.exporters, traces, spans, &unread, Ok(_) => {}, Err(error) => return Err(error));
        exporter!(destination.exporters, metrics, metrics, &unread, Ok(_) => {}, Err(error) => return Err(error));
        exporter!(destination.exporters, logs, logs, &unread, Ok(_) => {}, Err(error) => return Err(error));
        Ok(destination)
    }
}

impl Destination for OtlpDestination {
    fn attach(&self, mut service: Parts) -> Parts {
        // What made exporters at the start makes them again for a further service of the program.
        if self.signals.traces {
            let (rejections, batches) = (Rejections::default(), self.exporters.settings.span_batches);
            exporter!(self.exporters, traces, spans, &rejections, Err(_) => {}, Ok(exporter) => {
                let exporter = Counted::exporter(exporter, &self.spans, rejections);
                service.tracer = service.tracer.with_span_processor(batches.span_processor(exporter, &self.spans));
            });
        }
        if self.signals.metrics {
            let rejections = Rejections::default();
            exporter!(self.exporters, metrics, metrics, &rejections, Err(_) => {}, Ok(exporter) => {
                let exporter = Counted::exporter(exporter, &self.metrics, rejections);
                let reader = PeriodicReader::builder(Watched::new(exporter, &service.cardinality));
                let reader = reader.with_interval(self.exporters.settings.metric_interval).build();
                service.meter = service.meter.with_reader(reader);
            });
        }
        if self.signals.logs {
            let (rejections, batches) = (Rejections::default(), self.exporters.settings.log_batches);
            exporter!(self.exporters, logs, logs, &rejections, Err(_) => {}, Ok(exporter) => {
                let exporter = Counted::exporter(exporter, &self.logs, rejections);
                service.logger = service.logger.with_log_processor(batches.log_processor(exporter, &self.logs));
            });
        }
        service
    }

    fn watch(&self, service: &Providers) {
        if !self.signals.metrics {
            return;
        }
        let (meter, settings) = (service.meter_provider().meter("throughline-export"), &self.exporters.settings);
        if self.signals.traces {
            measure(&meter, &self.spans, &Names::new("span", "{span}", &settings.traces));
        }
        if self.signals.logs {
            measure(&meter, &self.logs, &Names::new("log", "{log_record}", &settings.logs));
        }
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
            exported_logs: self.logs.exported(),
            dropped_logs: self.logs.dropped(),
            metric_exports: self.metrics.exported(),
            failed_metric_exports: self.metrics.dropped(),
        }
    }

    /// Nothing can be sent at once.
    fn abandon(&self) {}
}

impl fmt::Debug for OtlpDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpDestination")
            .field("traces", &self.exporters.settings.traces.endpoint)
            .field("signals", &self.signals)
            .finish_non_exhaustive()
    }
}
