use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use opentelemetry::baggage::{Baggage as OtelBaggage, BaggageExt};
use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};

use super::attributes::{Place, consumer_metric_attributes, source_attributes, span_name, split_shared};
use super::incoming::Incoming;
use super::instrumentation::{Engine, Instrumentation};
use super::metrics::with_operation_type;
use super::operation::{Clock, ErrorReport, Operation, Start};
use super::pending::{Receiving, Settling};
use super::processing::Processing;
use super::scope::{Scope, UserAttributes, admitted, baggage_attributes, with_baggage};
use super::semconv::{
    MESSAGING_BATCH_MESSAGE_COUNT, MESSAGING_DESTINATION_NAME, MESSAGING_MESSAGE_BODY_SIZE,
    MESSAGING_MESSAGE_CONVERSATION_ID, MESSAGING_MESSAGE_ID,
};
use super::settings::{BatchBaggage, OperationInfo, ParentMode, SettleSpans, Trust};
use crate::broker::BrokerError;
use crate::message::{OperationType, Settlement, Source};

/// Is the telemetry of one subscription: receive, process and settle.
///
/// # Examples
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
/// use throughline_core::message::{Operations, Source, System};
/// use throughline_core::telemetry::{CurrentSpan, Incoming, Instrumentation};
///
/// let source = Source::new(Arc::new(System::new("nats", Operations::DEFAULT))).with_destination("orders");
/// let consumer = Instrumentation::from_globals().consumer(Arc::new(source));
/// let headers: HashMap<String, String> = HashMap::new();
/// let processing = consumer.process(&Incoming::new("orders", &headers));
/// let context = processing.scope().context().clone();
/// processing.succeed();
/// # let _ = context;
/// ```
#[derive(Clone)]
pub struct Consumer {
    pub(super) instrumentation: Instrumentation,
    shared: Arc<Shared>,
    parent: ParentMode,
    trust: Trust,
}

struct Shared {
    source: Arc<Source>,
    process_attributes: Vec<KeyValue>,
    process_name: Cow<'static, str>,
    process_metrics: Arc<[KeyValue]>,
    /// Whether messages are counted when they are received, and not again when they are processed (METR-14).
    counts_at_receive: AtomicBool,
}

/// What the headers of a message said.
struct Origin {
    link: Option<SpanContext>,
    parent: Option<SpanContext>,
    baggage: Option<OtelBaggage>,
}

impl Consumer {
    pub(super) fn new(instrumentation: Instrumentation, source: Arc<Source>) -> Self {
        let verb = source.system.operations().process;
        let place = Place {
            name: source.destination.as_deref(),
            template: source.template.as_deref(),
            temporary: source.temporary,
            anonymous: source.anonymous,
        };
        let shared = Shared {
            process_attributes: source_attributes(&source, OperationType::Process, verb),
            process_name: span_name(verb, &place),
            process_metrics: consumer_metric_attributes(&source, verb, &place).into(),
            counts_at_receive: AtomicBool::new(instrumentation.engine.settings.receive_spans),
            source,
        };
        let settings = &instrumentation.engine.settings;
        let (parent, trust) = (settings.parent, settings.trust);
        Self { instrumentation, shared: Arc::new(shared), parent, trust }
    }

    /// Sets the parent mode of this subscription alone (LINK-10).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::message::{Operations, Source, System};
    /// use throughline_core::telemetry::{Instrumentation, ParentMode};
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// let consumer = Instrumentation::from_globals().consumer(source).with_parent_mode(ParentMode::LinkOnly);
    /// # let _ = consumer;
    /// ```
    #[must_use]
    pub fn with_parent_mode(mut self, mode: ParentMode) -> Self {
        self.parent = mode;
        self
    }

