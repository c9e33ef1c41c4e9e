use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use opentelemetry::baggage::BaggageExt;
use opentelemetry::metrics::Meter;
use opentelemetry::trace::{Link, SpanKind};
use opentelemetry::{Context, KeyValue};

use super::attributes::{Place, add_once, constant, split_shared};
use super::incoming::Incoming;
use super::instrumentation::{Engine, Instrumentation};
use super::operation::{Clock, ErrorReport, Started};
use super::origin::{Origin, Relation, link};
use super::pending::{Receiving, Settling};
use super::prepared::{Particular, Prepared};
use super::processing::Processing;
use super::reply_address::with_reply_address;
use super::scope::{Scope, baggage_attributes};
use super::seen_as::{Places, SeenAs};
use super::semconv::{
    MESSAGING_BATCH_MESSAGE_COUNT, MESSAGING_DESTINATION_NAME, MESSAGING_DESTINATION_TEMPLATE,
    MESSAGING_MESSAGE_BODY_SIZE, MESSAGING_MESSAGE_CONVERSATION_ID, MESSAGING_MESSAGE_ID,
};
use super::settings::{ParentMode, SettleSpans, Trust};
use crate::broker::{BrokerError, Observe};
use crate::guard::Foreign;
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
    shared: Arc<Shared>,
    pub(super) parent: ParentMode,
    pub(super) trust: Trust,
}

struct Shared {
    engine: Arc<Engine>,
    source: Arc<Source>,
    places: Places,
    /// Whether messages are counted when they are received, and not again when they are processed (METR-14).
    counts_at_receive: AtomicBool,
}

impl Consumer {
    pub(super) fn new(instrumentation: Instrumentation, source: Arc<Source>) -> Self {
        let engine = instrumentation.engine;
        let (parent, trust) = (engine.settings.parent, engine.settings.trust);
        let counts_at_receive = AtomicBool::new(engine.settings.receive_spans);
        let shared = Shared { places: Places::new(&engine, &source), counts_at_receive, source, engine };
        Self { shared: Arc::new(shared), parent, trust }
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

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.shared.engine
    }

    pub(super) fn instrumentation(&self) -> Instrumentation {
        Instrumentation { engine: Arc::clone(self.engine()) }
    }

    /// Whether a message is handled as without telemetry: nothing is recorded, and its headers say nothing.
    pub(crate) fn passes_through(&self, has_headers: bool) -> bool {
        !has_headers && !self.engine().is_recording()
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
        let engine = self.engine();
        let clock = engine.clock();
        let Relation { parent, links, without_span } = self.relate(&Context::current(), message);
        let seen_as = self.shared.places.of(message.destination);
        let span = self.process_span(seen_as, message, clock, links, &parent);
        let context = match (&span, without_span) {
            (Some(span), _) => span.context.clone(),
            (None, Some(own)) => own,
            (None, None) => parent,
        };
        let context = with_reply_address(context, message.reply_to.filter(|_| engine.is_recording()));
        self.count_arrivals(1, seen_as);
        self.count_wait(message.sent_at, seen_as, clock);
        self.processing(context, Vec::new(), seen_as, span, clock)
    }

    /// Starts what is no message, so that the same code can run it: nothing is recorded, and nothing is current but what was.
    pub(crate) fn pass_by(&self) -> Processing {
        Processing::new(Context::current(), Vec::new(), self.instrumentation(), None)
    }

