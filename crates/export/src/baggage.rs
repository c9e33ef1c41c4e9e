//! Copies baggage to spans.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::Span as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

/// The longest value that is copied, in characters.
const LONGEST: usize = 1024;

/// Puts the baggage entries of some keys on each span that starts, as attributes.
#[derive(Debug)]
pub(crate) struct BaggageAttributes(pub(crate) Arc<[String]>);

impl SpanProcessor for BaggageAttributes {
    fn on_start(&self, span: &mut Span, context: &Context) {
        let baggage = context.baggage();
        for key in self.0.iter() {
            if let Some(value) = baggage.get(key.as_str()) {
                let value: String = value.as_str().chars().take(LONGEST).collect();
                span.set_attribute(KeyValue::new(key.clone(), value));
            }
        }
    }

    fn on_end(&self, _span: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