    /// Sets how far the headers are trusted for this subscription alone (PROP-22).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::message::{Operations, Source, System};
    /// use throughline_core::telemetry::{Instrumentation, Trust};
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// let consumer = Instrumentation::from_globals().consumer(source).with_trust(Trust::Ignore);
    /// # let _ = consumer;
    /// ```
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.instrumentation.engine
    }

    /// Starts processing a single message: its span, with the message's context as parent and link, and its baggage current.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{collections::HashMap, sync::Arc};
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::{Incoming, Instrumentation};
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// consumer.process(&Incoming::new("orders", &headers)).succeed();
    /// ```
    pub fn process(&self, message: &Incoming<'_>) -> Processing {
        let clock = Clock::start();
        let ambient = Context::current();
        let origin = self.read_origin(message);
        let (parent, links) = self.relate(&ambient, &origin);
        let parent = match origin.baggage {
            Some(baggage) => with_baggage(&parent, &baggage),
            None => parent,
        };
        let span = if self.engine().has_sdk() {
            let place = self.place_of(message);
            let mut attributes = self.shared.process_attributes.clone();
            place.push(&mut attributes);
            self.push_message(OperationType::Process, message, &mut attributes);
            self.push_headers(message, &mut attributes);
            self.push_baggage(&parent, &mut attributes);
            let name = self.process_name(&place);
            let verb = self.verb(OperationType::Process);
            self.start(OperationType::Process, verb, name, &place, attributes, links, clock, &parent)
        } else {
            None
        };
        // Without a span the message's own context is current in every parent mode, so that the trace is passed on (PROP-20).
        let context = span.clone().unwrap_or_else(|| match &origin.parent {
            Some(remote) if !ambient.has_active_span() => parent.with_remote_span_context(remote.clone()),
            _ => parent,
        });
        self.count_arrival(1, message.sent_at);
        self.processing(&context, Vec::new(), span, clock)
    }

    /// Starts processing a batch: one span with a link to each message, none of them its parent (LINK-05), and their baggage merged.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{collections::HashMap, sync::Arc};
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::{Incoming, Instrumentation};
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// let message = Incoming::new("orders", &headers);
    /// consumer.process_batch(&[message, message]).succeed();
    /// ```
    pub fn process_batch(&self, messages: &[Incoming<'_>]) -> Processing {
        let clock = Clock::start();
        let ambient = Context::current();
        let origins: Vec<Origin> = messages.iter().map(|message| self.read_origin(message)).collect();
        let parent = self.merge_baggage(&ambient, &origins);
        let span = self.batch_span(OperationType::Process, messages, &origins, clock, &parent);
        let context = span.as_ref().unwrap_or(&parent);
        let members = origins.iter().map(|origin| self.member_scope(context, &ambient, origin)).collect();
        let oldest = messages.iter().filter_map(|message| message.sent_at).min();
        self.count_arrival(messages.len(), oldest);
        self.processing(context, members, span.clone(), clock)
    }

    /// Starts a pull by the application under the current context; finish it when the messages are there (SPAN-30, -31).
    ///
    /// From then on this consumer and its clones count messages when they are received, not when they are processed (METR-14).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::Instrumentation;
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// let receiving = consumer.receive();
    /// // … pull …
    /// receiving.finish_batch(&[]);
    /// ```
    #[must_use]
    pub fn receive(&self) -> Receiving {
        self.shared.counts_at_receive.store(true, Ordering::Relaxed);
        Receiving { consumer: self.clone(), clock: Clock::start(), ambient: Context::current() }
    }

    /// Starts a settlement; finish it when the broker has been told. `parent` is the context of the process span (LINK-12).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::{collections::HashMap, sync::Arc};
    /// # use throughline_core::message::{Operations, Source, System};
    /// # use throughline_core::telemetry::{Incoming, Instrumentation};
    /// # let source = Arc::new(Source::new(Arc::new(System::new("nats", Operations::DEFAULT))));
    /// # let consumer = Instrumentation::from_globals().consumer(source);
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// use throughline_core::Settlement;
    ///
    /// let settling = consumer.settle(&Settlement::Ack, &opentelemetry::Context::current());
    /// // … ack …
    /// settling.finish(&[Incoming::new("orders", &headers)], None);
    /// ```
    #[must_use]
    pub fn settle(&self, settlement: &Settlement, parent: &Context) -> Settling {
        Settling {
            consumer: self.clone(),
            settlement: settlement.clone(),
            parent: parent.clone(),
            clock: Clock::start(),
        }
    }

    pub(super) fn received(
        &self,
        messages: &[Incoming<'_>],
        batch: bool,
        receiving: &Receiving,
        error: Option<&ErrorReport>,
    ) {
        let origins: Vec<Origin> = messages.iter().map(|message| self.read_origin(message)).collect();
        let (clock, ambient) = (receiving.clock, &receiving.ambient);
        let span = match messages {
            [message] if !batch => self.single_span(OperationType::Receive, message, &origins, clock, ambient),
            [] if !batch => self.empty_span(OperationType::Receive, clock, ambient),
            _ => self.batch_span(OperationType::Receive, messages, &origins, clock, ambient),
        };
        let verb = self.verb(OperationType::Receive);
        if !messages.is_empty() {
            self.engine().metrics.consumed(messages.len(), &self.client_metrics(verb));
        }
        self.client_operation(OperationType::Receive, verb, span, clock).finish(Vec::new(), error);
    }

    pub(super) fn settled(
        &self,
        messages: &[Incoming<'_>],
        batch: bool,
        settling: &Settling,
        error: Option<&BrokerError>,
    ) {
        let Some(verb) = self.settle_verb(&settling.settlement) else { return };
        let wanted = match self.engine().settings.settle_spans {
            SettleSpans::Always => true,
            SettleSpans::Exceptional => error.is_some() || settling.settlement != Settlement::Ack,
            SettleSpans::Never => false,
        };
        let clock = settling.clock;
        let span = wanted.then(|| self.settle_span(verb, messages, batch, clock, &settling.parent)).flatten();
        let report = error.map(ErrorReport::of_broker);
        self.client_operation(OperationType::Settle, verb, span, clock).finish(Vec::new(), report.as_ref());
    }

    /// Counts what became of a message, under the project's own name.
    pub(crate) fn count_settlement(&self, settlement: &'static str) {
        self.engine().metrics.settled(settlement, &self.shared.process_metrics);
    }

    fn settle_verb(&self, settlement: &Settlement) -> Option<&'static str> {
        let operations = self.shared.source.system.operations();
        match settlement {
            Settlement::Ack => operations.ack,
            Settlement::Reject { .. } => operations.reject,
            Settlement::Retry { .. } => operations.retry,
        }
    }

    fn settle_span(
        &self,
        verb: &'static str,
        messages: &[Incoming<'_>],
        batch: bool,
        clock: Clock,
        parent: &Context,
    ) -> Option<Context> {
        let place = self.shared_place(messages);
        let mut attributes = source_attributes(&self.shared.source, OperationType::Settle, verb);
        place.push(&mut attributes);
        match messages {
            [message] if !batch => self.push_message(OperationType::Settle, message, &mut attributes),
            _ => attributes.push(batch_count(messages)),
        }
        self.start(OperationType::Settle, verb, span_name(verb, &place), &place, attributes, Vec::new(), clock, parent)
    }

    fn single_span(
        &self,
        operation: OperationType,
        message: &Incoming<'_>,
        origins: &[Origin],
        clock: Clock,
        parent: &Context,
    ) -> Option<Context> {
        let verb = self.verb(operation);
        let place = self.place_of(message);
        let mut attributes = source_attributes(&self.shared.source, operation, verb);
        place.push(&mut attributes);
        self.push_message(operation, message, &mut attributes);
        let links = origins.iter().filter_map(|origin| origin.link.clone()).map(link).collect();
        self.start(operation, verb, span_name(verb, &place), &place, attributes, links, clock, parent)
    }

    /// The span of a call for one message that got none: it counts no messages (ATTR-C-07).
    fn empty_span(&self, operation: OperationType, clock: Clock, parent: &Context) -> Option<Context> {
        let verb = self.verb(operation);
        let place = self.shared_place(&[]);
        let mut attributes = source_attributes(&self.shared.source, operation, verb);
        place.push(&mut attributes);
        self.start(operation, verb, span_name(verb, &place), &place, attributes, Vec::new(), clock, parent)
    }

    fn batch_span(
        &self,
        operation: OperationType,
        messages: &[Incoming<'_>],
        origins: &[Origin],
        clock: Clock,
        parent: &Context,
    ) -> Option<Context> {
        if !self.engine().has_sdk() {
            return None;
        }
        let verb = self.verb(operation);
        let place = self.shared_place(messages);
        let mut attributes = source_attributes(&self.shared.source, operation, verb);
        place.push(&mut attributes);
        attributes.push(batch_count(messages));
        if operation == OperationType::Process {
            self.push_baggage(parent, &mut attributes);
        }
        let mut own: Vec<Vec<KeyValue>> =
            messages.iter().map(|message| self.message_attributes(operation, message)).collect();
        attributes.extend(split_shared(&mut own));
        if place.name.is_none() {
            // Different destinations stand on the links, none on the span (ATTR-C-04, LINK-15).
            for (message, own) in messages.iter().zip(&mut own) {
                own.push(KeyValue::new(MESSAGING_DESTINATION_NAME, message.destination.to_owned()));
            }
        }
        let links =
            origins.iter().zip(own).filter_map(|(origin, own)| Some(Link::new(origin.link.clone()?, own, 0))).collect();
        self.start(operation, verb, span_name(verb, &place), &place, attributes, links, clock, parent)
    }

    #[allow(clippy::too_many_arguments)] // one call for the four kinds of consumer spans; a struct would only rename the arguments
    fn start(
        &self,
        operation: OperationType,
        verb: &'static str,
        name: Cow<'static, str>,
        place: &Place<'_>,
        attributes: Vec<KeyValue>,
        links: Vec<Link>,
        clock: Clock,
        parent: &Context,
    ) -> Option<Context> {
        let info = OperationInfo {
            operation_type: operation,
            operation_name: verb,
            system: self.shared.source.system.name(),
            destination: place.name.unwrap_or_default(),
            template: place.template,
        };
        let kind = if operation == OperationType::Process { SpanKind::Consumer } else { SpanKind::Client };
        self.engine().start_span(Start { info, name, kind, attributes, links, clock }, parent)
    }

    fn verb(&self, operation: OperationType) -> &'static str {
        let operations = self.shared.source.system.operations();
        match operation {
            OperationType::Receive => operations.receive,
            _ => operations.process,
        }
    }

    fn processing(&self, context: &Context, members: Vec<Scope>, span: Option<Context>, clock: Clock) -> Processing {
        let attributes = span.as_ref().map(|_| UserAttributes::default());
        let instrumentation = Some(self.instrumentation.clone());
        let scope = Scope::with_attributes(context, instrumentation, members, attributes.clone());
        let metrics = Arc::clone(&self.shared.process_metrics);
        self.engine().metrics.in_flight(1, &metrics);
        let operation = Operation {
            engine: Arc::clone(self.engine()),
            operation: OperationType::Process,
            span,
            clock,
            metric_attributes: metrics,
            user_attributes: attributes,
            in_flight: true,
            finished: false,
        };
        Processing { scope, operation }
    }

    fn client_operation(
        &self,
        operation: OperationType,
        verb: &'static str,
        span: Option<Context>,
        clock: Clock,
    ) -> Operation {
        Operation {
            engine: Arc::clone(self.engine()),
            operation,
            span,
            clock,
            metric_attributes: with_operation_type(&self.client_metrics(verb), operation).into(),
            user_attributes: None,
            in_flight: false,
            finished: false,
        }
    }

    fn client_metrics(&self, verb: &'static str) -> Vec<KeyValue> {
        consumer_metric_attributes(&self.shared.source, verb, &self.shared_place(&[]))
    }

    fn count_arrival(&self, messages: usize, sent_at: Option<SystemTime>) {
        let metrics = &self.engine().metrics;
        if !self.shared.counts_at_receive.load(Ordering::Relaxed) {
            metrics.consumed(messages, &self.shared.process_metrics);
        }
        if let Some(waited) = sent_at.and_then(|sent| SystemTime::now().duration_since(sent).ok()) {
            metrics.queued(waited, &self.shared.process_metrics);
        }
    }

    /// Reads the headers as far as they are trusted (PROP-16, PROP-22, BAGG-15).
    fn read_origin(&self, message: &Incoming<'_>) -> Origin {
        if self.trust == Trust::Ignore {
            return Origin { link: None, parent: None, baggage: None };
        }
        let engine = self.engine();
        let remote = engine.propagator.extract_with_context(&Context::new(), message.headers);
        let context = Some(remote.span().span_context().clone()).filter(SpanContext::is_valid);
        let trusted = self.trust == Trust::Continue;
        let baggage = (trusted && !remote.baggage().is_empty())
            .then(|| admitted(remote.baggage(), &engine.settings.inbound_baggage))
            .filter(|baggage| !baggage.is_empty());
        Origin { parent: context.clone().filter(|_| trusted), link: context, baggage }
    }

    /// Chooses the parent and the links of a single message's span (LINK-01, -02, -06 to -09).
    fn relate(&self, ambient: &Context, origin: &Origin) -> (Context, Vec<Link>) {
        let ambient_span = ambient.span().span_context().clone();
        let mut links: Vec<Link> = origin.link.clone().map(link).into_iter().collect();
        let parent = match (self.parent, &origin.parent) {
            (ParentMode::Parent, Some(remote)) => {
                if ambient_span.is_valid() {
                    links.push(link(ambient_span));
                }
                ambient.with_remote_span_context(remote.clone())
            }
            (ParentMode::Auto, Some(remote)) if !ambient_span.is_valid() => {
                ambient.with_remote_span_context(remote.clone())
            }
            _ => ambient.clone(),
        };
        (parent, links)
    }

    /// The context of one message of a batch: its producer's span, or that of the batch where it has none to continue, and its own
    /// baggage.
    fn member_scope(&self, batch: &Context, ambient: &Context, origin: &Origin) -> Scope {
        let context = match &origin.parent {
            Some(remote) => batch.with_remote_span_context(remote.clone()),
            None => batch.clone(),
        };
        let context = match &origin.baggage {
            Some(baggage) => with_baggage(&context, baggage),
            None if batch.baggage().is_empty() => context,
            None => with_baggage(&context, ambient.baggage()),
        };
        Scope::new(&context, Some(self.instrumentation.clone()), Vec::new())
    }

    /// Merges the baggage of a batch (BAGG-12).
    fn merge_baggage(&self, ambient: &Context, origins: &[Origin]) -> Context {
        let how = self.engine().settings.batch_baggage;
        let all: Vec<&OtelBaggage> = origins.iter().filter_map(|origin| origin.baggage.as_ref()).collect();
        if all.is_empty() || how == BatchBaggage::None {
            return ambient.clone();
        }
        let mut merged = OtelBaggage::new();
        for (key, (value, metadata)) in all.iter().flat_map(|baggage| baggage.iter()) {
            let agreed = || all.iter().all(|other| other.get(key.as_str()).is_none_or(|theirs| theirs == value));
            if how == BatchBaggage::Merged || agreed() {
                merged.insert_with_metadata(key.clone(), value.clone(), metadata.clone());
            }
        }
        with_baggage(ambient, &merged)
    }

    fn place_of<'a>(&'a self, message: &Incoming<'a>) -> Place<'a> {
        let source = &self.shared.source;
        Place {
            name: Some(message.destination),
            template: source.template.as_deref(),
            temporary: source.temporary,
            anonymous: source.anonymous,
        }
    }

    /// The destination of several messages: the one they share, or the subscription's (SPAN-18, ATTR-C-04).
    fn shared_place<'a>(&'a self, messages: &[Incoming<'a>]) -> Place<'a> {
        let source = &self.shared.source;
        let name = match messages.split_first() {
            Some((first, others)) => {
                Some(first.destination).filter(|name| others.iter().all(|other| other.destination == *name))
            }
            None => source.destination.as_deref().filter(|_| source.template.is_none()),
        };
        Place { name, template: source.template.as_deref(), temporary: source.temporary, anonymous: source.anonymous }
    }

    fn process_name(&self, place: &Place<'_>) -> Cow<'static, str> {
        let source = &self.shared.source;
        if place.template.is_some() || place.name == source.destination.as_deref() {
            self.shared.process_name.clone()
        } else {
            span_name(source.system.operations().process, place)
        }
    }

    fn message_attributes(&self, operation: OperationType, message: &Incoming<'_>) -> Vec<KeyValue> {
        let mut attributes = Vec::new();
        self.push_identity(message, &mut attributes);
        message.native_attributes(operation, &mut attributes);
        if operation == OperationType::Process {
            self.push_headers(message, &mut attributes);
        }
        attributes
    }

    /// The attributes of one message on its own span.
    fn push_message(&self, operation: OperationType, message: &Incoming<'_>, attributes: &mut Vec<KeyValue>) {
        self.push_identity(message, attributes);
        if self.engine().settings.body_sizes && operation != OperationType::Settle {
            let size = i64::try_from(message.body_size).unwrap_or(i64::MAX);
            attributes.push(KeyValue::new(MESSAGING_MESSAGE_BODY_SIZE, size));
        }
        message.native_attributes(operation, attributes);
    }

    fn push_identity(&self, message: &Incoming<'_>, attributes: &mut Vec<KeyValue>) {
        let settings = &self.engine().settings;
        if let Some(id) = message.id.filter(|_| settings.message_ids) {
            attributes.push(KeyValue::new(MESSAGING_MESSAGE_ID, id.to_owned()));
        }
        if let Some(id) = message.correlation_id.filter(|_| settings.conversation_ids) {
            attributes.push(KeyValue::new(MESSAGING_MESSAGE_CONVERSATION_ID, id.to_owned()));
        }
    }

    /// Headers the user listed (ATTR-C-24).
    fn push_headers(&self, message: &Incoming<'_>, attributes: &mut Vec<KeyValue>) {
        for (name, attribute) in &self.engine().settings.captured_headers {
            if let Some(value) = message.headers.get(name) {
                attributes.push(KeyValue::new(attribute.clone(), value.to_owned()));
            }
        }
    }

    /// Baggage entries the user listed (BAGG-13).
    fn push_baggage(&self, context: &Context, attributes: &mut Vec<KeyValue>) {
        baggage_attributes(context.baggage(), &self.engine().settings.baggage_attributes, attributes);
    }
}

fn link(context: SpanContext) -> Link {
    Link::new(context, Vec::new(), 0)
}

fn batch_count(messages: &[Incoming<'_>]) -> KeyValue {
    KeyValue::new(MESSAGING_BATCH_MESSAGE_COUNT, i64::try_from(messages.len()).unwrap_or(i64::MAX))
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("source", &self.shared.source).finish_non_exhaustive()
    }
}
