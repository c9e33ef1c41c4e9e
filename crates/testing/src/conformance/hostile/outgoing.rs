//! What may stand in the headers of a message that a handler publishes while it works on a hostile one.

use throughline_core::Headers;

use super::grammar;
use super::oracle::{Entry, Sent, entries};
use super::set::{HeaderSet, MARKER, TraceOf};
use super::stranger::Given;
use super::trial::Trial;

/// A set that was given to the broker, and what could be found in it.
pub(super) struct Case<'a> {
    set: &'a HeaderSet,
    sent: Sent,
    given: Given,
    trial: &'a Trial,
}

/// What of a stranger's context was passed on.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct PassedOn {
    pub(super) continued: bool,
    pub(super) entries: usize,
}

impl<'a> Case<'a> {
    pub(super) fn new(set: &'a HeaderSet, given: Given, trial: &'a Trial) -> Self {
        Self { set, sent: Sent::new(set), given, trial }
    }

    /// How many things in it look like an entry.
    pub(super) fn entries(&self) -> usize {
        self.sent.entries()
    }

    /// Checks both messages that a handler published. The copy carries what the other one carries.
    pub(super) fn check_both(&self, own: &Headers, copy: &Headers) -> Result<PassedOn, String> {
        let (own, copy) = (self.check_own(own)?, self.check_copy(copy)?);
        if own == copy {
            Ok(own)
        } else {
            Err(format!("PROP-05: a copy of the headers carries {copy:?} instead of {own:?}"))
        }
    }

    /// Checks a message of the handler's own: it has propagation headers and no other of the stranger's.
    pub(super) fn check_own(&self, headers: &Headers) -> Result<PassedOn, String> {
        for (name, value) in headers.iter() {
            if !grammar::is_propagation(name) && String::from_utf8_lossy(value).contains(MARKER) {
                return Err(format!("the header {name} of the stranger is passed on"));
            }
        }
        self.check(headers, grammar::is_propagation)
    }

    /// Checks a message with a copy of the stranger's headers: the propagation headers among them are replaced.
    // PROP-05.
    pub(super) fn check_copy(&self, headers: &Headers) -> Result<PassedOn, String> {
        self.check(headers, |name| self.trial.owns(name))
    }

    /// Checks the propagation headers: each once, well-formed, and nothing in them that was not sent.
    fn check(&self, headers: &Headers, is_ours: impl Fn(&str) -> bool) -> Result<PassedOn, String> {
        let (mut names, mut passed) = (Vec::new(), Vec::new());
        for (name, value) in headers.iter().filter(|(name, _)| is_ours(name)) {
            let text = std::str::from_utf8(value).map_err(|_| format!("{name}: not UTF-8"))?;
            grammar::check(name, text)?;
            if names.contains(&name) {
                return Err(format!("{name}: there twice"));
            }
            names.push(name);
            if name == "baggage" {
                passed.extend(entries(text));
            }
            if name == "tracestate"
                && let Some(member) = text.split(',').find(|member| !self.sent.has_member(member))
            {
                return Err(format!("tracestate: {member} was not sent"));
            }
        }
        self.check_baggage(&passed)?;
        let trace = headers.get("traceparent").and_then(|text| text.get(3..35));
        let trace = trace.ok_or("PROP-01: there is no traceparent")?;
        let continued = self.sent.has_trace(trace);
        self.check_trace(trace, continued)?;
        Ok(PassedOn { continued, entries: passed.len() })
    }

    fn check_baggage(&self, passed: &[Entry]) -> Result<(), String> {
        if let Some(entry) = passed.iter().find(|entry| !self.sent.has(entry)) {
            return Err(format!("baggage: {entry:?} was not sent"));
        }
        if let Some(entry) = passed.iter().find(|entry| !self.trial.admits(&entry.key)) {
            return Err(format!("BAGG-15, PROP-22: {} is not allowed", entry.key));
        }
        let arrived = |key: &str, value: &str| passed.iter().any(|entry| (&*entry.key, &*entry.value) == (key, value));
        let mut expected = self.set.kept.iter().filter(|(key, _)| self.trial.admits(key));
        match expected.find(|(key, value)| !arrived(key, value)) {
            Some((key, value)) if self.given == Given::AsItIs => Err(format!("BAGG-11: {key}={value} is lost")),
            _ => Ok(()),
        }
    }

    fn check_trace(&self, trace: &str, continued: bool) -> Result<(), String> {
        match &self.set.trace {
            _ if continued && !self.trial.continues_traces() => {
                Err("PROP-22: the trace of the stranger goes on".to_owned())
            }
            _ if self.given == Given::ByHand || !self.trial.continues_traces() => Ok(()),
            TraceOf::Continues(id) if id != trace => Err(format!("the trace is {trace}, not {id}")),
            TraceOf::New if continued => Err("PROP-08: a malformed traceparent was followed".to_owned()),
            _ => Ok(()),
        }
    }
}
