use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue, Value};
use throughline_core::message::OperationType;

use super::row::{Act, Row};
use super::span::Span;
use super::terms::{At, Fault, Val, Verb};
use crate::conformance::bench::Bench;
use crate::conformance::{DoorKind, GoldenError, Harness, Names, Refusal, Spec, Wildcard};

/// What the words of a row mean in one run.
pub(super) struct World {
    pub(super) names: Names,
    pub(super) door: DoorKind,
    pub(super) orders: String,
    pub(super) dead: String,
    pub(super) wildcard: Wildcard,
    /// The names of the two on the way in.
    arrived: Arrived,
    pub(super) refusal: Option<Refusal>,
    /// Whether the messages come from several destinations.
    pub(super) is_spread: bool,
    /// The subscription, and what telemetry says about it.
    pub(super) spec: Spec,
    pub(super) consumer: Vec<KeyValue>,
    pub(super) ambient: Option<Context>,
    /// What an operation on a single message has besides, by the type of the operation.
    message_attributes: [(&'static str, &'static [&'static str]); 5],
    /// What the destination gives to the span of a message that leaves.
    destination_attributes: &'static [&'static str],
    /// Whether the messages are a request and its reply, which have a correlation id of the client's.
    is_correlated: bool,
    /// Whether the messages come from several destinations.
    spread: bool,
    ambient_span: SpanContext,
    id: String,
}

/// How received messages are named.
struct Arrived {
    orders: String,
    wildcard: Wildcard,
}

impl World {
    pub(super) fn new<H: Harness>(bench: &Bench<H>, row: &Row, door: DoorKind, ambient: Option<Context>) -> Self {
        let wildcard = bench.wildcard("orders");
        let (takes_all, grouped) = match row.act {
            Act::Process(process) => (process.wildcard, process.group),
            Act::Pull { wildcard, .. } => (wildcard, false),
            _ => (false, false),
        };
        let mut spec = if takes_all { bench.spec_of(wildcard.pattern.clone()) } else { bench.spec("orders") };
        if grouped {
            spec = spec.with_group(bench.group("g"));
        }
        let arrives_as = |name: &str| bench.harness.arrives_as(name);
        let arrived = Arrived {
            orders: arrives_as(&bench.name("orders")),
            wildcard: Wildcard { pattern: arrives_as(&wildcard.pattern), name: arrives_as(&wildcard.name) },
        };
        Self {
            arrived,
            names: bench.harness.names(),
            door,
            orders: bench.name("orders"),
            dead: bench.name("dead"),
            wildcard,
            refusal: bench.harness.refusal(),
            is_spread: matches!(row.act, Act::Process(process) if process.spread),
            consumer: bench.harness.consumer_attributes(&spec),
            spec,
            ambient_span: ambient.as_ref().map_or(SpanContext::NONE, |ambient| ambient.span().span_context().clone()),
            ambient,
            message_attributes: OPERATIONS
                .map(|operation| (operation.as_str(), bench.harness.message_attributes(operation))),
            destination_attributes: bench.harness.destination_attributes(),
            is_correlated: bench.harness.names().correlates_requests && matches!(row.act, Act::Answer | Act::Request),
            spread: matches!(row.act, Act::Process(process) if process.spread),
            id: bench.id.clone(),
        }
    }

    pub(super) const fn ambient_span(&self) -> &SpanContext {
        &self.ambient_span
    }

    /// P#, the same in every run.
    pub(super) fn given(number: usize) -> SpanContext {
        let trace = TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_3100 + number as u128);
        let span = SpanId::from(0xb7ad_6b71_6920_3300 + number as u64);
        SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
    }

    pub(super) fn traceparent(context: &SpanContext) -> String {
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
    }

    pub(super) fn message_id(&self, number: usize) -> String {
        format!("{}-m{number}", self.id)
    }

    pub(super) fn conversation(&self) -> String {
        format!("{}-conversation", self.id)
    }

    /// Whether there is such a span here: through this door, of an operation that the system has.
    pub(super) fn is_shown(&self, span: &Span) -> bool {
        span.only.is_none_or(|only| only == self.door) && self.verb(span.verb).is_some()
    }

    /// The verb of the system; a system that does not settle has none for it.
    pub(super) fn verb(&self, verb: Verb) -> Option<&'static str> {
        let verbs = &self.names.operations;
        match verb {
            Verb::Ack => verbs.ack,
            Verb::Attempt => Some("retry"),
            Verb::Create => Some(verbs.create),
            Verb::Process => Some(verbs.process),
            Verb::Receive => Some(verbs.receive),
            Verb::Reject => verbs.reject,
            Verb::Request => Some(verbs.request),
            Verb::Retry => verbs.retry,
            Verb::Send => Some(verbs.send),
        }
    }

