//! OTLP as a place where telemetry leads.

use std::fmt;
use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_otlp::{LogExporter, SpanExporter};
use opentelemetry_sdk::logs::BatchLogProcessor;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::trace::BatchSpanProcessor;

use super::exporters::Exporters;
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
        destination.exporters.spans(&unread)?;
        destination.exporters.metrics(&unread)?;
        destination.exporters.logs(&unread)?;
        Ok(destination)
    }
}

impl Destination for OtlpDestination {
    fn attach(&self, mut service: Parts) -> Parts {
        // What made exporters at the start makes them again for a further service of the program.
        let [spans, metrics, logs] = [(); 3].map(|()| Rejections::default());
        if let (true, Ok(exporter)) = (self.signals.traces, self.exporters.spans(&spans)) {
            let exporter = Counted::exporter(exporter, &self.spans, spans);
            service.tracer = service.tracer.with_span_processor(self.span_processor(exporter));
        }
        if let (true, Ok(exporter)) = (self.signals.metrics, self.exporters.metrics(&metrics)) {
            let exporter = Watched::new(Counted::exporter(exporter, &self.metrics, metrics), &service.cardinality);
            let reader = PeriodicReader::builder(exporter).with_interval(self.exporters.settings.metric_interval);
            service.meter = service.meter.with_reader(reader.build());
        }
        if let (true, Ok(exporter)) = (self.signals.logs, self.exporters.logs(&logs)) {
            let exporter = Counted::exporter(exporter, &self.logs, logs);
            service.logger = service.logger.with_log_processor(self.log_processor(exporter));
        }
        service
    }

    // The names are those of the conventions for what an SDK says of itself.
    fn watch(&self, service: &Providers) {
        if !self.signals.metrics {
            return;
        }
        let meter = service.meter_provider().meter("throughline-export");
        let spans = self.signals.traces.then_some((&self.spans, "span", "{span}"));
        let logs = self.signals.logs.then_some((&self.logs, "log", "{log_record}"));
        for (tally, signal, unit) in spans.into_iter().chain(logs) {
            let exported = tally.clone();
            let _ = meter
                .u64_observable_counter(format!("otel.sdk.exporter.{signal}.exported"))
                .with_unit(unit)
                .with_description("What was delivered, and with an error type what could not be delivered.")
                .with_callback(move |observer| {
                    observer.observe(exported.exported(), &[]);
                    observer.observe(exported.failed(), &[KeyValue::new("error.type", "_OTHER")]);
                })
                .build();
            let refused = tally.clone();
            let _ = meter
                .u64_observable_counter(format!("otel.sdk.processor.{signal}.processed"))
                .with_unit(unit)
                .with_description("What there was no room for.")
                .with_callback(move |observer| {
                    observer.observe(refused.refused(), &[KeyValue::new("error.type", "queue_full")]);
                })
                .build();
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

impl OtlpDestination {
    fn span_processor(&self, exporter: Counted<SpanExporter>) -> Counted<BatchSpanProcessor> {
        let batches = self.exporters.settings.span_batches;
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches.for_spans()).build();
        Counted::processor(processor, &self.spans, batches.room)
    }

    fn log_processor(&self, exporter: Counted<LogExporter>) -> Counted<BatchLogProcessor> {
        let batches = self.exporters.settings.log_batches;
        let processor = BatchLogProcessor::builder(exporter).with_batch_config(batches.for_logs()).build();
        Counted::processor(processor, &self.logs, batches.room)
    }
}

impl fmt::Debug for OtlpDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpDestination")
            .field("traces", &self.exporters.settings.traces.endpoint)
            .field("signals", &self.signals)
            .finish_non_exhaustive()
    }
}
