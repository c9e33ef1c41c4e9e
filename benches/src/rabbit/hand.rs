use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

use crate::hand::traceparent;

/// `messaging.client.id` of all programs.
pub(super) const CLIENT: &str = "bench";

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The spans of one queue, by hand.
pub(super) struct Spans {
    tracer: SdkTracer,
    send_name: &'static str,
    process_name: &'static str,
    send: Vec<KeyValue>,
    process: Vec<KeyValue>,
}

impl Spans {
    pub(super) fn new(provider: &SdkTracerProvider, queue: &'static str) -> Self {
        Self {
            tracer: provider.tracer("by hand"),
            send_name: format!("publish {queue}").leak(),
            process_name: format!("process {queue}").leak(),
            send: attributes("publish", "send", queue),
            process: attributes("process", "process", queue),
        }
    }

    /// Starts the span of a publish and returns the headers that carry its context.
    pub(super) fn send(&self) -> (Span, FieldTable) {
        let builder = SpanBuilder::from_name(self.send_name)
            .with_kind(SpanKind::Producer)
            .with_attributes(self.send.iter().cloned());
        let span = self.tracer.build_with_context(builder, &Context::current());
        let headers = traceparent::text(span.span_context()).map_or_else(FieldTable::default, |text| headers(&text));
        (span, headers)
    }

    /// Starts the span of handling a message and returns its context.
    pub(super) fn process(&self, message: &Delivery) -> Context {
        let mut parent = Context::new();
        let mut attributes = Vec::with_capacity(self.process.len() + 1);
        attributes.extend_from_slice(&self.process);
        let tag = i64::try_from(message.delivery_tag).unwrap_or(i64::MAX);
        attributes.push(KeyValue::new("messaging.rabbitmq.message.delivery_tag", tag));
        let mut builder =
            SpanBuilder::from_name(self.process_name).with_kind(SpanKind::Consumer).with_attributes(attributes);
        if let Some(producer) = producer_of(message) {
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

/// The headers of a message whose publisher has a span.
pub(super) fn sampled() -> FieldTable {
    headers(TRACEPARENT)
}

fn headers(traceparent: &str) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(traceparent::NAME.into(), AMQPValue::LongString(traceparent.into()));
    headers
}

fn producer_of(message: &Delivery) -> Option<SpanContext> {
    match message.properties.headers().as_ref()?.inner().get(traceparent::NAME)? {
        AMQPValue::LongString(value) => traceparent::parse(value.as_bytes()),
        _ => None,
    }
}

fn attributes(verb: &'static str, operation: &'static str, queue: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "rabbitmq"),
        KeyValue::new("messaging.operation.name", verb),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("server.address", "localhost"),
        KeyValue::new("server.port", 5672),
        KeyValue::new("messaging.client.id", CLIENT),
        KeyValue::new("messaging.destination.name", queue),
        KeyValue::new("messaging.rabbitmq.destination.routing_key", queue),
    ]
}
