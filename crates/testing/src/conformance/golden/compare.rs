//! Compares the exported spans with a row: complete sets, both ways.

use opentelemetry::KeyValue;
use opentelemetry::Value;
use opentelemetry::trace::{Link, SpanContext, SpanId, Status};
use opentelemetry_sdk::trace::SpanData;
use throughline_core::telemetry::semconv::{SCHEMA_URL, SCOPE_NAME};

use super::row::Row;
use super::span::Span;
use super::terms::{Fault, Ref, Val, Verb};
use super::world::World;

/// The expected spans and what was exported for each.
pub(super) struct Matched<'a> {
    pub(super) pairs: Vec<(&'a Span, &'a SpanData)>,
}

impl Matched<'_> {
    /// Returns the context a reference means; of several spans with one label, the first.
    pub(super) fn context(&self, reference: Ref, world: &World) -> Option<SpanContext> {
        match reference {
            Ref::Ambient => Some(world.ambient_span().clone()),
            Ref::Given(number) => Some(World::given(number)),
            Ref::None => None,
            Ref::Of(label) => {
                let found = self.pairs.iter().find(|(expected, _)| expected.label == label);
                found.map(|(_, span)| span.span_context.clone())
            }
        }
    }
}

/// Finds the exported span for each expected one; fails when one is missing or another is there.
pub(super) fn match_spans<'a>(row: &'a Row, world: &World, spans: &'a [SpanData]) -> Result<Matched<'a>, Vec<String>> {
    let mut ours: Vec<&SpanData> =
        spans.iter().filter(|span| span.instrumentation_scope.name() == SCOPE_NAME).collect();
    ours.sort_by_key(|span| span.start_time);
    let (mut pairs, mut problems) = (Vec::new(), Vec::new());
    for expected in row.spans.iter().filter(|expected| world.is_shown(expected)) {
        let name = world.span_name(expected);
        match ours.iter().position(|span| span.name == name) {
            Some(index) => pairs.push((expected, ours.remove(index))),
            None => problems.push(format!("there is no span `{name}`")),
        }
    }
    problems.extend(ours.iter().map(|span| format!("there is a span `{}` too many", span.name)));
    if problems.is_empty() { Ok(Matched { pairs }) } else { Err(problems) }
}

/// Compares everything of every span.
pub(super) fn details(world: &World, matched: &Matched<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    for (expected, span) in &matched.pairs {
        let found = [
            kind(expected, span),
            parent(world, matched, expected, span),
            links(world, matched, expected, span),
            attribute_set(&world.attributes(expected), &span.attributes),
            status(expected, span),
            scope(span),
            leftovers(span),
        ];
        problems.extend(found.into_iter().flatten().map(|problem| format!("{}: {problem}", span.name)));
    }
    problems
}

fn kind(expected: &Span, span: &SpanData) -> Vec<String> {
    let wrong = expected.kind != span.span_kind;
    wrong.then(|| format!("its kind is {:?}, not {:?}", span.span_kind, expected.kind)).into_iter().collect()
}

fn parent(world: &World, matched: &Matched<'_>, expected: &Span, span: &SpanData) -> Vec<String> {
    let trace = span.span_context.trace_id();
    let Some(wanted) = matched.context(expected.parent, world) else {
        let mut problems = Vec::new();
        if span.parent_span_id != SpanId::INVALID {
            problems.push(format!("it has the parent {} and should have none", span.parent_span_id));
        }
        if (1..4).any(|number| World::given(number).trace_id() == trace) {
            problems.push("it should be in a trace of its own".to_owned());
        }
        return problems;
    };
    let mut problems = Vec::new();
    if (trace, span.parent_span_id) != (wanted.trace_id(), wanted.span_id()) {
        problems.push(format!(
            "its parent is {trace}/{}, not {:?} {}/{}",
            span.parent_span_id,
            expected.parent,
            wanted.trace_id(),
            wanted.span_id()
        ));
    }
    let is_remote = matches!((expected.parent, expected.verb), (Ref::Given(_), _) | (Ref::Of("send"), Verb::Process));
    if span.parent_span_is_remote != is_remote {
        problems.push(format!("its parent is remote: {}, which is wrong", span.parent_span_is_remote));
    }
    problems
}