    fn process_span(
        &self,
        seen_as: &SeenAs,
        message: &Incoming<'_>,
        clock: Clock,
        links: Vec<Link>,
        parent: &Context,
    ) -> Option<Started> {
        if !self.engine().has_sdk() {
            return None;
        }
        let attributes = self.native(OperationType::Process, message);
        let place = seen_as.place(Some(message.destination));
        let mut late = |set: &mut dyn FnMut(KeyValue)| {
            self.identity(message, set);
            self.body_size(message, set);
            self.headers(message, set);
            baggage_attributes(parent.baggage(), &self.engine().settings.baggage_attributes, set);
        };
        let particular = Particular { kind: SpanKind::Consumer, place, attributes, links, clock };
        seen_as.process().start(particular, &mut late, parent)
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
        let clock = self.engine().clock();
        let ambient = Context::current();
        let origins: Vec<Origin> = messages.iter().map(|message| self.read_origin(message)).collect();
        let parent = self.merge_baggage(&ambient, &origins);
        let seen_as = self.seen_as(messages);
        let span = self.batch_span(OperationType::Process, messages, &origins, clock, &parent);
        let context = span.as_ref().map_or(&parent, |span| &span.context).clone();
        let members = messages.iter().zip(&origins);
        let members = members.map(|(message, origin)| self.member_scope(&context, &ambient, message, origin)).collect();
        let oldest = messages.iter().filter_map(|message| message.sent_at).min();
        self.count_all(messages, |messages, seen_as| self.count_arrivals(messages, seen_as));
        self.count_wait(oldest, seen_as, clock);
        self.processing(context, members, seen_as, span, clock)
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
            [message] if !batch => self.single_span(message, &origins, clock, ambient),
            [] if !batch => self.empty_span(clock, ambient),
            _ => self.batch_span(OperationType::Receive, messages, &origins, clock, ambient),
        };
        let prepared = self.seen_as(messages).receive();
        self.count_all(messages, |messages, seen_as| {
            self.engine().metrics.consumed(messages, &seen_as.receive().counts);
        });
        prepared.operation(span, clock).finish(Vec::new(), error);
    }

    /// Records a settlement that began with `clock`; its span is a child of the process span in `parent` (LINK-12).
    pub(crate) fn settled(
        &self,
        messages: &[Incoming<'_>],
        batch: bool,
        settlement: &Settlement,
        parent: &Context,
        clock: Clock,
        error: Option<&BrokerError>,
    ) {
        let seen_as = self.seen_as(messages);
        self.settle_operation(seen_as, settlement, clock, error, |prepared| {
            self.settle_span(seen_as, prepared, messages, batch, clock, parent)
        });
    }

    /// Records a settlement of all messages up to some place (SPAN-33, ATTR-K-11).
    pub(super) fn settled_up_to(
        &self,
        destination: Option<&str>,
        attributes: Vec<KeyValue>,
        settlement: &Settlement,
        parent: &Context,
        clock: Clock,
        error: Option<&BrokerError>,
    ) {
        let places = &self.shared.places;
        let seen_as = destination.map_or(places.common(), |destination| places.of(destination));
        self.settle_operation(seen_as, settlement, clock, error, |prepared| {
            let place = seen_as.place(destination);
            let particular = Particular { kind: SpanKind::Client, place, attributes, links: Vec::new(), clock };
            prepared.start(particular, &mut |_| {}, parent)
        });
    }

    /// Records a settlement, with a span where one is wanted (SPAN-32).
    fn settle_operation(
        &self,
        seen_as: &SeenAs,
        settlement: &Settlement,
        clock: Clock,
        error: Option<&BrokerError>,
        start: impl FnOnce(&Prepared) -> Option<Started>,
    ) {
        if !self.engine().is_recording() {
            return;
        }
        let Some(prepared) = seen_as.settle(settlement) else { return };
        let wanted = match self.engine().settings.settle_spans {
            SettleSpans::Always => true,
            SettleSpans::Exceptional => error.is_some() || *settlement != Settlement::Ack,
            SettleSpans::Never => false,
        };
        if !wanted && error.is_none() && !self.engine().metrics.is_enabled() {
            return;
        }
        let span = if wanted { start(prepared) } else { None };
        let report = error.map(|error| ErrorReport::of_broker(error, self.engine()));
        prepared.operation(span, clock).finish(Vec::new(), report.as_ref());
    }

    /// Counts what became of a message; see `SETTLED_MESSAGES`.
    pub(crate) fn count_settlement(&self, settlement: &'static str, destination: &str) {
        if self.engine().metrics.is_enabled() {
            self.shared.places.of(destination).count_settlement(settlement);
        }
    }

    fn seen_as(&self, messages: &[Incoming<'_>]) -> &SeenAs {
        self.shared.places.of_all(messages.iter().map(|message| message.destination))
    }

    fn settle_span(
        &self,
        seen_as: &SeenAs,
        prepared: &Prepared,
        messages: &[Incoming<'_>],
        batch: bool,
        clock: Clock,
        parent: &Context,
    ) -> Option<Started> {
        let single = messages.first().filter(|_| messages.len() == 1 && !batch);
        let attributes = match single {
            Some(message) => self.native(OperationType::Settle, message),
            None => vec![batch_count(messages)],
        };
        let mut late = |set: &mut dyn FnMut(KeyValue)| {
            if let Some(message) = single {
                self.identity(message, set);
            }
        };
        let place = shared_place(seen_as, messages);
        let particular = Particular { kind: SpanKind::Client, place, attributes, links: Vec::new(), clock };
        prepared.start(particular, &mut late, parent)
    }

    fn single_span(
        &self,
        message: &Incoming<'_>,
        origins: &[Origin],
        clock: Clock,
        parent: &Context,
    ) -> Option<Started> {
        let attributes = self.native(OperationType::Receive, message);
        let mut late = |set: &mut dyn FnMut(KeyValue)| {
            self.identity(message, set);
            self.body_size(message, set);
        };
        let links = origins.iter().filter_map(|origin| origin.link.clone()).map(link).collect();
        let seen_as = self.shared.places.of(message.destination);
        let place = seen_as.place(Some(message.destination));
        let particular = Particular { kind: SpanKind::Client, place, attributes, links, clock };
        seen_as.receive().start(particular, &mut late, parent)
    }

    /// The span of a call for one message that got none: it counts no messages (ATTR-C-07).
    fn empty_span(&self, clock: Clock, parent: &Context) -> Option<Started> {
        let common = self.shared.places.common();
        let (place, attributes, links) = (common.of_no_message(), Vec::new(), Vec::new());
        let particular = Particular { kind: SpanKind::Client, place, attributes, links, clock };
        common.receive().start(particular, &mut |_| {}, parent)
    }

    fn batch_span(
        &self,
        operation: OperationType,
        messages: &[Incoming<'_>],
        origins: &[Origin],
        clock: Clock,
        parent: &Context,
    ) -> Option<Started> {
        if !self.engine().has_sdk() {
            return None;
        }
        let seen_as = self.seen_as(messages);
        let place = shared_place(seen_as, messages);
        let mut attributes = vec![batch_count(messages)];
        let mut own: Vec<Vec<KeyValue>> =
            messages.iter().map(|message| self.message_attributes(operation, message)).collect();
        attributes.extend(split_shared(&mut own, place.name.is_some()));
        if place.name.is_none() {
            // Different destinations stand on the links, none on the span (ATTR-C-04, LINK-15).
            for (message, own) in messages.iter().zip(&mut own) {
                let template = self.shared.places.of(message.destination).template();
                if let Some(template) = template.filter(|_| place.template.is_none()) {
                    own.retain(|attribute| attribute.key.as_str() != MESSAGING_DESTINATION_TEMPLATE);
                    own.push(KeyValue::new(MESSAGING_DESTINATION_TEMPLATE, constant(template)));
                }
                own.retain(|attribute| attribute.key.as_str() != MESSAGING_DESTINATION_NAME);
                own.push(KeyValue::new(MESSAGING_DESTINATION_NAME, message.destination.to_owned()));
            }
        }
        let links =
            origins.iter().zip(own).filter_map(|(origin, own)| Some(Link::new(origin.link.clone()?, own, 0))).collect();
        let is_process = operation == OperationType::Process;
        let kind = if is_process { SpanKind::Consumer } else { SpanKind::Client };
        let mut late = |set: &mut dyn FnMut(KeyValue)| {
            if is_process {
                baggage_attributes(parent.baggage(), &self.engine().settings.baggage_attributes, set);
            }
        };
        let particular = Particular { kind, place, attributes, links, clock };
        let prepared = if is_process { seen_as.process() } else { seen_as.receive() };
        prepared.start(particular, &mut late, parent)
    }

    fn processing(
        &self,
        context: Context,
        members: Vec<Scope>,
        seen_as: &SeenAs,
        span: Option<Started>,
        clock: Clock,
    ) -> Processing {
        let operation = self.engine().is_recording().then(|| {
            let process = seen_as.process();
            self.engine().metrics.in_flight(1, &process.counts);
            let mut operation = process.operation(span, clock);
            operation.in_flight = true;
            operation
        });
        Processing::new(context, members, self.instrumentation(), operation)
    }

    /// Counts messages where they stand, of a batch as well (METR-04).
    fn count_all(&self, messages: &[Incoming<'_>], count: impl Fn(usize, &SeenAs)) {
        let all = self.seen_as(messages);
        let are_alike = |message: &Incoming<'_>| std::ptr::eq(self.shared.places.of(message.destination), all);
        if messages.is_empty() {
            return;
        }
        if messages.iter().all(are_alike) {
            return count(messages.len(), all);
        }
        messages.iter().for_each(|message| count(1, self.shared.places.of(message.destination)));
    }

    /// Counts what arrives (METR-14, -15).
    fn count_arrivals(&self, messages: usize, seen_as: &SeenAs) {
        if !self.shared.counts_at_receive.load(Ordering::Relaxed) {
            self.engine().metrics.consumed(messages, &seen_as.process().counts);
        }
    }

    /// Measures how long what is about to be handled has waited, where a clock is read at all.
    fn count_wait(&self, sent_at: Option<SystemTime>, seen_as: &SeenAs, clock: Clock) {
        let waited = sent_at.zip(clock.start_time()).and_then(|(sent, now)| now.duration_since(sent).ok());
        if let Some(waited) = waited {
            self.engine().metrics.queued(waited, &seen_as.process().counts);
        }
    }

    /// The attributes of one message of a batch: on its link, or on the span where all share them (LINK-15).
    fn message_attributes(&self, operation: OperationType, message: &Incoming<'_>) -> Vec<KeyValue> {
        let mut attributes = Vec::new();
        self.identity(message, &mut |attribute| attributes.push(attribute));
        let own = attributes.len();
        for attribute in self.native(operation, message) {
            add_once(&mut attributes, own, attribute);
        }
        if operation == OperationType::Process {
            self.headers(message, &mut |attribute| add_once(&mut attributes, own, attribute));
        }
        attributes
    }

    /// What the adapter adds to a message, without what the engine says itself.
    fn native(&self, operation: OperationType, message: &Incoming<'_>) -> Vec<KeyValue> {
        let settings = &self.engine().settings;
        let mut attributes = Vec::new();
        message.native_attributes(&self.engine().guard, operation, &mut attributes);
        attributes.retain(|attribute| {
            !settings.says(attribute.key.as_str(), message.id.is_some(), message.correlation_id.is_some())
        });
        attributes
    }

    fn identity(&self, message: &Incoming<'_>, set: &mut dyn FnMut(KeyValue)) {
        let settings = &self.engine().settings;
        if let Some(id) = message.id.filter(|_| settings.message_ids) {
            set(KeyValue::new(MESSAGING_MESSAGE_ID, id.to_owned()));
        }
        if let Some(id) = message.correlation_id.filter(|_| settings.conversation_ids) {
            set(KeyValue::new(MESSAGING_MESSAGE_CONVERSATION_ID, id.to_owned()));
        }
    }

    fn body_size(&self, message: &Incoming<'_>, set: &mut dyn FnMut(KeyValue)) {
        if self.engine().settings.body_sizes {
            let size = i64::try_from(message.body_size).unwrap_or(i64::MAX);
            set(KeyValue::new(MESSAGING_MESSAGE_BODY_SIZE, size));
        }
    }

    /// Headers the user listed (ATTR-C-24).
    fn headers(&self, message: &Incoming<'_>, set: &mut dyn FnMut(KeyValue)) {
        for (name, attribute) in &self.engine().settings.captured_headers {
            let value = self.engine().guard.run(Foreign::Extract, || message.headers.get(name)).flatten();
            if let Some(value) = value {
                set(KeyValue::new(attribute.clone(), value.to_owned()));
            }
        }
    }
}

/// An adapter settles in the background, in nobody's trace.
impl Observe for Consumer {
    fn meter(&self) -> Option<Meter> {
        self.engine().metrics.meter()
    }

    fn settled(
        &self,
        started: Instant,
        destination: Option<&str>,
        attributes: Vec<KeyValue>,
        error: Option<&BrokerError>,
    ) {
        let (clock, nobodys) = (Clock::started_at(started), Context::new());
        self.settled_up_to(destination, attributes, &Settlement::Ack, &nobodys, clock, error);
    }
}

/// The place of several messages: with the name they all have (SPAN-18).
fn shared_place<'a>(seen_as: &'a SeenAs, messages: &[Incoming<'a>]) -> Place<'a> {
    match messages.split_first() {
        Some((first, others)) => {
            let name = Some(first.destination);
            seen_as.place(name.filter(|name| others.iter().all(|other| other.destination == *name)))
        }
        None => seen_as.of_no_message(),
    }
}

fn batch_count(messages: &[Incoming<'_>]) -> KeyValue {
    KeyValue::new(MESSAGING_BATCH_MESSAGE_COUNT, i64::try_from(messages.len()).unwrap_or(i64::MAX))
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("source", &self.shared.source).finish_non_exhaustive()
    }
}
