use async_nats::HeaderMap;
use opentelemetry::trace::{Link, Span as _, SpanBuilder, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

use crate::hand::traceparent;

/// The spans of one subject, by hand.
pub(super) struct Spans {
    tracer: SdkTracer,
    send_name: &'static str,
    process_name: &'static str,
    send: Vec<KeyValue>,
    process: Vec<KeyValue>,
}

impl Spans {
    pub(super) fn new(provider: &SdkTracerProvider, subject: &'static str) -> Self {
        Self {
            tracer: provider.tracer("by hand"),
            send_name: Box::leak(format!("publish {subject}").into_boxed_str()),
            process_name: Box::leak(format!("process {subject}").into_boxed_str()),
            send: attributes("publish", "send", subject),
            process: attributes("process", "process", subject),
        }
    }

    /// Starts the span of a publish and returns the headers that carry its context.
    pub(super) fn send(&self) -> (Span, HeaderMap) {
        let builder = SpanBuilder::from_name(self.send_name)
            .with_kind(SpanKind::Producer)
            .with_attributes(self.send.iter().cloned());
        let span = self.tracer.build_with_context(builder, &Context::current());
        let mut headers = HeaderMap::new();
        if let Some(text) = traceparent::text(span.span_context()) {
            headers.insert(traceparent::NAME, text);
        }
        (span, headers)
    }

    /// Starts the span of handling a message and returns its context.
    pub(super) fn process(&self, headers: Option<&HeaderMap>) -> Context {
        let mut parent = Context::new();
        let mut builder = SpanBuilder::from_name(self.process_name)
            .with_kind(SpanKind::Consumer)
            .with_attributes(self.process.iter().cloned());
        let value = headers.and_then(|headers| headers.get(traceparent::NAME));
        if let Some(producer) = value.and_then(|value| traceparent::parse(value.as_str().as_bytes())) {
            builder = builder.with_links(vec![Link::new(producer.clone(), Vec::new(), 0)]);
            parent = parent.with_remote_span_context(producer);
        }
        let span = self.tracer.build_with_context(builder, &parent);
        parent.with_span(span)
    }
}

pub(super) fn end(mut span: Span) {
    span.end();
}

fn attributes(verb: &'static str, operation: &'static str, subject: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "nats"),
        KeyValue::new("messaging.operation.name", verb),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("server.address", "localhost"),
        KeyValue::new("server.port", 4222),
        KeyValue::new("messaging.client.id", "bench"),
        KeyValue::new("messaging.destination.name", subject),
        KeyValue::new("network.transport", "tcp"),
    ]
}
