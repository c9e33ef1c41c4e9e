//! What holds for everything a row exports.

use std::collections::BTreeSet;

use opentelemetry::Value;
use opentelemetry::trace::SpanContext;
use throughline_core::telemetry::semconv::{SCHEMA_URL, SCOPE_NAME};

use super::compare::Matched;
use super::terms::Verb;
use super::world::World;
use crate::{Capture, CapturedLog, SamplerCall};

/// The attributes that samplers must be shown (the `t` column of section 4.1).
const AT_START: [&str; 8] = [
    "messaging.system",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.destination.name",
    "messaging.destination.template",
    "messaging.destination.partition.id",
    "server.address",
    "server.port",
];

/// Section 12.
const DEPRECATED: [&str; 22] = [
    "messaging.operation",
    "messaging.client_id",
    "messaging.kafka.consumer.group",
    "messaging.kafka.destination.partition",
    "messaging.kafka.message.offset",
    "messaging.rocketmq.client_group",
    "messaging.eventhubs.consumer.group",
    "messaging.servicebus.destination.subscription_name",
    "messaging.destination_publish.name",
    "messaging.destination_publish.anonymous",
    "exception.escaped",
    "messaging.publish.duration",
    "messaging.receive.duration",
    "messaging.deliver.duration",
    "messaging.publish.messages",
    "messaging.receive.messages",
    "messaging.process.messages",
    "messaging.deliver.messages",
    "messaging.client.published.messages",
    "messaging.message.payload_size_bytes",
    "messaging.kafka.client_id",
    "messaging.kafka.message.key_size",
];

/// Each failed operation has one event, with the ids of its span; no other has any.
// STAT-13 to -18.
pub(super) fn events(world: &World, matched: &Matched<'_>, logs: &[CapturedLog]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut left: Vec<&CapturedLog> = logs.iter().collect();
    for (expected, span) in &matched.pairs {
        let Some(fault) = expected.error.filter(|_| expected.verb != Verb::Attempt) else { continue };
        let Some(index) = left.iter().position(|log| log.span_id == Some(span.span_context.span_id())) else {
            problems.push(format!("{}: its failure left no event", span.name));
            continue;
        };
        let log = left.remove(index);
        let operation = expected.verb.operation_type();
        let severity = if operation == "process" { 17 } else { 13 };
        let wanted = (format!("messaging.{operation}.exception"), Some(severity));
        let found = (log.event_name.clone().unwrap_or_default(), log.severity_number());
        if found != wanted {
            problems.push(format!("{}: its event is {found:?}, not {wanted:?}", span.name));
        }
        problems.extend(event_ids(log, &span.span_context));
        problems.extend(event_attributes(log, &world.error_type(fault)));
    }
    problems.extend(left.iter().map(|log| format!("there is an event {:?} too many", log.event_name)));
    problems
}

// STAT-17, GEN-01, GEN-02.
fn event_ids(log: &CapturedLog, span: &SpanContext) -> Vec<String> {
    let mut problems = Vec::new();
    if log.trace_id != Some(span.trace_id()) || log.trace_flags != Some(span.trace_flags()) {
        problems.push("an event has another trace id or other flags than its span".to_owned());
    }
    let scope = (log.scope.name(), log.scope.version(), log.scope.schema_url());
    if scope != (SCOPE_NAME, Some(env!("CARGO_PKG_VERSION")), Some(SCHEMA_URL)) {
        problems.push(format!("an event has the scope {scope:?}"));
    }
    problems
}

// STAT-16.
fn event_attributes(log: &CapturedLog, error_type: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let keys: Vec<&str> = log.attributes.iter().map(|(key, _)| key.as_str()).collect();
    let distinct: BTreeSet<&str> = keys.iter().copied().collect();
    let allowed = BTreeSet::from(["exception.message", "exception.type"]);
    if distinct.len() != keys.len() || !distinct.is_subset(&allowed) {
        problems.push(format!("an event has the attributes {keys:?}"));
    }
    if log.attribute("exception.type") != Some(&error_type.to_owned().into()) {
        problems.push(format!("exception.type is {:?}, not {error_type:?}", log.attribute("exception.type")));
    }
    problems
}

/// The sampler was shown every `t` attribute and every link.
// VERF-03, ATTR-C-21, LINK-14.
pub(super) fn sampler(world: &World, matched: &Matched<'_>, calls: &[SamplerCall]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut left: Vec<&SamplerCall> = calls.iter().collect();
    for (expected, span) in &matched.pairs {
        let trace = span.span_context.trace_id();
        let parent = span.parent_span_id;
        let Some(index) = left
            .iter()
            .position(|call| call.trace_id == trace && call.name == span.name && call.parent.span_id() == parent)
        else {
            problems.push(format!("{}: the sampler never saw it", span.name));
            continue;
        };
        let call = left.remove(index);
        let at_start = |key: &str| AT_START.contains(&key) && !world.is_late(expected, key);
        for attribute in span.attributes.iter().filter(|own| at_start(own.key.as_str())) {
            if call.attribute(attribute.key.as_str()) != Some(&attribute.value) {
                problems.push(format!("{}: the sampler was not shown {}", span.name, attribute.key));
            }
        }
        if call.links.len() != span.links.links.len() {
            problems.push(format!("{}: the sampler was shown {} links", span.name, call.links.len()));
        }
    }
    problems
}

/// DEPR-01: walks everything that was exported.
pub(super) fn deprecated(capture: &Capture) -> Vec<String> {
    let mut found = BTreeSet::new();
    for span in capture.spans() {
        let links = span.links.links.iter().flat_map(|link| &link.attributes);
        let events = span.events.events.iter().flat_map(|event| &event.attributes);
        for attribute in span.attributes.iter().chain(links).chain(events) {
            look(attribute.key.as_str(), Some(&attribute.value), &mut found);
        }
        span.events.events.iter().for_each(|event| look(&event.name, None, &mut found));
    }
    for point in capture.metrics() {
        look(&point.name, None, &mut found);
        point.attributes.iter().for_each(|(key, value)| look(key, Some(value), &mut found));
    }
    for log in capture.logs() {
        look(log.event_name.as_deref().unwrap_or_default(), None, &mut found);
        log.attributes.iter().for_each(|(key, _)| look(key, None, &mut found));
    }
    found.into_iter().map(|name| format!("the deprecated {name} is exported (DEPR-01)")).collect()
}

fn look(name: &str, value: Option<&Value>, found: &mut BTreeSet<String>) {
    if DEPRECATED.contains(&name) {
        found.insert(name.to_owned());
    }
    if name == "messaging.operation.type"
        && let Some(value) = value.map(Value::as_str).filter(|value| value == "publish" || value == "deliver")
    {
        found.insert(format!("value {value} of {name}"));
    }
}
