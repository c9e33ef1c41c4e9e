use std::sync::Arc;

use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use super::attributes::{Place, producer_metric_attributes, span_name, split_shared, system_attributes};
use super::instrumentation::{Engine, Instrumentation};
use super::metrics::with_operation_type;
use super::operation::{Clock, ErrorReport, Operation, Start};
use super::semconv::{
    MESSAGING_BATCH_MESSAGE_COUNT, MESSAGING_MESSAGE_BODY_SIZE, MESSAGING_MESSAGE_CONVERSATION_ID, MESSAGING_MESSAGE_ID,
};
use super::settings::OperationInfo;
use crate::broker::PublishError;
use crate::message::{CreationContext, OperationType, System, Target};
use crate::propagation::Carrier;

/// Is what the engine needs to know of one message on its way out, borrowed from wherever it lives.
pub struct Outgoing<'a> {
    /// The headers.
    pub headers: &'a mut dyn Carrier,
    /// `messaging.message.id`.
    pub id: Option<&'a str>,
    /// `messaging.message.conversation_id`.
    pub correlation_id: Option<&'a str>,
    /// The body's length in bytes.
    pub body_size: usize,
    /// Further attributes of this single message, such as a key.
    pub attributes: Vec<KeyValue>,
    /// Where the creation context comes from.
    pub creation: CreationContext,
}

impl<'a> Outgoing<'a> {
    /// Describes a message by its headers alone.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Headers, telemetry::Outgoing};
    /// let mut headers = Headers::new();
    /// assert!(Outgoing::new(&mut headers).id.is_none());
    /// ```
    #[must_use]
    pub fn new(headers: &'a mut dyn Carrier) -> Self {
        Self {
            headers,
            id: None,
            correlation_id: None,
            body_size: 0,
            attributes: Vec::new(),
            creation: CreationContext::New,
        }
    }
}

/// Is the telemetry of what is published on one connection: create and send.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use throughline_core::Headers;
/// use throughline_core::message::{Operations, System, Target};
/// use throughline_core::telemetry::{Instrumentation, Outgoing};
///
/// let producer = Instrumentation::from_globals().producer(Arc::new(System::new("nats", Operations::DEFAULT)));
/// let mut headers = Headers::new();
/// let sending = producer.send(&Target::new("orders"), Outgoing::new(&mut headers));
/// // … publish with these headers …
/// sending.finish(Vec::new(), None);
/// ```
#[derive(Clone)]
pub struct Producer {
    instrumentation: Instrumentation,
    system: Arc<System>,
}

impl Producer {
    pub(super) fn new(instrumentation: Instrumentation, system: Arc<System>) -> Self {
        Self { instrumentation, system }
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.instrumentation.engine
    }

    /// Starts sending one message under the current context: starts its send span and writes the context into its headers (SPAN-22).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::Headers;
    /// # use throughline_core::message::{Operations, System, Target};
    /// # use throughline_core::telemetry::{Instrumentation, Outgoing};
    /// # let producer = Instrumentation::from_globals().producer(Arc::new(System::new("nats", Operations::DEFAULT)));
    /// let mut headers = Headers::new();
    /// producer.send(&Target::new("orders"), Outgoing::new(&mut headers)).finish(Vec::new(), None);
    /// ```
    pub fn send(&self, target: &Target<'_>, message: Outgoing<'_>) -> Sending {
        self.send_under(&Context::current(), target, message)
    }

    /// Starts a request: as [`send`](Self::send), but it lasts until the reply is there (SPAN-36).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::Headers;
    /// # use throughline_core::message::{Operations, System, Target};
    /// # use throughline_core::telemetry::{Instrumentation, Outgoing};
    /// # let producer = Instrumentation::from_globals().producer(Arc::new(System::new("nats", Operations::DEFAULT)));
    /// let mut headers = Headers::new();
    /// producer.request(&Target::new("prices.get"), Outgoing::new(&mut headers)).finish(Vec::new(), None);
    /// ```
    pub fn request(&self, target: &Target<'_>, message: Outgoing<'_>) -> Sending {
        self.request_under(&Context::current(), target, message)
    }

