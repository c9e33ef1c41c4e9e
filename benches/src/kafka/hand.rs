use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::future_producer::Delivery;

use super::clients::CLIENT;
use crate::hand::traceparent;

const PARTITIONS: [&str; 4] = ["0", "1", "2", "3"];
const GROUP: &str = "bench";

/// The spans of one topic, by hand.
pub(super) struct Spans {
    tracer: SdkTracer,
    send_name: &'static str,
    create_name: &'static str,
    process_name: &'static str,
    send: Vec<KeyValue>,
    create: Vec<KeyValue>,
    process: Vec<KeyValue>,
}

impl Spans {
    pub(super) fn new(provider: &SdkTracerProvider, topic: &'static str) -> Self {
        let mut process = attributes("process", "process", topic);
        process.push(KeyValue::new("messaging.consumer.group.name", GROUP));
        Self {
            tracer: provider.tracer("by hand"),
            send_name: format!("send {topic}").leak(),
            create_name: format!("create {topic}").leak(),
            process_name: format!("process {topic}").leak(),
            send: attributes("send", "send", topic),
            // The span of one message of a batch says nothing of the connection.
            create: attributes("create", "create", topic).into_iter().take(6).collect(),
            process,
        }
    }

    /// Starts the span of a publish and returns the headers that carry its context.
    pub(super) fn send(&self) -> (Span, OwnedHeaders) {
        let builder = SpanBuilder::from_name(self.send_name)
            .with_kind(SpanKind::Producer)
            .with_attributes(self.send.iter().cloned());
        let span = self.tracer.build_with_context(builder, &Context::current());
        let headers = headers_of(&span);
        (span, headers)
    }

    /// Makes the span of one message of a batch and returns the headers that carry its context, and the link to it.
    pub(super) fn create(&self) -> (OwnedHeaders, Link) {
        let builder = SpanBuilder::from_name(self.create_name)
            .with_kind(SpanKind::Producer)
            .with_attributes(self.create.iter().cloned());
        let mut span = self.tracer.build_with_context(builder, &Context::current());
        let headers = headers_of(&span);
        span.end();
        (headers, Link::new(span.span_context().clone(), Vec::new(), 0))
    }

    /// Starts the span of publishing a batch.
    pub(super) fn send_batch(&self, links: Vec<Link>) -> Span {
        let builder = SpanBuilder::from_name(self.send_name)
            .with_kind(SpanKind::Client)
            .with_attributes(with_count(&self.send, links.len()))
            .with_links(links);
        self.tracer.build_with_context(builder, &Context::current())
    }

    /// Starts the span of handling a message and returns its context.
    pub(super) fn process(&self, message: &BorrowedMessage<'_>) -> Context {
        let mut parent = Context::new();
        let mut attributes = Vec::with_capacity(self.process.len() + 2);
        attributes.extend_from_slice(&self.process);
        attributes.extend(place(message.partition(), message.offset()));
        let mut builder =
            SpanBuilder::from_name(self.process_name).with_kind(SpanKind::Consumer).with_attributes(attributes);
        if let Some(producer) = producer_of(message) {
            builder = builder.with_links(vec![Link::new(producer.clone(), Vec::new(), 0)]);
            parent = parent.with_remote_span_context(producer);
        }
        let span = self.tracer.build_with_context(builder, &parent);
        parent.with_span(span)
    }

    /// Starts the span of handling a batch of one partition and returns its context.
    pub(super) fn process_batch(&self, messages: &[BorrowedMessage<'_>]) -> Context {
        let mut attributes = with_count(&self.process, messages.len());
        attributes.extend(messages.first().map(|first| partition_attribute(first.partition())));
        let links = messages
            .iter()
            .filter_map(|message| Some(Link::new(producer_of(message)?, vec![offset_attribute(message.offset())], 0)));
        let builder = SpanBuilder::from_name(self.process_name)
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(links.collect());
        let parent = Context::new();
        let span = self.tracer.build_with_context(builder, &parent);
        parent.with_span(span)
    }
}

/// Ends the span of a publish with where the message was stored.
pub(super) fn end(mut span: Span, stored: &Delivery) {
    span.set_attributes(place(stored.partition, stored.offset));
    span.end();
}

fn headers_of(span: &Span) -> OwnedHeaders {
    let text = traceparent::text(span.span_context());
    let headers = OwnedHeaders::new();
    match &text {
        Some(text) => headers.insert(Header { key: traceparent::NAME, value: Some(text.as_bytes()) }),
        None => headers,
    }
}

fn producer_of(message: &BorrowedMessage<'_>) -> Option<SpanContext> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == traceparent::NAME)?;
    traceparent::parse(header.value?)
}

fn place(partition: i32, offset: i64) -> [KeyValue; 2] {
    [partition_attribute(partition), offset_attribute(offset)]
}

fn partition_attribute(partition: i32) -> KeyValue {
    // There are no more than four.
    let text = usize::try_from(partition).ok().and_then(|partition| PARTITIONS.get(partition)).unwrap_or(&"");
    KeyValue::new("messaging.destination.partition.id", *text)
}

fn offset_attribute(offset: i64) -> KeyValue {
    KeyValue::new("messaging.kafka.offset", offset)
}

fn with_count(attributes: &[KeyValue], messages: usize) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(attributes.len() + 2);
    all.extend_from_slice(attributes);
    all.push(KeyValue::new("messaging.batch.message_count", i64::try_from(messages).unwrap_or(i64::MAX)));
    all
}

/// The attributes of a span, those of a create span first.
fn attributes(verb: &'static str, operation: &'static str, topic: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", verb),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("server.address", "localhost"),
        KeyValue::new("server.port", 9092),
        KeyValue::new("messaging.destination.name", topic),
        KeyValue::new("messaging.client.id", CLIENT),
        KeyValue::new("messaging.kafka.cluster.id", "bench"),
    ]
}
