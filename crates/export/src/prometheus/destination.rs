//! The page as a place where telemetry leads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::page::Page;
use crate::destination::Destination;
use crate::error::ExportError;
use crate::providers::Parts;
use crate::report::ShutdownReport;

/// Shows the metrics of the main service of a program.
#[derive(Debug)]
pub(super) struct PrometheusDestination {
    page: Mutex<Option<Page>>,
    has_service: AtomicBool,
}

impl PrometheusDestination {
    pub(super) fn new(page: Page) -> Self {
        tracing::info!(address = %page.address, "metrics are at /metrics");
        Self { page: Mutex::new(Some(page)), has_service: AtomicBool::new(false) }
    }

    fn remove_page(&self) {
        let page = self.page.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(page);
    }
}

impl Destination for PrometheusDestination {
    fn attach(&self, mut service: Parts) -> Parts {
        if self.has_service.swap(true, Ordering::AcqRel) {
            return service;
        }
        let page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(content) = page.as_ref().map(|page| &page.content) else { return service };
        // A page has one service, so nobody has set it.
        let _ = content.cardinality.set(service.cardinality.clone());
        match opentelemetry_prometheus::exporter().with_registry(content.registry.clone()).build() {
            Ok(reader) => service.meter = service.meter.with_reader(reader),
            Err(error) => tracing::warn!("metrics cannot be shown to Prometheus: {error}"),
        }
        service
    }

    /// There is nothing to send.
    fn flush(&self) -> Result<(), ExportError> {
        Ok(())
    }

    fn close(&self) -> ShutdownReport {
        self.remove_page();
        ShutdownReport::default()
    }

    fn abandon(&self) {
        self.remove_page();
    }
}
