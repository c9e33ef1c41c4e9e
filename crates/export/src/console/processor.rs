//! Receives spans as they start and end.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::Span as _;
use opentelemetry::{Context, Key};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use throughline_waterfall::clean;

use super::collector::Collector;

/// Feeds the spans of one service to the collector.
///
/// A processor, not an exporter: only a processor is shown the context a span starts in, and with it the baggage.
#[derive(Debug)]
pub(super) struct ConsoleSpans {
    collector: Arc<Collector>,
    service: Arc<str>,
}

impl ConsoleSpans {
    pub(super) fn new(collector: Arc<Collector>) -> Self {
        Self { collector, service: Arc::from("") }
    }
}

impl SpanProcessor for ConsoleSpans {
    fn on_start(&self, span: &mut Span, context: &Context) {
        let baggage = context.baggage().iter();
        let baggage = baggage.map(|(key, (value, _))| (key.to_string(), value.to_string())).collect();
        self.collector.started(span.span_context(), baggage);
    }

    fn on_end(&self, span: SpanData) {
        self.collector.ended(self.service.clone(), span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.collector.draw_all();
        Ok(())
    }

    /// Draws nothing: another service may still be at work on the same traces.
    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.service = service_name(resource);
    }
}

/// The name under which a service is drawn.
pub(super) fn service_name(resource: &Resource) -> Arc<str> {
    let name = resource.get_ref(&Key::from_static_str("service.name")).map(|name| name.as_str().into_owned());
    Arc::from(clean(name.as_deref().unwrap_or("unknown_service")))
}
