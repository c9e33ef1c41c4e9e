use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::trace::{Link, SpanContext, SpanKind};
use opentelemetry::{Context, Key, KeyValue, Value};

use super::attributes::{
    Place, add_once, constant, consumer_metric_attributes, once_each, producer_metric_attributes, source_attributes,
    span_name, system_attributes,
};
use super::choices::OperationInfo;
use super::engine::{Clock, Engine, Keys, Late, Start, Started, with_operation_type};
use super::semconv::MESSAGING_DESTINATION_NAME;
use crate::message::{OperationType, Source, System};

/// What is the same for every span and every measurement of one operation at one place: built once, copied without an allocation.
pub(crate) struct Prepared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) operation: OperationType,
    pub(crate) verb: &'static str,
    system: Arc<System>,
    place: OwnedPlace,
    span_name: Cow<'static, str>,
    /// With the destination's name where it is the same for all messages; it is the last one.
    attributes: Vec<KeyValue>,
    /// Of `attributes` without that name.
    keys: Arc<[Key]>,
    names_destination: bool,
    /// Those of the first target. What comes again is copied from here: a text of its own would be made for each span, and given back by
    /// the thread that exports it.
    of_target: Vec<KeyValue>,
    /// Of what counts messages.
    pub(crate) counts: Vec<KeyValue>,
    /// Of the operation's duration.
    pub(crate) durations: Vec<KeyValue>,
}

struct OwnedPlace {
    name: Option<Box<str>>,
    template: Option<Box<str>>,
    temporary: bool,
    anonymous: bool,
    is_any: bool,
}

impl OwnedPlace {
    fn borrowed(&self) -> Place<'_> {
        Place {
            name: self.name.as_deref(),
            template: self.template.as_deref(),
            temporary: self.temporary,
            anonymous: self.anonymous,
            is_any: self.is_any,
        }
    }
}

/// What is particular to one span.
pub(crate) struct Particular<'a> {
    pub(crate) kind: SpanKind,
    pub(crate) place: Place<'a>,
    /// Further attributes that samplers are to see.
    pub(crate) attributes: Vec<KeyValue>,
    pub(crate) links: Vec<Link>,
    pub(crate) clock: Clock,
}

impl Prepared {
    pub(crate) fn for_source(
        engine: &Arc<Engine>,
        source: &Source,
        operation: OperationType,
        verb: &'static str,
        place: &Place<'_>,
    ) -> Self {
        let attributes = source_attributes(source, operation, verb);
        let counts = consumer_metric_attributes(source, verb, place);
        Self::new(engine, &source.system, operation, verb, place, attributes, counts)
    }

    pub(crate) fn for_target(
        engine: &Arc<Engine>,
        system: &Arc<System>,
        operation: OperationType,
        verb: &'static str,
        place: &Place<'_>,
        of_target: &[KeyValue],
    ) -> Self {
        let attributes = system_attributes(system, operation, verb, 4);
        let counts = producer_metric_attributes(system, verb, place);
        let mut prepared = Self::new(engine, system, operation, verb, place, attributes, counts);
        if prepared.names_destination {
            prepared.of_target = of_target.iter().cloned().map(cheap_to_clone).collect();
        }
        prepared
    }

    fn new(
        engine: &Arc<Engine>,
        system: &Arc<System>,
        operation: OperationType,
        verb: &'static str,
        place: &Place<'_>,
        mut attributes: Vec<KeyValue>,
        counts: Vec<KeyValue>,
    ) -> Self {
        place.push_constant(&mut attributes);
        let own = attributes.clone();
        once_each(&mut attributes, &own);
        engine.settings.limit(&mut attributes);
        let keys = attributes.iter().map(|attribute| attribute.key.clone()).collect();
        let mut destination: Vec<_> =
            place.low_cardinality().filter(|_| place.template.is_none()).into_iter().map(destination_name).collect();
        engine.settings.limit(&mut destination);
        let names_destination = !destination.is_empty();
        attributes.append(&mut destination);
        let durations = match operation {
            OperationType::Process => counts.clone(),
            _ => with_operation_type(&counts, operation),
        };
        Self {
            engine: Arc::clone(engine),
            operation,
            verb,
            system: Arc::clone(system),
            span_name: span_name(verb, place),
            attributes: attributes.into_iter().map(cheap_to_clone).collect(),
            keys,
            names_destination,
            of_target: Vec::new(),
            counts,
            durations,
            place: OwnedPlace {
                name: place.name.map(Into::into),
                template: place.template.map(Into::into),
                temporary: place.temporary,
                anonymous: place.anonymous,
                is_any: place.is_any,
            },
        }
    }

