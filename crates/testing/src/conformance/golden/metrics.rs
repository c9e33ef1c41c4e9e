//! Compares the measurements of a row with those its spans call for.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::Value;
use opentelemetry_sdk::trace::SpanData;

use super::compare::Matched;
use super::row::Row;
use super::span::Span;
use super::terms::Verb;
use super::world::World;
use crate::{MetricKind, MetricPoint};

const CLIENT_DURATION: &str = "messaging.client.operation.duration";
const PROCESS_DURATION: &str = "messaging.process.duration";
const SENT: &str = "messaging.client.sent.messages";
const CONSUMED: &str = "messaging.client.consumed.messages";

// METR-05.
const BOUNDARIES: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

type Series = (&'static str, BTreeMap<String, String>);

/// What a series must amount to.
#[derive(Debug, Default)]
struct Total {
    count: u64,
    /// The spans' own durations, unless something in it has no span.
    // METR-11.
    elapsed: Option<Duration>,
    has_unknown: bool,
}

/// Compares all points of the conventions: none is missing, none is extra, and each amounts to what its spans say.
pub(super) fn compare(row: &Row, world: &World, matched: &Matched<'_>, points: &[MetricPoint]) -> Result<(), String> {
    let mut expected = totals(row, world, matched);
    let mut problems = Vec::new();
    for point in points {
        if point.name.starts_with("throughline.") {
            problems.extend(own(point));
            continue;
        }
        let attributes = shown(point.attributes.iter().map(|(key, value)| (key.clone(), value.clone())));
        let known = [CLIENT_DURATION, PROCESS_DURATION, SENT, CONSUMED].into_iter().find(|name| *name == point.name);
        match known.and_then(|name| expected.remove(&(name, attributes.clone()))) {
            Some(total) => problems.extend(amount(point, &total)),
            None => problems.push(format!("there is a point {} {attributes:?} too many", point.name)),
        }
    }
    problems.extend(expected.keys().map(|(name, attributes)| format!("there is no point {name} {attributes:?}")));
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n- ")) }
}

fn totals(row: &Row, world: &World, matched: &Matched<'_>) -> BTreeMap<Series, Total> {
    let mut totals = BTreeMap::new();
    for (expected, span) in &matched.pairs {
        add_span(&mut totals, row, world, expected, span);
    }
    let silent = row.settled.iter().filter(|_| world.door.settles() || row.settles());
    for verb in silent.filter(|verb| world.verb(**verb).is_some()) {
        let at = matched.pairs.iter().find(|(expected, _)| expected.verb == Verb::Process).map(|(found, _)| found.at);
        let mut attributes = world.metric_attributes(*verb, at.unwrap_or(super::terms::At::Orders));
        attributes.push(("messaging.operation.type".to_owned(), verb.operation_type().into()));
        add(&mut totals, CLIENT_DURATION, attributes, 1, None);
    }
    totals
}

fn add_span(totals: &mut BTreeMap<Series, Total>, row: &Row, world: &World, expected: &Span, span: &SpanData) {
    if expected.verb == Verb::Attempt {
        return;
    }
    let plain = world.metric_attributes(expected.verb, expected.at);
    let mut timed = plain.clone();
    let failed = expected.error.map(|fault| ("error.type".to_owned(), Value::from(world.error_type(fault))));
    timed.extend(failed.clone());
    let elapsed = span.end_time.duration_since(span.start_time).unwrap_or_default();
    if expected.verb == Verb::Process {
        add(totals, PROCESS_DURATION, timed, 1, Some(elapsed));
        if !row.settings.receive_spans {
            add(totals, CONSUMED, plain, expected.messages, None);
        }
        return;
    }
    timed.push(("messaging.operation.type".to_owned(), expected.verb.operation_type().into()));
    add(totals, CLIENT_DURATION, timed, 1, Some(elapsed));
    match expected.verb {
        Verb::Receive => add(totals, CONSUMED, plain, expected.messages, None),
        Verb::Request | Verb::Send => {
            if expected.sent > 0 {
                add(totals, SENT, plain.clone(), expected.sent, None);
            }
            let others = expected.messages - expected.sent;
            add(totals, SENT, plain.into_iter().chain(failed).collect(), others, None);
        }
        _ => {}
    }
}

fn add(
    totals: &mut BTreeMap<Series, Total>,
    name: &'static str,
    attributes: Vec<(String, Value)>,
    count: u64,
    elapsed: Option<Duration>,
) {
    if count == 0 {
        return;
    }
    let total = totals.entry((name, shown(attributes.into_iter()))).or_default();
    total.count += count;
    match elapsed {
        Some(elapsed) => *total.elapsed.get_or_insert_default() += elapsed,
        None => total.has_unknown = true,
    }
}

/// Values in a form that can be sorted and tells types apart, so that `"1"` is not `1`.
// ATTR-C-25.
fn shown(attributes: impl Iterator<Item = (String, Value)>) -> BTreeMap<String, String> {
    let shown = |value: &Value| match value {
        Value::String(text) => format!("{:?}", text.as_str()),
        other => other.to_string(),
    };
    attributes.map(|(key, value)| (key, shown(&value))).collect()
}

fn amount(point: &MetricPoint, total: &Total) -> Vec<String> {
    let mut problems = Vec::new();
    if [SENT, CONSUMED].contains(&point.name.as_str()) {
        if (point.kind, point.unit.as_str()) != (MetricKind::Counter, "{message}") {
            problems.push(format!("{} is a {:?} in {:?}", point.name, point.kind, point.unit));
        }
        if point.sum != total.count as f64 {
            problems.push(format!("{} counts {}, not {}: {:?}", point.name, point.sum, total.count, point.attributes));
        }
        return problems;
    }
    if (point.kind, point.unit.as_str()) != (MetricKind::Histogram, "s") || point.bounds() != BOUNDARIES {
        problems.push(format!("{} is a {:?} in {:?} with {:?}", point.name, point.kind, point.unit, point.bounds()));
    }
    if point.count != total.count {
        problems.push(format!("{} was measured {} times, not {}", point.name, point.count, total.count));
    }
    if let Some(elapsed) = total.elapsed.filter(|_| !total.has_unknown)
        && (point.sum - elapsed.as_secs_f64()).abs() > 1e-6
    {
        problems.push(format!("{} measured {} s, its spans {elapsed:?} (METR-11)", point.name, point.sum));
    }
    problems
}

/// The project's own metrics: nothing is in flight at the end, and nothing in them is of high cardinality.
// METR-10.
fn own(point: &MetricPoint) -> Vec<String> {
    let mut problems = Vec::new();
    if point.name == "throughline.process.in_flight" && point.sum != 0.0 {
        problems.push(format!("{} deliveries are still in flight", point.sum));
    }
    let forbidden = ["messaging.message.id", "messaging.message.conversation_id", "messaging.client.id"];
    let found = point.attributes.keys().filter(|key| forbidden.contains(&key.as_str()));
    problems.extend(found.map(|key| format!("{} carries {key}", point.name)));
    problems
}
