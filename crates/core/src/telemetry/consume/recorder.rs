use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{Link, SpanKind};
use opentelemetry::{Context, KeyValue};

use super::incoming::Incoming;
use super::origin::{Origin, Origins, Relation, link};
use super::processing::{InFlight, Processing};
use super::seen_as::{Places, SeenAs};
use crate::broker::BrokerError;
use crate::message::{OperationType, Settlement, Source};
use crate::telemetry::attributes::{Place, constant, split_shared};
use crate::telemetry::changes::baggage_attributes;
use crate::telemetry::choices::{ParentMode, SettleSpans, Trust};
use crate::telemetry::current::Scope;
use crate::telemetry::engine::{Clock, Engine, ErrorReport, Settings, Started};
use crate::telemetry::operation::Operation;
use crate::telemetry::prepared::{Particular, Prepared};
use crate::telemetry::reply_address::with_reply_address;
use crate::telemetry::semconv::{
    MESSAGING_BATCH_MESSAGE_COUNT, MESSAGING_DESTINATION_NAME, MESSAGING_DESTINATION_TEMPLATE, RETRY_DELAY,
};

/// The maker of all spans and counts of one subscription. A consumer is a handle on it; a pull and a settlement that are under way hold
/// it as well.
#[derive(Clone)]
pub(super) struct Recorder {
    shared: Arc<Shared>,
    pub(super) parent: ParentMode,
    pub(super) trust: Trust,
}

struct Shared {
    engine: Arc<Engine>,
    source: Arc<Source>,
    places: Places,
    /// Whether messages are counted when they are received, and not again when they are processed.
    // METR-14.
    counts_at_receive: AtomicBool,
}

impl Recorder {
    pub(super) fn new(engine: Arc<Engine>, source: Arc<Source>) -> Self {
        let (parent, trust) = (engine.settings.parent, engine.settings.trust);
        let counts_at_receive = AtomicBool::new(engine.settings.receive_spans);
        let shared = Shared { places: Places::new(&engine, &source), counts_at_receive, source, engine };
        Self { shared: Arc::new(shared), parent, trust }
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.shared.engine
    }

    pub(super) fn source(&self) -> &Source {
        &self.shared.source
    }

    /// From now on messages are counted when they are received.
    // METR-14.
    pub(super) fn count_at_receive(&self) {
        self.shared.counts_at_receive.store(true, Ordering::Relaxed);
    }

    fn settings(&self) -> &Settings {
        &self.shared.engine.settings
    }