    /// Whether a message for this place has the same span name and the same metrics.
    pub(crate) fn fits(&self, operation: OperationType, verb: &'static str, place: &Place<'_>) -> bool {
        let own = self.place.borrowed();
        self.operation == operation
            && self.verb == verb
            && own.temporary == place.temporary
            && own.anonymous == place.anonymous
            && own.template.is_some() == place.template.is_some()
            && own.low_cardinality() == place.low_cardinality()
    }

    /// Starts the span of one operation under `parent`; `None` when there is to be no span. `late` gives the attributes that samplers
    /// need not see, and is asked only if the span records.
    pub(crate) fn start(&self, particular: Particular<'_>, late: &mut Late<'_>, parent: &Context) -> Option<Started> {
        if !self.engine.has_sdk() {
            return None;
        }
        self.engine.start_span(self.complete(particular), late, parent)
    }

    /// Starts a span, ends it at once, records its duration and returns its context.
    pub(crate) fn make(
        &self,
        particular: Particular<'_>,
        late: &mut Late<'_>,
        parent: &Context,
    ) -> Option<SpanContext> {
        let clock = particular.clock;
        let made =
            if self.engine.has_sdk() { self.engine.make_span(self.complete(particular), late, parent) } else { None };
        let (span, elapsed) = made.unzip();
        let elapsed = elapsed.flatten().or_else(|| clock.elapsed());
        if let Some(elapsed) = elapsed {
            self.engine.metrics.duration(self.operation, elapsed, &self.durations, None);
        }
        span
    }

    #[inline]
    fn complete<'a>(&'a self, particular: Particular<'a>) -> Start<'a> {
        let engine = &self.engine;
        let Particular { kind, place, attributes: further, links, clock } = particular;
        let own = self.place.borrowed();
        let is_own_name = self.names_destination && own.name == place.name;
        let constant = if is_own_name || !self.names_destination { 0 } else { 1 };
        let constant = self.attributes.get(..self.attributes.len() - constant).unwrap_or_default();
        let mut attributes = Vec::with_capacity(constant.len() + further.len() + ROOM);
        attributes.extend_from_slice(constant);
        if let Some(name) = place.name.filter(|name| !is_own_name && !name.is_empty()) {
            engine.settings.push_limited(&mut attributes, KeyValue::new(MESSAGING_DESTINATION_NAME, name.to_owned()));
        }
        let conventional = attributes.len();
        for attribute in further {
            let known = self.of_target.iter().find(|known| **known == attribute);
            let attribute = known.cloned().unwrap_or(attribute);
            if let Some(attribute) = engine.settings.limited(attribute) {
                add_once(&mut attributes, conventional, attribute);
            }
        }
        let keys = Keys::sharing(Some(Arc::clone(&self.keys)), attributes.get(self.keys.len()..).unwrap_or_default());
        let is_same_place = own.low_cardinality() == place.low_cardinality();
        let name = if is_same_place { self.span_name.clone() } else { span_name(self.verb, &place) };
        let info = OperationInfo {
            operation_type: self.operation,
            operation_name: self.verb,
            system: self.system.name(),
            destination: place.name.unwrap_or_default(),
            template: place.template,
        };
        Start { info, name, kind, attributes, keys, links, clock }
    }
}

/// For the destination's name and a few late attributes, so that they do not move the others.
const ROOM: usize = 3;

fn destination_name(name: &str) -> KeyValue {
    KeyValue::new(MESSAGING_DESTINATION_NAME, constant(name))
}

fn cheap_to_clone(attribute: KeyValue) -> KeyValue {
    match &attribute.value {
        Value::String(text) => KeyValue::new(attribute.key.clone(), constant(text.as_str())),
        _ => attribute,
    }
}