    pub(crate) fn request_under(&self, parent: &Context, target: &Target<'_>, message: Outgoing<'_>) -> Sending {
        self.start_send(parent, target, message, self.system.operations().request)
    }

    pub(crate) fn send_under(&self, parent: &Context, target: &Target<'_>, message: Outgoing<'_>) -> Sending {
        self.start_send(parent, target, message, self.system.operations().send)
    }

    fn start_send(&self, parent: &Context, target: &Target<'_>, message: Outgoing<'_>, verb: &'static str) -> Sending {
        let clock = Clock::start();
        let supplied = self.supplied(&message);
        let place = place(target);
        let span = self.engine().has_sdk().then(|| {
            let mut attributes =
                self.target_attributes(OperationType::Send, verb, target, 4 + message.attributes.len());
            self.push_message(&message, &mut attributes);
            let (kind, links) = match &supplied {
                Some(context) => (SpanKind::Client, vec![Link::new(context.clone(), Vec::new(), 0)]),
                None => (SpanKind::Producer, Vec::new()),
            };
            self.start(OperationType::Send, verb, &place, kind, attributes, links, clock, parent)
        });
        let span = span.flatten();
        self.write_context(span.as_ref().unwrap_or(parent), parent, message, supplied);
        self.sending(span, clock, verb, &place, 1)
    }

    /// Starts sending a batch under the current context: a create span for each message and one send span (SPAN-23, -24, -26).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::Headers;
    /// # use throughline_core::message::{Operations, System, Target};
    /// # use throughline_core::telemetry::{Instrumentation, Outgoing};
    /// # let producer = Instrumentation::from_globals().producer(Arc::new(System::new("nats", Operations::DEFAULT)));
    /// let (mut one, mut two) = (Headers::new(), Headers::new());
    /// let messages = vec![Outgoing::new(&mut one), Outgoing::new(&mut two)];
    /// producer.send_batch(&Target::new("orders"), messages).finish_batch(2, &[]);
    /// ```
    pub fn send_batch(&self, target: &Target<'_>, messages: Vec<Outgoing<'_>>) -> Sending {
        self.send_batch_under(&Context::current(), target, messages)
    }

    pub(crate) fn send_batch_under(
        &self,
        parent: &Context,
        target: &Target<'_>,
        messages: Vec<Outgoing<'_>>,
    ) -> Sending {
        let clock = Clock::start();
        let place = place(target);
        let verb = self.system.operations().send;
        let count = messages.len();
        let create = self.engine().settings.create_spans;
        let mut own: Vec<Vec<KeyValue>> = messages.iter().map(|message| self.message_attributes(message)).collect();
        let shared = split_shared(&mut own);
        let mut links = Vec::new();
        let mut waiting = Vec::new();
        for (message, own) in messages.into_iter().zip(own) {
            let supplied = self.supplied(&message);
            if supplied.is_none() && !create {
                waiting.push(message);
                continue;
            }
            let context = if supplied.is_some() { None } else { self.create(parent, target, &place, &message) };
            let creation = context.as_ref().map(|context| context.span().span_context().clone()).or(supplied.clone());
            links.extend(creation.map(|creation| Link::new(creation, own, 0)));
            self.write_context(context.as_ref().unwrap_or(parent), parent, message, supplied);
        }
        let kind = if waiting.is_empty() { SpanKind::Client } else { SpanKind::Producer };
        let mut attributes = self.target_attributes(OperationType::Send, verb, target, 1 + shared.len());
        attributes.push(KeyValue::new(MESSAGING_BATCH_MESSAGE_COUNT, i64::try_from(count).unwrap_or(i64::MAX)));
        attributes.extend(shared);
        let span = self.start(OperationType::Send, verb, &place, kind, attributes, links, clock, parent);
        for message in waiting {
            self.write_context(span.as_ref().unwrap_or(parent), parent, message, None);
        }
        self.sending(span, clock, verb, &place, count)
    }

