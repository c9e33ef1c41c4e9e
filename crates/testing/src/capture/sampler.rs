//! A sampler that remembers what it was shown.

use std::sync::{Arc, Mutex};

use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

use super::lock::lock;

/// What a sampler was shown for one span, and what it decided.
///
/// # Examples
///
/// ```
/// use opentelemetry::trace::{Tracer, TracerProvider};
/// use opentelemetry_sdk::trace::SamplingDecision;
///
/// let capture = throughline_testing::Capture::new();
/// capture.tracer_provider().tracer("shop").in_span("checkout", |_| ());
///
/// let call = &capture.sampled()[0];
/// assert_eq!(call.decision, SamplingDecision::RecordAndSample);
/// assert!(!call.parent.is_valid());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SamplerCall {
    /// The name of the span about to start.
    pub name: String,
    /// The kind of the span about to start.
    pub kind: SpanKind,
    /// The trace the span will belong to.
    pub trace_id: TraceId,
    /// The parent of the span; invalid for a root.
    pub parent: SpanContext,
    /// The attributes given at creation.
    pub attributes: Vec<KeyValue>,
    /// The links given at creation.
    pub links: Vec<Link>,
    /// The decision of the wrapped sampler.
    pub decision: SamplingDecision,
}

impl SamplerCall {
    /// Returns the value of an attribute that was given at creation.
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        self.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| &attribute.value)
    }
}

/// The calls recorded so far. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct SamplerCalls {
    calls: Arc<Mutex<Vec<SamplerCall>>>,
}

impl SamplerCalls {
    pub(super) fn recorded(&self) -> Vec<SamplerCall> {
        lock(&self.calls).clone()
    }

    pub(super) fn clear(&self) {
        lock(&self.calls).clear();
    }
}

/// Asks another sampler and records the call.
#[derive(Clone, Debug)]
pub(super) struct RecordingSampler {
    inner: Box<dyn ShouldSample>,
    calls: SamplerCalls,
}

impl RecordingSampler {
    pub(super) fn new(inner: impl ShouldSample + 'static, calls: SamplerCalls) -> Self {
        Self { inner: Box::new(inner), calls }
    }
}

impl ShouldSample for RecordingSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let result = self.inner.should_sample(parent, trace_id, name, kind, attributes, links);
        lock(&self.calls.calls).push(SamplerCall {
            name: name.to_owned(),
            kind: kind.clone(),
            trace_id,
            parent: parent.map_or(SpanContext::NONE, |parent| parent.span().span_context().clone()),
            attributes: attributes.to_vec(),
            links: links.to_vec(),
            decision: result.decision.clone(),
        });
        result
    }
}
