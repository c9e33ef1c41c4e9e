//! Receives measurements.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;

use super::collector::Collector;
use super::processor::service_name;
use super::series::rows_of;

/// Feeds the measurements of one service to the collector.
#[derive(Debug)]
pub(super) struct ConsoleMetrics {
    collector: Arc<Collector>,
}

impl ConsoleMetrics {
    pub(super) fn new(collector: Arc<Collector>) -> Self {
        Self { collector }
    }
}

impl PushMetricExporter for ConsoleMetrics {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.collector.measured(service_name(metrics.resource()), rows_of(metrics));
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    /// Everything since the start, so that the last collection says it all.
    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}