    // SPAN-13 to -20.
    pub(super) fn span_name(&self, span: &Span) -> String {
        let verb = self.verb(span.verb).unwrap_or("(no verb)");
        match self.low_cardinality(span.verb, span.at) {
            Some((_, destination)) => format!("{verb} {destination}"),
            None => verb.to_owned(),
        }
    }

    /// The attribute and the text by which names and metrics call a destination.
    pub(super) fn low_cardinality(&self, verb: Verb, at: At) -> Option<(&'static str, String)> {
        const NAME: &str = "messaging.destination.name";
        const TEMPLATE: &str = "messaging.destination.template";
        match at {
            At::Dead => Some((NAME, self.dead.clone())),
            At::Inbox => Some((TEMPLATE, self.names.inbox.to_owned())),
            At::Nowhere if self.refusal.as_ref().is_some_and(|refusal| refusal.destination.is_none()) => {
                Some((NAME, self.orders.clone()))
            }
            At::Absent | At::Nowhere => None,
            At::Orders => Some((NAME, self.orders(verb).to_owned())),
            At::Wildcard if !self.names.patterns_are_templates => {
                (!self.spread).then(|| (NAME, self.wildcard(verb).name.clone()))
            }
            At::Wildcard => Some((TEMPLATE, self.wildcard(verb).pattern.clone())),
        }
    }

    fn orders(&self, verb: Verb) -> &str {
        if verb.is_consumer() { &self.arrived.orders } else { &self.orders }
    }

    fn wildcard(&self, verb: Verb) -> &Wildcard {
        if verb.is_consumer() { &self.arrived.wildcard } else { &self.wildcard }
    }

    /// Everything a span must carry, and nothing else; `None` stands for any value.
    pub(super) fn attributes(&self, span: &Span) -> Vec<(String, Option<Value>)> {
        let mut all: Vec<(String, Option<Value>)> = Vec::new();
        let mut push = |key: &str, value: Option<Value>| all.push((key.to_owned(), value));
        if span.verb != Verb::Attempt {
            push("messaging.system", Some(self.names.system.into()));
            push("messaging.operation.name", self.verb(span.verb).map(Value::from));
            push("messaging.operation.type", Some(span.verb.operation_type().into()));
            if let Some((address, port)) = &self.names.server {
                push("server.address", Some(address.clone().into()));
                push("server.port", Some(i64::from(*port).into()));
            }
            if let Some(id) = self.names.client_id.as_ref().filter(|_| span.verb != Verb::Create) {
                push("messaging.client.id", Some(id.clone().into()));
            }
            for attribute in self.names.connection.iter().filter(|_| span.verb != Verb::Create) {
                push(attribute.key.as_str(), Some(attribute.value.clone()));
            }
        }
        if span.verb.is_consumer() {
            for attribute in &self.consumer {
                push(attribute.key.as_str(), Some(attribute.value.clone()));
            }
        }
        if span.at == At::Nowhere && self.low_cardinality(span.verb, At::Nowhere).is_some() && span.verb == Verb::Send {
            push("messaging.destination.name", Some(self.orders.clone().into()));
        }
        for (key, value) in span.attributes.iter().filter(|(_, value)| self.has_value(*value, span.at)) {
            push(key, self.value(*value, span));
        }
        for key in self.message_attributes(span).iter().filter(|key| on_span(span, key)) {
            push(key, None);
        }
        if matches!(span.verb, Verb::Create | Verb::Request | Verb::Send) {
            self.destination_attributes.iter().for_each(|key| push(key, None));
        }
        if self.is_correlated && matches!(span.verb, Verb::Process | Verb::Send) {
            push("messaging.message.conversation_id", None);
        }
        if let Some(fault) = span.error {
            push("error.type", Some(self.error_type(fault).into()));
        }
        all
    }

