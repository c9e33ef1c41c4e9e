use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::{Key, KeyValue, Value};

use super::interned::interned;
use super::semconv::{
    MESSAGING_CLIENT_ID, MESSAGING_CONSUMER_GROUP_NAME, MESSAGING_DESTINATION_ANONYMOUS, MESSAGING_DESTINATION_NAME,
    MESSAGING_DESTINATION_PARTITION_ID, MESSAGING_DESTINATION_SUBSCRIPTION_NAME, MESSAGING_DESTINATION_TEMPLATE,
    MESSAGING_DESTINATION_TEMPORARY, MESSAGING_MESSAGE_CONVERSATION_ID, MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE, MESSAGING_SYSTEM, SERVER_ADDRESS, SERVER_PORT,
};
use crate::message::{OperationType, Source, System};

/// How a destination stands in a span's name and attributes: what is known of it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) template: Option<&'a str>,
    pub(crate) temporary: bool,
    pub(crate) anonymous: bool,
    /// Whether the name may be one of many, as of a message that no pattern of its subscription matches.
    pub(crate) is_any: bool,
}

impl<'a> Place<'a> {
    /// The part that is low in cardinality: the template, else a name that is neither temporary nor generated.
    // SPAN-14, -15, METR-09.
    pub(crate) fn low_cardinality(&self) -> Option<&'a str> {
        let is_one_of_few = !self.temporary && !self.anonymous && !self.is_any;
        self.template.or(self.name.filter(|name| is_one_of_few && !name.is_empty()))
    }

    /// What of a destination is the same for all its messages: everything but the name.
    pub(crate) fn push_constant(&self, attributes: &mut Vec<KeyValue>) {
        if let Some(template) = self.template {
            attributes.push(KeyValue::new(MESSAGING_DESTINATION_TEMPLATE, constant(template)));
        }
        if self.temporary {
            attributes.push(KeyValue::new(MESSAGING_DESTINATION_TEMPORARY, true));
        }
        if self.anonymous {
            attributes.push(KeyValue::new(MESSAGING_DESTINATION_ANONYMOUS, true));
        }
    }

    /// On metrics: the template, else the name where it is low in cardinality.
    // METR-06, -09.
    fn push_metric(&self, attributes: &mut Vec<KeyValue>) {
        if let Some(template) = self.template {
            attributes.push(KeyValue::new(MESSAGING_DESTINATION_TEMPLATE, constant(template)));
        } else if let Some(name) = self.low_cardinality() {
            attributes.push(KeyValue::new(MESSAGING_DESTINATION_NAME, constant(name)));
        }
    }
}

/// Builds a span's name: the operation, then the destination's low-cardinality part.
// SPAN-13 to -18.
pub(crate) fn span_name(operation: &'static str, place: &Place<'_>) -> Cow<'static, str> {
    let Some(destination) = place.low_cardinality() else { return operation.into() };
    let name = format!("{operation} {destination}");
    interned(&name).map_or_else(|| Cow::Owned(name.clone()), Cow::Borrowed)
}

/// The value of an attribute that is built once and copied to many spans: copying it allocates nothing.
pub(crate) fn constant(text: &str) -> Value {
    let shared = || Value::String(Arc::<str>::from(text).into());
    interned(text).map_or_else(shared, Value::from)
}

/// The attributes every span of a connection starts with.
pub(crate) fn system_attributes(
    system: &System,
    operation: OperationType,
    verb: &'static str,
    room: usize,
) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(5 + system.attributes().len() + room);
    attributes.push(KeyValue::new(MESSAGING_SYSTEM, constant(system.name())));
    attributes.push(KeyValue::new(MESSAGING_OPERATION_NAME, verb));
    attributes.push(KeyValue::new(MESSAGING_OPERATION_TYPE, operation.as_str()));
    push_server(system, &mut attributes);
    if operation != OperationType::Create {
        if let Some(id) = system.client_id() {
            attributes.push(KeyValue::new(MESSAGING_CLIENT_ID, constant(id)));
        }
        attributes.extend_from_slice(system.attributes());
    }
    attributes
}

/// The attributes every span of a subscription starts with.
pub(crate) fn source_attributes(source: &Source, operation: OperationType, verb: &'static str) -> Vec<KeyValue> {
    let mut attributes = system_attributes(&source.system, operation, verb, 8);
    push_consumer(source, &mut attributes);
    attributes
}