    fn origins(&self) -> Origins<'_> {
        Origins { engine: self.engine(), parent: self.parent, trust: self.trust }
    }

    /// Starts the processing of a message.
    pub(super) fn process(&self, message: &Incoming<'_>) -> Processing {
        let engine = self.engine();
        let clock = engine.clock();
        let Relation { parent, links, without_span } = self.origins().relate(&Context::current(), message);
        let name = message.name(self.settings());
        let seen_as = self.named(message, &name);
        let span = self.process_span(seen_as, message, &name, clock, links, &parent);
        let context = match (&span, without_span) {
            (Some(span), _) => span.context.clone(),
            (None, Some(own)) => own,
            (None, None) => parent,
        };
        let context = with_reply_address(context, message.reply_to.filter(|_| engine.is_recording()));
        self.count_arrivals(1, seen_as);
        self.count_wait(waited_since(message), seen_as, clock);
        self.processing(context, Vec::new(), seen_as, span, clock)
    }

    fn process_span(
        &self,
        seen_as: &SeenAs,
        message: &Incoming<'_>,
        name: &str,
        clock: Clock,
        links: Vec<Link>,
        parent: &Context,
    ) -> Option<Started> {
        if !self.engine().has_sdk() {
            return None;
        }
        let attributes = message.native_attributes(self.settings(), OperationType::Process);
        let place = seen_as.place(Some(name));
        let mut late = |set: &mut dyn FnMut(KeyValue)| {
            message.add_identity(self.settings(), set);
            message.add_attempt(set);
            message.add_body_size(self.settings(), set);
            message.add_headers(self.settings(), set);
            baggage_attributes(parent.baggage(), &self.settings().baggage_attributes, set);
        };
        let particular = Particular { kind: SpanKind::Consumer, place, attributes, links, clock };
        seen_as.process().start(particular, &mut late, parent)
    }

    /// Starts the processing of a batch.
    pub(super) fn process_batch(&self, messages: &[Incoming<'_>]) -> Processing {
        let clock = self.engine().clock();
        let ambient = Context::current();
        let origins: Vec<Origin> = messages.iter().map(|message| self.origins().read(message)).collect();
        let parent = self.origins().merge_baggage(&ambient, &origins);
        let seen_as = self.all_seen_as(messages);
        let span = self.batch_span(OperationType::Process, messages, &origins, clock, &parent);
        let context = span.as_ref().map_or(&parent, |span| &span.context).clone();
        let members = messages.iter().zip(&origins);
        let member = |(message, origin): (&Incoming<'_>, &Origin)| {
            Scope::new(origin.context_of(message, &context, &ambient), Some(Arc::clone(self.engine())), Vec::new())
        };
        let members = members.map(member).collect();
        let oldest = messages.iter().filter_map(waited_since).min();
        self.count_all(messages, |messages, seen_as| self.count_arrivals(messages, seen_as));
        self.count_wait(oldest, seen_as, clock);
        self.processing(context, members, seen_as, span, clock)
    }

    /// Records a pull that began with `clock`, under what was current then.
    pub(super) fn received(
        &self,
        messages: &[Incoming<'_>],
        batch: bool,
        clock: Clock,
        ambient: &Context,
        error: Option<&ErrorReport>,
    ) {
        let origins: Vec<Origin> = messages.iter().map(|message| self.origins().read(message)).collect();
        let span = match messages {
            [message] if !batch => self.single_span(message, &origins, clock, ambient),
            [] if !batch => self.empty_span(clock, ambient),
            _ => self.batch_span(OperationType::Receive, messages, &origins, clock, ambient),
        };
        let prepared = self.all_seen_as(messages).receive();
        self.count_all(messages, |messages, seen_as| {
            self.engine().metrics.consumed(messages, &seen_as.receive().counts);
        });
        Operation::new(prepared, span, clock).finish(Vec::new(), error);
    }

    /// Records a settlement that began with `clock`; its span is a child of the process span in `parent`.
    // LINK-12.
    pub(super) fn settled(
        &self,
        messages: &[Incoming<'_>],
        batch: bool,
        settlement: &Settlement,
        parent: &Context,
        clock: Clock,
        error: Option<&BrokerError>,
    ) {
        let seen_as = self.all_seen_as(messages);
        self.settle_operation(seen_as, settlement, clock, error, |prepared| {
            let delay = delay_of(settlement);
            self.settle_span(seen_as, prepared, messages, (batch, delay), clock, parent)
        });
    }

    /// Records a settlement of all messages up to some place.
    // SPAN-33, ATTR-K-11.
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
        let seen_as = destination.map_or(places.common(), |destination| places.of(None, destination, destination));
        self.settle_operation(seen_as, settlement, clock, error, |prepared| {
            let place = seen_as.place(destination);
            let particular = Particular { kind: SpanKind::Client, place, attributes, links: Vec::new(), clock };
            prepared.start(particular, &mut |_| {}, parent)
        });
    }

    /// Records a settlement, with a span where one is wanted.
    // SPAN-32.
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
        let wanted = match self.settings().settle_spans {
            SettleSpans::Always => true,
            SettleSpans::Exceptional => error.is_some() || *settlement != Settlement::Ack,
            SettleSpans::Never => false,
        };
        if !wanted && error.is_none() && !self.engine().metrics.is_enabled() {
            return;
        }
        let span = if wanted { start(prepared) } else { None };
        let report = error.map(|error| ErrorReport::of_broker(error, self.settings()));
        Operation::new(prepared, span, clock).finish(Vec::new(), report.as_ref());
    }

    /// Counts what became of a message; see `SETTLED_MESSAGES`.
    pub(super) fn count_settlement(&self, settlement: &'static str, message: &Incoming<'_>) {
        if self.engine().metrics.is_enabled() {
            self.seen_as(message).count_settlement(settlement);
        }
    }

    fn seen_as(&self, message: &Incoming<'_>) -> &SeenAs {
        self.named(message, &message.name(self.settings()))
    }

    /// How a message stands whose name is known.
    fn named(&self, message: &Incoming<'_>, name: &str) -> &SeenAs {
        let places = &self.shared.places;
        let namespace = if places.has_namespaces() { message.namespace(self.settings()) } else { None };
        places.of(namespace, message.destination, name)
    }

    fn all_seen_as(&self, messages: &[Incoming<'_>]) -> &SeenAs {
        self.shared.places.of_all(messages.iter().map(|message| self.seen_as(message)))
    }

    /// The name that all of the messages have.
    // SPAN-18.
    fn shared_name<'a>(&self, messages: &[Incoming<'a>]) -> Option<Cow<'a, str>> {
        let (first, others) = messages.split_first()?;
        let name = first.name(self.settings());
        others.iter().all(|other| other.name(self.settings()) == name).then_some(name)
    }

    fn settle_span(
        &self,
        seen_as: &SeenAs,
        prepared: &Prepared,
        messages: &[Incoming<'_>],
        (batch, delay): (bool, Option<f64>),
        clock: Clock,
        parent: &Context,
    ) -> Option<Started> {
        let single = messages.first().filter(|_| messages.len() == 1 && !batch);
        let attributes = match single {
            Some(message) => message.native_attributes(self.settings(), OperationType::Settle),
            None => vec![batch_count(messages)],
        };
        let mut late = |set: &mut dyn FnMut(KeyValue)| {
            if let Some(message) = single {
                message.add_identity(self.settings(), set);
            }
            if let Some(delay) = delay {
                set(KeyValue::new(RETRY_DELAY, delay));
            }
        };
        let name = self.shared_name(messages);
        let place = place(seen_as, messages, name.as_deref());
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
        let attributes = message.native_attributes(self.settings(), OperationType::Receive);
        let mut late = |set: &mut dyn FnMut(KeyValue)| {
            message.add_identity(self.settings(), set);
            message.add_body_size(self.settings(), set);
        };
        let links = origins.iter().filter_map(|origin| origin.link.clone()).map(link).collect();
        let name = message.name(self.settings());
        let seen_as = self.named(message, &name);
        let place = seen_as.place(Some(&name));
        let particular = Particular { kind: SpanKind::Client, place, attributes, links, clock };
        seen_as.receive().start(particular, &mut late, parent)
    }

    /// The span of a call for one message that got none: it counts no messages.
    // ATTR-C-07.
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
        let seen_as = self.all_seen_as(messages);
        let name = self.shared_name(messages);
        let place = place(seen_as, messages, name.as_deref());
        let mut attributes = vec![batch_count(messages)];
        let mut own: Vec<Vec<KeyValue>> =
            messages.iter().map(|message| message.attributes(self.settings(), operation)).collect();
        attributes.extend(split_shared(&mut own, place.name.is_some()));
        if place.name.is_none() {
            // Different destinations stand on the links, none on the span (ATTR-C-04, LINK-15).
            for (message, own) in messages.iter().zip(&mut own) {
                let template = self.seen_as(message).template();
                if let Some(template) = template.filter(|_| place.template.is_none()) {
                    own.retain(|attribute| attribute.key.as_str() != MESSAGING_DESTINATION_TEMPLATE);
                    own.push(KeyValue::new(MESSAGING_DESTINATION_TEMPLATE, constant(template)));
                }
                own.retain(|attribute| attribute.key.as_str() != MESSAGING_DESTINATION_NAME);
                own.push(KeyValue::new(MESSAGING_DESTINATION_NAME, message.name(self.settings()).into_owned()));
            }
        }
        let links =
            origins.iter().zip(own).filter_map(|(origin, own)| Some(Link::new(origin.link.clone()?, own, 0))).collect();
        let is_process = operation == OperationType::Process;
        let kind = if is_process { SpanKind::Consumer } else { SpanKind::Client };
        let mut late = |set: &mut dyn FnMut(KeyValue)| {
            if is_process {
                baggage_attributes(parent.baggage(), &self.settings().baggage_attributes, set);
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
            let operation = Operation::new(seen_as.process(), span, clock);
            (operation, InFlight::new(seen_as.process()))
        });
        Processing::new(context, members, Arc::clone(self.engine()), operation)
    }

    /// Counts messages where they stand, of a batch as well.
    // METR-04.
    fn count_all(&self, messages: &[Incoming<'_>], count: impl Fn(usize, &SeenAs)) {
        let all = self.all_seen_as(messages);
        let are_alike = |message: &Incoming<'_>| std::ptr::eq(self.seen_as(message), all);
        if messages.is_empty() {
            return;
        }
        if messages.iter().all(are_alike) {
            return count(messages.len(), all);
        }
        messages.iter().for_each(|message| count(1, self.seen_as(message)));
    }

    /// Counts what arrives.
    // METR-14, -15.
    fn count_arrivals(&self, messages: usize, seen_as: &SeenAs) {
        if !self.shared.counts_at_receive.load(Ordering::Relaxed) {
            self.engine().metrics.consumed(messages, &seen_as.process().counts);
        }
    }

    /// Measures how long what is about to be handled for the first time has waited, where a clock is read at all.
    fn count_wait(&self, sent_at: Option<SystemTime>, seen_as: &SeenAs, clock: Clock) {
        let waited = sent_at.zip(clock.start_time()).and_then(|(sent, now)| now.duration_since(sent).ok());
        if let Some(waited) = waited {
            self.engine().metrics.queued(waited, &seen_as.process().counts);
        }
    }
}

/// Since when a message waits for its first handler. A further attempt has waited on purpose.
fn waited_since(message: &Incoming<'_>) -> Option<SystemTime> {
    message.sent_at.filter(|_| message.attempt == 1)
}

/// The seconds until the next attempt.
// ATTR-C-29.
fn delay_of(settlement: &Settlement) -> Option<f64> {
    match settlement {
        Settlement::Retry { after } => after.map(|after| after.as_secs_f64()),
        _ => None,
    }
}

/// The place of several messages: with the name they all have, if there is one.
fn place<'a>(seen_as: &'a SeenAs, messages: &[Incoming<'_>], name: Option<&'a str>) -> Place<'a> {
    if messages.is_empty() { seen_as.of_no_message() } else { seen_as.place(name) }
}

fn batch_count(messages: &[Incoming<'_>]) -> KeyValue {
    KeyValue::new(MESSAGING_BATCH_MESSAGE_COUNT, i64::try_from(messages.len()).unwrap_or(i64::MAX))
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("source", &self.shared.source).finish_non_exhaustive()
    }
}
