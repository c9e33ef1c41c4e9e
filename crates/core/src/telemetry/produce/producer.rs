use std::sync::{Arc, OnceLock};

use opentelemetry::trace::{Link, SpanContext, SpanKind};
use opentelemetry::{Context, KeyValue};

use super::outgoing::Outgoing;
use super::sending::Sending;
use crate::guard::Guard;
use crate::message::{CreationContext, Headers, OperationType, Operations, System, Target};
use crate::telemetry::attributes::{Place, add_once, split_shared};
use crate::telemetry::changes::carries_nothing;
use crate::telemetry::engine::{Clock, Engine};
use crate::telemetry::operation::Operation;
use crate::telemetry::prepared::{Particular, Prepared};
use crate::telemetry::reply_address::is_reply_address;
use crate::telemetry::semconv::{
    MESSAGING_BATCH_MESSAGE_COUNT, MESSAGING_MESSAGE_BODY_SIZE, MESSAGING_MESSAGE_CONVERSATION_ID, MESSAGING_MESSAGE_ID,
};

/// The telemetry of what is published on one connection: create and send.
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
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    system: Arc<System>,
    /// What is prepared for the destinations seen so far. Filled once and never changed, so that reading it takes no lock.
    prepared: [OnceLock<Arc<Prepared>>; REMEMBERED],
}

/// For how many destinations what is constant is remembered; for the others it is made for each message.
const REMEMBERED: usize = 64;

/// In how many places a destination may be remembered.
const PLACES: usize = 4;

impl Producer {
    pub(crate) fn new(engine: Arc<Engine>, system: Arc<System>) -> Self {
        let prepared = [const { OnceLock::new() }; REMEMBERED];
        Self { inner: Arc::new(Inner { engine, system, prepared }) }
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.inner.engine
    }

    /// What stands around code of others.
    pub(crate) fn guard(&self) -> &Guard {
        self.engine().guard()
    }

    /// Whether a message leaves as it is: nothing is recorded, and nothing is to be carried or to be removed.
    pub(crate) fn passes_through(&self, headers: &Headers) -> bool {
        !self.engine().is_recording() && headers.is_empty() && Context::map_current(carries_nothing)
    }

    /// Returns what is the same for all messages to a place; `attributes` are those of the target.
    fn prepared(
        &self,
        operation: OperationType,
        verb: &'static str,
        place: &Place<'_>,
        attributes: &[KeyValue],
    ) -> Arc<Prepared> {
        let Inner { engine, system, prepared } = self.inner.as_ref();
        let make = || Arc::new(Prepared::for_target(engine, system, operation, verb, place, attributes));
        let first = place.low_cardinality().map_or(0, spread) + operation as usize;
        for step in 0..PLACES {
            let Some(slot) = prepared.get((first + step) % REMEMBERED) else { break };
            let known = slot.get_or_init(make);
            if known.fits(operation, verb, place) {
                return Arc::clone(known);
            }
        }
        make()
    }

