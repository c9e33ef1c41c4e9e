use opentelemetry::Context;
use opentelemetry::baggage::{Baggage as OtelBaggage, BaggageExt};
use opentelemetry::trace::{Link, SpanContext, TraceContextExt};

use super::incoming::Incoming;
use crate::propagation::Remote;
use crate::telemetry::changes::{admitted, with_baggage};
use crate::telemetry::choices::{BaggagePolicy, BatchBaggage, ParentMode, Trust};
use crate::telemetry::engine::Engine;
use crate::telemetry::reply_address::with_reply_address;

/// What the headers of a message said.
pub(super) struct Origin {
    pub(super) link: Option<SpanContext>,
    pub(super) parent: Option<SpanContext>,
    pub(super) baggage: Option<OtelBaggage>,
}

/// What a single message's span starts with.
pub(super) struct Relation {
    pub(super) parent: Context,
    pub(super) links: Vec<Link>,
    /// The message's own context, where there is to be no span.
    // PROP-20.
    pub(super) without_span: Option<Context>,
}

impl Origin {
    /// The context of one message of a batch: its producer's span, or that of the batch where it has none to continue, and its own
    /// baggage.
    pub(super) fn context_of(&self, message: &Incoming<'_>, batch: &Context, ambient: &Context) -> Context {
        let context = match &self.parent {
            Some(remote) => batch.with_remote_span_context(remote.clone()),
            None => batch.clone(),
        };
        let context = match &self.baggage {
            Some(baggage) => with_baggage(&context, baggage),
            None if batch.baggage().is_empty() => context,
            None => with_baggage(&context, ambient.baggage()),
        };
        with_reply_address(context, message.reply_to)
    }
}

/// Where messages come from: what their headers say, as far as it is trusted, and what follows for parents, links and baggage.
#[derive(Clone, Copy)]
pub(super) struct Origins<'a> {
    pub(super) engine: &'a Engine,
    pub(super) parent: ParentMode,
    pub(super) trust: Trust,
}

impl Origins<'_> {
    /// Reads the headers as far as they are trusted.
    // PROP-16, PROP-22, BAGG-15.
    pub(super) fn read(&self, message: &Incoming<'_>) -> Origin {
        let nothing = Origin { link: None, parent: None, baggage: None };
        if self.trust == Trust::Ignore {
            return nothing;
        }
        let Remote { span, baggage } = self.engine.read(message.headers);
        let trusted = self.trust == Trust::Continue;
        let policy = &self.engine.settings.inbound_baggage;
        let baggage = baggage.filter(|_| trusted).map(|baggage| match policy {
            BaggagePolicy::All => baggage,
            _ => admitted(&baggage, policy),
        });
        let baggage = baggage.filter(|baggage| !baggage.is_empty());
        Origin { parent: span.clone().filter(|_| trusted), link: span, baggage }
    }

    /// Chooses the parent and the links of a single message's span.
    // LINK-01, -02, -06 to -09.
    pub(super) fn relate(&self, ambient: &Context, message: &Incoming<'_>) -> Relation {
        let takes_all = self.trust == Trust::Continue
            && self.parent != ParentMode::LinkOnly
            && self.engine.settings.inbound_baggage == BaggagePolicy::All
            && !ambient.span().span_context().is_valid();
        if takes_all {
            // The usual case: what the headers say, put on top of what is current, is the parent as it is.
            let Some(remote) = self.engine.extract(ambient, message.headers) else {
                return Relation { parent: ambient.clone(), links: Vec::new(), without_span: None };
            };
            let creation = remote.span().span_context().clone();
            let links = if creation.is_valid() { vec![link(creation)] } else { Vec::new() };
            return Relation { parent: remote, links, without_span: None };
        }
        self.relate_by_choice(ambient, &self.read(message))
    }

    fn relate_by_choice(&self, ambient: &Context, origin: &Origin) -> Relation {
        let ambient_span = ambient.span().span_context().clone();
        let ambient_is_valid = ambient_span.is_valid();
        let mut links: Vec<Link> = origin.link.clone().map(link).into_iter().collect();
        let parent = match (self.parent, &origin.parent) {
            (ParentMode::Parent, Some(remote)) => {
                if ambient_is_valid {
                    links.push(link(ambient_span));
                }
                ambient.with_remote_span_context(remote.clone())
            }
            (ParentMode::Auto, Some(remote)) if !ambient_is_valid => ambient.with_remote_span_context(remote.clone()),
            _ => ambient.clone(),
        };
        let parent = match &origin.baggage {
            Some(baggage) => with_baggage(&parent, baggage),
            None => parent,
        };
        // Without a span the message's own context is current in every parent mode, so that the trace is passed on (PROP-20).
        let without_span = origin.parent.clone().filter(|_| !ambient_is_valid);
        let without_span = without_span.map(|remote| parent.with_remote_span_context(remote));
        Relation { parent, links, without_span }
    }

    /// Merges the baggage of a batch.
    // BAGG-12.
    pub(super) fn merge_baggage(&self, ambient: &Context, origins: &[Origin]) -> Context {
        let how = self.engine.settings.batch_baggage;
        let all: Vec<&OtelBaggage> = origins.iter().filter_map(|origin| origin.baggage.as_ref()).collect();
        if all.is_empty() || how == BatchBaggage::None {
            return ambient.clone();
        }
        let mut merged = OtelBaggage::new();
        for (key, (value, metadata)) in all.iter().flat_map(|baggage| baggage.iter()) {
            let agreed = || all.iter().all(|other| other.get(key.as_str()).is_none_or(|theirs| theirs == value));
            if how == BatchBaggage::Merged || agreed() {
                merged.insert_with_metadata(key.clone(), value.clone(), metadata.clone());
            }
        }
        with_baggage(ambient, &merged)
    }
}

pub(super) fn link(context: SpanContext) -> Link {
    Link::new(context, Vec::new(), 0)
}