/// The attributes of a subscription's metrics.
// METR-06, -07, -10.
pub(crate) fn consumer_metric_attributes(source: &Source, verb: &'static str, place: &Place<'_>) -> Vec<KeyValue> {
    let mut attributes = producer_metric_attributes(&source.system, verb, place);
    push_consumer(source, &mut attributes);
    attributes
}

/// The attributes of a publisher's metrics.
// METR-06, -10.
pub(crate) fn producer_metric_attributes(system: &System, verb: &'static str, place: &Place<'_>) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(8);
    attributes.push(KeyValue::new(MESSAGING_SYSTEM, constant(system.name())));
    attributes.push(KeyValue::new(MESSAGING_OPERATION_NAME, verb));
    place.push_metric(&mut attributes);
    push_server(system, &mut attributes);
    attributes
}

fn push_server(system: &System, attributes: &mut Vec<KeyValue>) {
    if let Some((address, port)) = system.server() {
        attributes.push(KeyValue::new(SERVER_ADDRESS, constant(address)));
        if let Some(port) = port {
            attributes.push(KeyValue::new(SERVER_PORT, i64::from(port)));
        }
    }
}

fn push_consumer(source: &Source, attributes: &mut Vec<KeyValue>) {
    if let Some(group) = &source.group {
        attributes.push(KeyValue::new(MESSAGING_CONSUMER_GROUP_NAME, constant(group)));
    }
    if let Some(subscription) = &source.subscription {
        attributes.push(KeyValue::new(MESSAGING_DESTINATION_SUBSCRIPTION_NAME, constant(subscription)));
    }
}

/// Leaves one attribute of each key: that in `own` where the key is in there, else the last one.
// GEN-06.
pub(crate) fn once_each(attributes: &mut Vec<KeyValue>, own: &[KeyValue]) {
    let is_doubled = |(index, attribute): (usize, &KeyValue)| {
        attributes.iter().skip(index + 1).any(|later| later.key == attribute.key)
    };
    if !attributes.iter().enumerate().any(is_doubled) {
        return;
    }
    let mut kept: Vec<KeyValue> = Vec::with_capacity(attributes.len());
    for attribute in attributes.drain(..) {
        match kept.iter_mut().find(|earlier| earlier.key == attribute.key) {
            None => kept.push(attribute),
            Some(earlier) => {
                let own = own.iter().find(|own| own.key == attribute.key).cloned();
                *earlier = own.unwrap_or(attribute);
            }
        }
    }
    *attributes = kept;
}

/// Adds an attribute behind the first `own` ones, which keep their values; among the others the last one of a key counts.
pub(crate) fn add_once(attributes: &mut Vec<KeyValue>, own: usize, attribute: KeyValue) {
    match attributes.iter().position(|earlier| earlier.key == attribute.key) {
        Some(index) if index < own => {}
        Some(index) => attributes.iter_mut().skip(index).take(1).for_each(|earlier| *earlier = attribute.clone()),
        None => attributes.push(attribute),
    }
}

/// Splits the attributes of a batch's messages: those that describe the destination or the conversation and are equal for all, and
/// for each message the others. What identifies one message stays with it, also in a batch of one. Partitions of
/// several destinations are several partitions, also where their numbers are equal.
// LINK-15, ATTR-C-08, ATTR-K-10.
pub(crate) fn split_shared(per_message: &mut [Vec<KeyValue>], is_one_place: bool) -> Vec<KeyValue> {
    let Some((first, others)) = per_message.split_first() else { return Vec::new() };
    let common: Vec<KeyValue> = first
        .iter()
        .filter(|attribute| is_shareable(&attribute.key))
        .filter(|attribute| is_one_place || attribute.key.as_str() != MESSAGING_DESTINATION_PARTITION_ID)
        .filter(|attribute| others.iter().all(|other| other.contains(attribute)))
        .cloned()
        .collect();
    for attributes in per_message {
        attributes.retain(|attribute| !common.iter().any(|shared| shared.key == attribute.key));
    }
    common
}

fn is_shareable(key: &Key) -> bool {
    key.as_str() == MESSAGING_MESSAGE_CONVERSATION_ID || key.as_str().contains(".destination.")
}