    /// Makes one message of a batch: its create span, ended at once (SPAN-01, LINK-11).
    fn create(
        &self,
        parent: &Context,
        target: &Target<'_>,
        place: &Place<'_>,
        message: &Outgoing<'_>,
    ) -> Option<Context> {
        let clock = Clock::start();
        let verb = self.system.operations().create;
        let mut attributes = self.target_attributes(OperationType::Create, verb, target, 4);
        self.push_message(message, &mut attributes);
        let span =
            self.start(OperationType::Create, verb, place, SpanKind::Producer, attributes, Vec::new(), clock, parent);
        self.operation(OperationType::Create, span.clone(), clock, verb, place).finish(Vec::new(), None);
        span
    }

    /// The creation context a message already has, from the caller or in its headers.
    fn supplied(&self, message: &Outgoing<'_>) -> Option<SpanContext> {
        let context = match &message.creation {
            CreationContext::New => return None,
            CreationContext::Given(context) => context.clone(),
            CreationContext::Kept => {
                let extractor = message.headers.as_extractor();
                let remote = self.engine().propagator.extract_with_context(&Context::new(), extractor);
                remote.span().span_context().clone()
            }
        };
        Some(context).filter(SpanContext::is_valid)
    }

    /// Writes the message's creation context, in place of whatever was there (PROP-04, -05), unless it is kept.
    fn write_context(&self, own: &Context, parent: &Context, message: Outgoing<'_>, supplied: Option<SpanContext>) {
        let kept = matches!(message.creation, CreationContext::Kept) && supplied.is_some();
        if kept {
            return;
        }
        let engine = self.engine();
        match supplied {
            Some(context) => engine.inject(&parent.with_remote_span_context(context), message.headers),
            None => engine.inject(own, message.headers),
        }
    }

    fn target_attributes(
        &self,
        operation: OperationType,
        verb: &'static str,
        target: &Target<'_>,
        room: usize,
    ) -> Vec<KeyValue> {
        let mut attributes = system_attributes(&self.system, operation, verb, 4 + target.attributes.len() + room);
        place(target).push(&mut attributes);
        attributes.extend_from_slice(&target.attributes);
        attributes
    }

    fn message_attributes(&self, message: &Outgoing<'_>) -> Vec<KeyValue> {
        let settings = &self.engine().settings;
        let mut attributes = Vec::new();
        if let Some(id) = message.id.filter(|_| settings.message_ids) {
            attributes.push(KeyValue::new(MESSAGING_MESSAGE_ID, id.to_owned()));
        }
        if let Some(id) = message.correlation_id.filter(|_| settings.conversation_ids) {
            attributes.push(KeyValue::new(MESSAGING_MESSAGE_CONVERSATION_ID, id.to_owned()));
        }
        attributes.extend_from_slice(&message.attributes);
        attributes
    }

    fn push_message(&self, message: &Outgoing<'_>, attributes: &mut Vec<KeyValue>) {
        attributes.extend(self.message_attributes(message));
        if self.engine().settings.body_sizes {
            let size = i64::try_from(message.body_size).unwrap_or(i64::MAX);
            attributes.push(KeyValue::new(MESSAGING_MESSAGE_BODY_SIZE, size));
        }
    }

    #[allow(clippy::too_many_arguments)] // one call for the create and send spans; a struct would only rename the arguments
    fn start(
        &self,
        operation: OperationType,
        verb: &'static str,
        place: &Place<'_>,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
        links: Vec<Link>,
        clock: Clock,
        parent: &Context,
    ) -> Option<Context> {
        let info = OperationInfo {
            operation_type: operation,
            operation_name: verb,
            system: self.system.name(),
            destination: place.name.unwrap_or_default(),
            template: place.template,
        };
        let name = span_name(verb, place);
        self.engine().start_span(Start { info, name, kind, attributes, links, clock }, parent)
    }

    fn sending(
        &self,
        span: Option<Context>,
        clock: Clock,
        verb: &'static str,
        place: &Place<'_>,
        messages: usize,
    ) -> Sending {
        let metric_attributes = producer_metric_attributes(&self.system, verb, place);
        let operation = self.operation(OperationType::Send, span, clock, verb, place);
        Sending { operation, metric_attributes, messages }
    }