    /// Starts sending one message under the current context: starts its send span and writes the context into its headers.
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
        let attributes = target.attributes.clone();
        self.start_send(&Context::current(), target, attributes, message, self.operations().send)
    }

    /// Starts a request: as [`send`](Self::send), but it lasts until the reply is there.
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
        let attributes = target.attributes.clone();
        self.start_send(&Context::current(), target, attributes, message, self.operations().request)
    }

    /// The verbs of the connection.
    pub(crate) fn operations(&self) -> &Operations {
        self.inner.system.operations()
    }

    /// Starts sending one message, or a request. `attributes` are those of the target: the span takes them.
    pub(crate) fn start_send(
        &self,
        parent: &Context,
        target: &Target<'_>,
        mut attributes: Vec<KeyValue>,
        mut message: Outgoing<'_>,
        verb: &'static str,
    ) -> Sending {
        let supplied = self.supplied(&message);
        if !self.engine().is_recording() {
            self.write_context(parent, parent, message, supplied);
            return Sending::new(None, 1);
        }
        let clock = self.engine().clock();
        let place = place(target, parent);
        let prepared = self.prepared(OperationType::Send, verb, &place, &attributes);
        attributes.append(&mut message.attributes);
        let (kind, links) = match &supplied {
            Some(context) => (SpanKind::Client, vec![Link::new(context.clone(), Vec::new(), 0)]),
            None => (SpanKind::Producer, Vec::new()),
        };
        let particular = self.particular(kind, place, &message, attributes, links, clock);
        let span = prepared.start(particular, &mut self.all_late(&message), parent);
        self.write_context(span.as_ref().map_or(parent, |span| &span.context), parent, message, supplied);
        Sending::new(Some(Operation::new(&prepared, span, clock)), 1)
    }

    /// Starts sending a batch under the current context: a create span for each message and one send span.
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
        let clock = self.engine().clock();
        let place = place(target, parent);
        let verb = self.operations().send;
        let count = messages.len();
        let creates = self.engine().settings.create_spans;
        let create = self.operations().create;
        let create = self.prepared(OperationType::Create, create, &place, &target.attributes);
        let mut own: Vec<Vec<KeyValue>> = messages.iter().map(|message| self.message_attributes(message)).collect();
        let shared = split_shared(&mut own, true);
        let mut links = Vec::new();
        let mut waiting = Vec::new();
        for (message, own) in messages.into_iter().zip(own) {
            let supplied = self.supplied(&message);
            if supplied.is_none() && !creates {
                waiting.push(message);
                continue;
            }
            let made = match supplied {
                Some(_) => None,
                None => self.create(&create, parent, target, place, &message),
            };
            let creation = made.as_ref().or(supplied.as_ref()).cloned();
            links.extend(creation.map(|creation| Link::new(creation, own, 0)));
            match made {
                Some(made) => self.engine().inject_span(&made, parent, message.headers),
                None => self.write_context(parent, parent, message, supplied),
            }
        }
        let kind = if waiting.is_empty() { SpanKind::Client } else { SpanKind::Producer };
        let mut attributes = target.attributes.clone();
        attributes.push(KeyValue::new(MESSAGING_BATCH_MESSAGE_COUNT, i64::try_from(count).unwrap_or(i64::MAX)));
        attributes.extend(shared);
        let prepared = self.prepared(OperationType::Send, verb, &place, &target.attributes);
        let span = prepared.start(Particular { kind, place, attributes, links, clock }, &mut |_| {}, parent);
        for message in waiting {
            self.write_context(span.as_ref().map_or(parent, |span| &span.context), parent, message, None);
        }
        Sending::new(Some(Operation::new(&prepared, span, clock)), count)
    }

    /// Makes one message of a batch: its create span, ended at once.
    // SPAN-01, LINK-11.
    fn create(
        &self,
        prepared: &Prepared,
        parent: &Context,
        target: &Target<'_>,
        place: Place<'_>,
        message: &Outgoing<'_>,
    ) -> Option<SpanContext> {
        let attributes = [target.attributes.as_slice(), &message.attributes].concat();
        let clock = self.engine().clock();
        let particular = self.particular(SpanKind::Producer, place, message, attributes, Vec::new(), clock);
        prepared.make(particular, &mut self.all_late(message), parent)
    }

    /// The creation context a message already has, from the caller or in its headers.
    fn supplied(&self, message: &Outgoing<'_>) -> Option<SpanContext> {
        let context = match &message.creation {
            CreationContext::New => return None,
            CreationContext::Given(context) => context.clone(),
            CreationContext::Kept => {
                let extractor = message.headers.as_extractor();
                self.engine().read(extractor).span?
            }
        };
        Some(context).filter(SpanContext::is_valid)
    }

    /// Writes the message's creation context, in place of whatever was there, unless it is kept.
    // PROP-04, -05.
    fn write_context(&self, own: &Context, parent: &Context, message: Outgoing<'_>, supplied: Option<SpanContext>) {
        let kept = matches!(message.creation, CreationContext::Kept) && supplied.is_some();
        if kept {
            return;
        }
        let engine = self.engine();
        match supplied {
            Some(context) => engine.inject_span(&context, parent, message.headers),
            None => engine.inject(own, message.headers),
        }
    }

    /// The attributes of one message, in the order of the specification.
    fn message_attributes(&self, message: &Outgoing<'_>) -> Vec<KeyValue> {
        let mut attributes = Vec::new();
        self.late(message)(&mut |attribute| attributes.push(attribute));
        let own = attributes.len();
        for attribute in &message.attributes {
            add_once(&mut attributes, own, attribute.clone());
        }
        attributes
    }

    /// The attributes of one message that samplers need not see: who it is.
    fn late<'a>(&'a self, message: &'a Outgoing<'_>) -> impl FnMut(&mut dyn FnMut(KeyValue)) + 'a {
        let settings = &self.engine().settings;
        move |set| {
            if let Some(id) = message.id.filter(|_| settings.message_ids) {
                set(KeyValue::new(MESSAGING_MESSAGE_ID, id.to_owned()));
            }
            if let Some(id) = message.correlation_id.filter(|_| settings.conversation_ids) {
                set(KeyValue::new(MESSAGING_MESSAGE_CONVERSATION_ID, id.to_owned()));
            }
        }
    }

    fn particular<'a>(
        &self,
        kind: SpanKind,
        place: Place<'a>,
        message: &Outgoing<'_>,
        mut attributes: Vec<KeyValue>,
        links: Vec<Link>,
        clock: Clock,
    ) -> Particular<'a> {
        let settings = &self.engine().settings;
        attributes.retain(|attribute| {
            !settings.says(attribute.key.as_str(), message.id.is_some(), message.correlation_id.is_some())
        });
        Particular { kind, place, attributes, links, clock }
    }

    /// The attributes of a message that has a span of its own, as far as samplers need not see them.
    fn all_late<'a>(&'a self, message: &'a Outgoing<'_>) -> impl FnMut(&mut dyn FnMut(KeyValue)) + 'a {
        let mut identity = self.late(message);
        move |set| {
            identity(set);
            if self.engine().settings.body_sizes {
                let size = i64::try_from(message.body_size).unwrap_or(i64::MAX);
                set(KeyValue::new(MESSAGING_MESSAGE_BODY_SIZE, size));
            }
        }
    }
}

/// Spreads destinations over the places in which they are remembered: FNV-1a, which is short and good enough for names.
fn spread(name: &str) -> usize {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 16)) as usize
}

/// How a target stands in telemetry. An answer to the message that is being handled goes where the requester wants it.
// SPAN-19, METR-09.
fn place<'a>(target: &'a Target<'_>, parent: &Context) -> Place<'a> {
    let is_answer = is_reply_address(parent, &target.name);
    Place {
        name: Some(target.name.as_ref()),
        template: target.template.as_deref(),
        temporary: target.temporary || is_answer,
        anonymous: target.anonymous || is_answer,
        is_any: false,
    }
}
