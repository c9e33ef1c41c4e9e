use std::borrow::Cow;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

use super::message::{Headers, Message};
use super::{baggage, traceparent};

/// How much of the conventions the hand-written spans keep to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effort {
    /// The same spans as ours: a link to the producer, and all attributes where the sampler sees them.
    Same,
    /// Less: no link, and attributes only once the span is known to record.
    Lean,
}

/// The spans of one destination's messages on their way out.
pub(super) struct ProducerSpans {
    tracer: SdkTracer,
    effort: Effort,
    name: Cow<'static, str>,
    create_name: Cow<'static, str>,
    attributes: Vec<KeyValue>,
    create_attributes: Vec<KeyValue>,
}

impl ProducerSpans {
    pub(super) fn new(provider: &SdkTracerProvider, destination: &'static str, effort: Effort) -> Self {
        Self {
            tracer: provider.tracer("by hand"),
            effort,
            name: name("publish", destination),
            create_name: name("create", destination),
            attributes: attributes("publish", "send", destination),
            // The span of one message of a batch says nothing of the connection.
            create_attributes: attributes("create", "create", destination).into_iter().take(6).collect(),
        }
    }

    /// Starts the span of a publish and writes its context.
    pub(super) fn start(&self, headers: &mut Headers) -> Span {
        let parent = Context::current();
        let builder = builder(self.name.clone(), SpanKind::Producer);
        let span = start(&self.tracer, builder, &self.attributes, self.effort, &parent);
        write(span.span_context(), &parent, headers);
        span
    }

    /// Makes the span of one message of a batch, writes its context, and returns the link to it.
    pub(super) fn create(&self, headers: &mut Headers) -> Link {
        let parent = Context::current();
        let builder = builder(self.create_name.clone(), SpanKind::Producer);
        let mut span = start(&self.tracer, builder, &self.create_attributes, self.effort, &parent);
        write(span.span_context(), &parent, headers);
        span.end();
        Link::new(span.span_context().clone(), Vec::new(), 0)
    }

    /// Starts the span of publishing a batch.
    pub(super) fn start_batch(&self, links: Vec<Link>) -> Span {
        let parent = Context::current();
        let attributes = with_count(&self.attributes, links.len());
        let builder = builder(self.name.clone(), SpanKind::Client).with_links(links).with_attributes(attributes);
        self.tracer.build_with_context(builder, &parent)
    }
}

/// The spans of one destination's messages on their way in.
pub(super) struct ConsumerSpans {
    tracer: SdkTracer,
    effort: Effort,
    name: Cow<'static, str>,
    attributes: Vec<KeyValue>,
}

impl ConsumerSpans {
    pub(super) fn new(provider: &SdkTracerProvider, destination: &'static str, effort: Effort) -> Self {
        Self {
            tracer: provider.tracer("by hand"),
            effort,
            name: name("process", destination),
            attributes: attributes("process", "process", destination),
        }
    }

    /// Starts the span of handling a message and returns its context, baggage included.
    pub(super) fn start(&self, headers: &Headers) -> Context {
        let producer = traceparent::read(headers);
        let mut parent = Context::new();
        let mut builder = builder(self.name.clone(), SpanKind::Consumer);
        if let Some(producer) = producer {
            if self.effort == Effort::Same {
                builder = builder.with_links(vec![Link::new(producer.clone(), Vec::new(), 0)]);
            }
            parent = parent.with_remote_span_context(producer);
        }
        parent = baggage::read(headers, parent);
        let span = start(&self.tracer, builder, &self.attributes, self.effort, &parent);
        parent.with_span(span)
    }

    /// Starts the span of handling a batch and returns its context.
    pub(super) fn start_batch(&self, messages: &[Message<Headers>]) -> Context {
        let producers = messages.iter().filter_map(|message| traceparent::read(&message.headers));
        let links: Vec<Link> = producers.map(|producer| Link::new(producer, Vec::new(), 0)).collect();
        let attributes = with_count(&self.attributes, messages.len());
        let builder = builder(self.name.clone(), SpanKind::Consumer).with_links(links).with_attributes(attributes);
        let parent = Context::new();
        let span = self.tracer.build_with_context(builder, &parent);
        parent.with_span(span)
    }
}

pub(super) fn end(mut span: Span) {
    span.end();
}

pub(super) fn end_of(context: &Context) {
    context.span().end();
}

fn start(tracer: &SdkTracer, builder: SpanBuilder, attributes: &[KeyValue], effort: Effort, parent: &Context) -> Span {
    match effort {
        Effort::Same => tracer.build_with_context(builder.with_attributes(attributes.iter().cloned()), parent),
        Effort::Lean => {
            let mut span = tracer.build_with_context(builder, parent);
            if span.is_recording() {
                span.set_attributes(attributes.iter().cloned());
            }
            span
        }
    }
}

fn builder(name: Cow<'static, str>, kind: SpanKind) -> SpanBuilder {
    SpanBuilder::from_name(name).with_kind(kind)
}

fn write(span: &SpanContext, context: &Context, headers: &mut Headers) {
    traceparent::write(span, headers);
    baggage::write(context, headers);
}

/// Static text where the service writes it itself: a clone of it is a copy of a pointer.
fn name(verb: &'static str, destination: &'static str) -> Cow<'static, str> {
    match (verb, destination) {
        ("publish", "orders.placed") => "publish orders.placed".into(),
        ("process", "orders.placed") => "process orders.placed".into(),
        ("create", "orders.placed") => "create orders.placed".into(),
        ("publish", "hop.one") => "publish hop.one".into(),
        ("process", "hop.one") => "process hop.one".into(),
        ("publish", "hop.two") => "publish hop.two".into(),
        ("process", "hop.two") => "process hop.two".into(),
        ("publish", "hop.three") => "publish hop.three".into(),
        ("process", "hop.three") => "process hop.three".into(),
        _ => format!("{verb} {destination}").into(),
    }
}

/// The eight attributes of a span, those of a create span first.
pub(super) fn attributes(verb: &'static str, operation: &'static str, destination: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "in_memory"),
        KeyValue::new("messaging.operation.name", verb),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("server.address", "localhost"),
        KeyValue::new("server.port", 4222),
        KeyValue::new("messaging.destination.name", destination),
        KeyValue::new("messaging.client.id", "bench"),
        KeyValue::new("network.transport", "pipe"),
    ]
}

fn with_count(attributes: &[KeyValue], messages: usize) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(attributes.len() + 1);
    all.extend_from_slice(attributes);
    all.push(KeyValue::new("messaging.batch.message_count", i64::try_from(messages).unwrap_or(i64::MAX)));
    all
}