    fn operation(
        &self,
        operation: OperationType,
        span: Option<Context>,
        clock: Clock,
        verb: &'static str,
        place: &Place<'_>,
    ) -> Operation {
        let attributes = producer_metric_attributes(&self.system, verb, place);
        Operation {
            engine: Arc::clone(self.engine()),
            operation,
            span,
            clock,
            metric_attributes: with_operation_type(&attributes, operation).into(),
            user_attributes: None,
            in_flight: false,
            finished: false,
        }
    }
}

fn place<'a>(target: &'a Target<'_>) -> Place<'a> {
    Place {
        name: Some(target.name.as_ref()),
        template: target.template.as_deref(),
        temporary: target.temporary,
        anonymous: target.anonymous,
    }
}

/// Is a publish that is under way; its span ends with the broker's confirmation (SPAN-35). Dropped without an end, it is recorded as cancelled.
#[must_use = "dropped at once, the publish is recorded as cancelled"]
pub struct Sending {
    operation: Operation,
    metric_attributes: Vec<KeyValue>,
    messages: usize,
}

impl Sending {
    /// Returns the context that holds the send span, under which the client's call is made.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::Headers;
    /// # use throughline_core::message::{Operations, System, Target};
    /// # use throughline_core::telemetry::{Instrumentation, Outgoing};
    /// # let producer = Instrumentation::from_globals().producer(Arc::new(System::new("nats", Operations::DEFAULT)));
    /// # let mut headers = Headers::new();
    /// let sending = producer.send(&Target::new("orders"), Outgoing::new(&mut headers));
    /// let context = sending.context();
    /// sending.finish(Vec::new(), None);
    /// # let _ = context;
    /// ```
    #[must_use]
    pub fn context(&self) -> Context {
        self.context_or(&Context::current())
    }

    pub(crate) fn context_or(&self, parent: &Context) -> Context {
        self.operation.span.as_ref().unwrap_or(parent).clone()
    }

    /// Ends the publish of one message; `late` are attributes that came with the broker's answer (ATTR-C-21).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::Headers;
    /// # use throughline_core::message::{Operations, System, Target};
    /// # use throughline_core::telemetry::{Instrumentation, Outgoing};
    /// # let producer = Instrumentation::from_globals().producer(Arc::new(System::new("nats", Operations::DEFAULT)));
    /// # let mut headers = Headers::new();
    /// producer.send(&Target::new("orders"), Outgoing::new(&mut headers)).finish(Vec::new(), None);
    /// ```
    pub fn finish(self, late: Vec<KeyValue>, error: Option<&PublishError>) {
        let report = error.map(ErrorReport::of_publish);
        let failed = report.as_ref().map(|report| report.error_type.as_ref());
        self.operation.engine.metrics.sent(self.messages, &self.metric_attributes, failed);
        self.operation.finish(late, report.as_ref());
    }

    /// Ends the publish of a batch; messages that failed are counted with their `error.type`, the others without (METR-13).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::Headers;
    /// # use throughline_core::message::{Operations, System, Target};
    /// # use throughline_core::telemetry::{Instrumentation, Outgoing};
    /// # let producer = Instrumentation::from_globals().producer(Arc::new(System::new("nats", Operations::DEFAULT)));
    /// # let mut headers = Headers::new();
    /// producer.send_batch(&Target::new("orders"), vec![Outgoing::new(&mut headers)]).finish_batch(1, &[]);
    /// ```
    pub fn finish_batch(self, total: usize, errors: &[&PublishError]) {
        let metrics = &self.operation.engine.metrics;
        metrics.sent(total.saturating_sub(errors.len()), &self.metric_attributes, None);
        for error in errors {
            metrics.sent(1, &self.metric_attributes, Some(error.error_type()));
        }
        let report = errors.first().map(|first| ErrorReport::of_publish(first));
        self.operation.finish(Vec::new(), report.as_ref());
    }
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending").field("messages", &self.messages).finish_non_exhaustive()
    }
}