    /// What each link of a span has besides: what is particular to the messages of a batch.
    pub(super) fn link_attributes(&self, span: &Span) -> Vec<(String, Option<Value>)> {
        let keys = self.message_attributes(span).iter().filter(|key| span.is_batch() && !on_span(span, key));
        keys.map(|key| ((*key).to_owned(), None)).collect()
    }

    /// What an operation has besides for each of its messages.
    fn message_attributes(&self, span: &Span) -> &'static [&'static str] {
        let is_sending = matches!(span.verb, Verb::Request | Verb::Send);
        let is_unconfirmed = is_sending && (span.is_batch() || span.error.is_some());
        if span.verb == Verb::Attempt || span.messages == 0 || is_unconfirmed {
            return &[];
        }
        self.keys_of(span.verb)
    }

    /// Whether samplers cannot see an attribute, since it comes with the broker's confirmation.
    // ATTR-C-21.
    pub(super) fn is_late(&self, span: &Span, key: &str) -> bool {
        span.verb == Verb::Send && self.keys_of(span.verb).contains(&key)
    }

    fn keys_of(&self, verb: Verb) -> &'static [&'static str] {
        let found = self.message_attributes.iter().find(|(operation, _)| *operation == verb.operation_type());
        found.map_or(&[], |(_, keys)| keys)
    }

    /// Whether there is such a value: a destination need not have a template.
    fn has_value(&self, value: Val, at: At) -> bool {
        !matches!(value, Val::Template) || at != At::Wildcard || self.names.patterns_are_templates
    }

    pub(super) fn value(&self, value: Val, span: &Span) -> Option<Value> {
        let Span { verb, at, .. } = *span;
        Some(match value {
            Val::Any => return None,
            Val::Conversation => self.conversation().into(),
            Val::Destination if at == At::Wildcard => self.wildcard(verb).name.clone().into(),
            Val::Destination => self.low_cardinality(verb, at).map(|(_, name)| name).unwrap_or_default().into(),
            Val::DestinationOf(number) => format!("{}{}", self.wildcard(verb).name, number).into(),
            Val::Id(number) => self.message_id(number).into(),
            Val::Int(number) => number.into(),
            Val::OwnFault => std::any::type_name::<GoldenError>().into(),
            Val::Seconds(seconds) => seconds.into(),
            Val::Template => self.low_cardinality(verb, at).map(|(_, name)| name).unwrap_or_default().into(),
            Val::Text(text) => text.into(),
            Val::True => true.into(),
        })
    }

    pub(super) fn error_type(&self, fault: Fault) -> String {
        match fault {
            Fault::Own => std::any::type_name::<GoldenError>().to_owned(),
            Fault::Refused => self.refusal.as_ref().map_or("(no refusal)", |refusal| refusal.error_type).to_owned(),
            Fault::Type(name) => name.to_owned(),
        }
    }

    /// The attributes of the metrics of a span's operation, without the operation type.
    // METR-06 to -10.
    pub(super) fn metric_attributes(&self, verb: Verb, at: At) -> Vec<(String, Value)> {
        let mut all = vec![
            ("messaging.system".to_owned(), Value::from(self.names.system)),
            ("messaging.operation.name".to_owned(), self.verb(verb).unwrap_or("(no verb)").into()),
        ];
        // One measurement stands for all messages of a subscription by a pattern.
        let is_called = at != At::Wildcard || self.names.patterns_are_templates;
        all.extend(
            self.low_cardinality(verb, at).filter(|_| is_called).map(|(key, name)| (key.to_owned(), name.into())),
        );
        if let Some((address, port)) = &self.names.server {
            all.push(("server.address".to_owned(), address.clone().into()));
            all.push(("server.port".to_owned(), i64::from(*port).into()));
        }
        if verb.is_consumer() {
            all.extend(self.consumer.iter().map(|own| (own.key.to_string(), own.value.clone())));
        }
        all
    }
}

const OPERATIONS: [OperationType; 5] =
    [OperationType::Create, OperationType::Process, OperationType::Receive, OperationType::Send, OperationType::Settle];

/// Whether an attribute of a message stands on the span itself: of a batch only what the messages of one destination share.
// LINK-15.
fn on_span(span: &Span, key: &str) -> bool {
    !span.is_batch() || (key.contains(".destination.") && span.names_destination())
}
