//! What is expected of one span.

use opentelemetry::trace::SpanKind;

use super::terms::{At, Fault, Link, Ref, Val, Verb};
use crate::conformance::DoorKind;

/// An expected span.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// What other spans of the row call it.
    pub(super) label: &'static str,
    pub(super) verb: Verb,
    pub(super) at: At,
    pub(super) kind: SpanKind,
    pub(super) parent: Ref,
    pub(super) links: &'static [Link],
    /// Everything beyond system, operation, server, client and consumer.
    pub(super) attributes: &'static [(&'static str, Val)],
    pub(super) error: Option<Fault>,
    /// How many messages it stands for.
    pub(super) messages: u64,
    /// How many of them were sent although the operation failed.
    // METR-13.
    pub(super) sent: u64,
    /// Only through this door.
    pub(super) only: Option<DoorKind>,
}

impl Span {
    const fn new(label: &'static str, verb: Verb, at: At, kind: SpanKind) -> Self {
        Self {
            label,
            verb,
            at,
            kind,
            parent: Ref::None,
            links: &[],
            attributes: &[],
            error: None,
            messages: 1,
            sent: 0,
            only: None,
        }
    }

    pub(super) const fn create(label: &'static str) -> Self {
        Self::new(label, Verb::Create, At::Orders, SpanKind::Producer)
    }

    pub(super) const fn send(at: At, kind: SpanKind) -> Self {
        Self::new("send", Verb::Send, at, kind)
    }

    pub(super) const fn request() -> Self {
        Self::new("request", Verb::Request, At::Orders, SpanKind::Producer)
    }

    pub(super) const fn receive(at: At) -> Self {
        Self::new("receive", Verb::Receive, at, SpanKind::Client)
    }

    pub(super) const fn process(at: At) -> Self {
        Self::new("process", Verb::Process, at, SpanKind::Consumer)
    }

    pub(super) const fn settle(verb: Verb) -> Self {
        Self::new("settle", verb, At::Orders, SpanKind::Client).parent(Ref::Of("process"))
    }

    pub(super) const fn attempt() -> Self {
        let span = Self::new("attempt", Verb::Attempt, At::Absent, SpanKind::Internal);
        span.parent(Ref::Of("process")).only(DoorKind::Framework)
    }

    // ATTR-C-07.
    pub(super) fn is_batch(&self) -> bool {
        self.attributes.iter().any(|(key, _)| *key == "messaging.batch.message_count")
    }

    pub(super) fn names_destination(&self) -> bool {
        self.attributes.iter().any(|(key, _)| *key == "messaging.destination.name")
    }

    pub(super) const fn label(mut self, label: &'static str) -> Self {
        self.label = label;
        self
    }

    pub(super) const fn parent(mut self, parent: Ref) -> Self {
        self.parent = parent;
        self
    }

    pub(super) const fn links(mut self, links: &'static [Link]) -> Self {
        self.links = links;
        self
    }

    pub(super) const fn attributes(mut self, attributes: &'static [(&'static str, Val)]) -> Self {
        self.attributes = attributes;
        self
    }

    pub(super) const fn fails(mut self, error: Fault) -> Self {
        self.error = Some(error);
        self
    }

    pub(super) const fn messages(mut self, messages: u64) -> Self {
        self.messages = messages;
        self
    }

    pub(super) const fn sent(mut self, sent: u64) -> Self {
        self.sent = sent;
        self
    }

    pub(super) const fn only(mut self, door: DoorKind) -> Self {
        self.only = Some(door);
        self
    }
}
