//! What may stand in the headers of a message that a handler publishes while it works on a hostile one.

use throughline_core::Headers;

use super::grammar;
use super::oracle::{Entry, Sent, entries};
use super::set::{HeaderSet, MARKER, TraceOf};
use super::stranger::Given;
use super::trial::Trial;

/// What of a stranger's context was passed on.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct PassedOn {
    pub(super) continued: bool,
    pub(super) entries: usize,
}

/// Checks a message of the handler's own: it has propagation headers and no other of the stranger's.
pub(super) fn check_own(set: &HeaderSet, given: Given, headers: &Headers, trial: &Trial) -> Result<PassedOn, String> {
    for (name, value) in headers.iter() {
        let text = String::from_utf8_lossy(value);
        if !grammar::is_propagation(name) && text.contains(MARKER) {
            return Err(format!("the header {name} of the stranger is passed on"));
        }
    }
    check_context(set, given, headers, trial, grammar::is_propagation)
}

/// Checks a message with a copy of the stranger's headers: the propagation headers among them are replaced (PROP-05).
pub(super) fn check_copy(set: &HeaderSet, given: Given, headers: &Headers, trial: &Trial) -> Result<PassedOn, String> {
    check_context(set, given, headers, trial, |name| trial.owns(name))
}

/// Checks the propagation headers: each once, well-formed, and nothing in them that was not sent.
fn check_context(
    set: &HeaderSet,
    given: Given,
    headers: &Headers,
    trial: &Trial,
    is_ours: impl Fn(&str) -> bool,
) -> Result<PassedOn, String> {
    let sent = Sent::new(set);
    let mut names = Vec::new();
    let mut passed = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| is_ours(name)) {
        let text = std::str::from_utf8(value).map_err(|_| format!("{name}: not UTF-8"))?;
        grammar::check(name, text)?;
        if names.contains(&name) {
            return Err(format!("{name}: there twice"));
        }
        names.push(name);
        match name {
            "baggage" => passed.extend(entries(text)),
            "tracestate" => match text.split(',').find(|member| !sent.has_member(member)) {
                Some(member) => return Err(format!("tracestate: {member} was not sent")),
                None => {}
            },
            _ => {}
        }
    }
    if let Some(entry) = passed.iter().find(|entry| !sent.has(entry)) {
        return Err(format!("baggage: {entry:?} was not sent"));
    }
    check_baggage(set, given, &passed, trial)?;
    let trace =
        headers.get("traceparent").and_then(|text| text.get(3..35)).ok_or("PROP-01: there is no traceparent")?;
    let continued = sent.has_trace(trace);
    check_trace(set, given, trace, continued, trial)?;
    Ok(PassedOn { continued, entries: passed.len() })
}

fn check_baggage(set: &HeaderSet, given: Given, passed: &[Entry], trial: &Trial) -> Result<(), String> {
    if let Some(entry) = passed.iter().find(|entry| !trial.admits(&entry.key)) {
        return Err(format!("BAGG-15, PROP-22: {} is not allowed", entry.key));
    }
    let lost = set
        .kept
        .iter()
        .filter(|(key, _)| trial.admits(key))
        .find(|(key, value)| !passed.iter().any(|entry| (&entry.key, &entry.value) == (key, value)));
    match lost {
        Some((key, value)) if given == Given::AsItIs => Err(format!("BAGG-11: {key}={value} is lost")),
        _ => Ok(()),
    }
}

fn check_trace(set: &HeaderSet, given: Given, trace: &str, continued: bool, trial: &Trial) -> Result<(), String> {
    if !trial.continues_traces() {
        return if continued { Err("PROP-22: the trace of the stranger goes on".to_owned()) } else { Ok(()) };
    }
    match &set.trace {
        _ if given == Given::ByHand => Ok(()),
        TraceOf::Continues(id) if id != trace => Err(format!("the trace is {trace}, not {id}")),
        TraceOf::New if continued => Err("PROP-08: a malformed traceparent was followed".to_owned()),
        _ => Ok(()),
    }
}