fn links(world: &World, matched: &Matched<'_>, expected: &Span, span: &SpanData) -> Vec<String> {
    let mut problems = Vec::new();
    if span.links.links.len() != expected.links.len() {
        problems.push(format!("it has {} links, not {}", span.links.links.len(), expected.links.len()));
    }
    let mut there: Vec<&Link> = span.links.links.iter().collect();
    if world.is_spread {
        // No broker promises an order between destinations.
        let place = |link: &Link| {
            let is_target = |(target, _): &(Ref, _)| {
                matched.context(*target, world).is_some_and(|wanted| wanted.span_id() == link.span_context.span_id())
            };
            expected.links.iter().position(is_target)
        };
        there.sort_by_key(|link| place(link));
    }
    for (number, ((target, own), link)) in expected.links.iter().zip(there).enumerate() {
        let wanted = matched.context(*target, world).unwrap_or(SpanContext::NONE);
        let found = &link.span_context;
        if (found.trace_id(), found.span_id()) != (wanted.trace_id(), wanted.span_id()) {
            problems.push(format!("link {} goes to {}, not to {target:?}", number + 1, found.span_id()));
        }
        let mut attributes = resolved(world, expected, own);
        attributes.extend(world.link_attributes(expected));
        let wrong = attribute_set(&attributes, &link.attributes);
        problems.extend(wrong.into_iter().map(|problem| format!("link {}: {problem}", number + 1)));
    }
    problems
}

fn resolved(world: &World, span: &Span, attributes: &[(&str, Val)]) -> Vec<(String, Option<Value>)> {
    attributes.iter().map(|(key, value)| ((*key).to_owned(), world.value(*value, span))).collect()
}

/// Compares complete sets: missing, extra, doubled and different attributes are all wrong.
// VERF-02, GEN-06.
pub(super) fn attribute_set(expected: &[(String, Option<Value>)], found: &[KeyValue]) -> Vec<String> {
    let mut problems = Vec::new();
    for (key, value) in expected {
        let values: Vec<&Value> = found.iter().filter(|own| own.key.as_str() == key).map(|own| &own.value).collect();
        match (values.as_slice(), value) {
            ([], _) => problems.push(format!("{key} is missing")),
            ([one], Some(value)) if *one != value => problems.push(format!("{key} is {one:?}, not {value:?}")),
            ([_], _) => {}
            _ => problems.push(format!("{key} is there {} times: {values:?}", values.len())),
        }
    }
    let extra = found.iter().filter(|own| !expected.iter().any(|(key, _)| key == own.key.as_str()));
    problems.extend(extra.map(|own| format!("{} = {:?} should not be there", own.key, own.value)));
    problems
}

// STAT-01 to -03.
fn status(expected: &Span, span: &SpanData) -> Vec<String> {
    let problem = match (&span.status, expected.error) {
        (Status::Unset, None) => None,
        (Status::Error { description }, Some(Fault::Own)) if !description.is_empty() => {
            Some(format!("the text of a handler's error is in its status: {description:?}"))
        }
        (Status::Error { .. }, Some(_)) => None,
        (found, Some(_)) => Some(format!("its status is {found:?}, not an error")),
        (found, None) => Some(format!("its status is {found:?}, not unset")),
    };
    problem.into_iter().collect()
}

// GEN-01, GEN-02.
fn scope(span: &SpanData) -> Vec<String> {
    let scope = &span.instrumentation_scope;
    let wanted = (Some(env!("CARGO_PKG_VERSION")), Some(SCHEMA_URL));
    let found = (scope.version(), scope.schema_url());
    (found != wanted).then(|| format!("its scope has {found:?}, not {wanted:?}")).into_iter().collect()
}

/// Nothing is cut off, and exceptions are no span events.
// STAT-13.
fn leftovers(span: &SpanData) -> Vec<String> {
    let dropped = span.dropped_attributes_count + span.events.dropped_count + span.links.dropped_count;
    let mut problems: Vec<String> =
        (dropped > 0).then(|| format!("{dropped} of its parts were dropped")).into_iter().collect();
    problems.extend(span.events.events.iter().map(|event| format!("it has a span event `{}`", event.name)));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_attribute_is_a_problem() {
        let expected = [("messaging.system".to_owned(), Some(Value::from("nats")))];
        let once = KeyValue::new("messaging.system", "nats");
        assert_eq!(attribute_set(&expected, std::slice::from_ref(&once)), Vec::<String>::new());
        let problems = attribute_set(&expected, &[once.clone(), once]);
        assert!(
            problems.iter().any(|problem| problem.contains("messaging.system is there 2 times")),
            "GEN-06: {problems:?}"
        );
    }
}
