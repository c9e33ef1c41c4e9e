use std::sync::Arc;

use async_nats::{Client, HeaderMap, Statistics, Subject};
use throughline_core::broker::Pattern;
use throughline_core::message::{CreationContext, header_text};
use throughline_core::telemetry::{Instrumentation as Engine, Outgoing, Producer, Sending};

use super::{Instrumentation, RawClient, Settings};
use crate::carrier::{HeaderInjector, first};
use crate::delivery::MESSAGE_ID;
use crate::semconv::{self, Systems};

/// What publishing on one connection needs.
pub(super) struct Outlet {
    producer: Producer,
    inbox_prefix: Arc<str>,
    templates: Vec<Pattern>,
    /// The header of the correlation id.
    correlation_id: &'static str,
}

/// The outlet of a client, known by its statistics, which its clones share and no other client has.
pub(super) struct Bound {
    client: Arc<Statistics>,
    outlet: Arc<Outlet>,
}

/// What is sent, and how.
#[derive(Clone, Copy)]
pub(super) enum Verb {
    Publish,
    Request,
}

impl Outlet {
    pub(super) fn new(engine: &Engine, systems: &Systems, inbox_prefix: Arc<str>, settings: &Settings) -> Self {
        Self {
            producer: engine.producer(Arc::clone(&systems.core)),
            inbox_prefix,
            templates: settings.templates.clone(),
            correlation_id: settings.names.correlation_id,
        }
    }

    /// Starts the span and writes the context into the headers.
    fn start(
        &self,
        verb: Verb,
        subject: &Subject,
        headers: &mut HeaderMap,
        body_size: usize,
        creation: CreationContext,
    ) -> Sending {
        let id = first(headers, MESSAGE_ID).map(|id| header_text::unescape(id).into_owned());
        let correlation_id = first(headers, self.correlation_id).map(|id| header_text::unescape(id).into_owned());
        let template = self.templates.iter().find(|template| template.matches(subject)).map(Pattern::as_str);
        let target = semconv::subject_target(subject, template, &self.inbox_prefix);
        let mut headers = HeaderInjector::new(headers);
        let message = Outgoing::new(&mut headers)
            .with_id(id.as_deref())
            .with_correlation_id(correlation_id.as_deref())
            .with_body_size(body_size)
            .with_creation(creation);
        match verb {
            Verb::Publish => self.producer.send(&target, message),
            Verb::Request => self.producer.request(&target, message),
        }
    }
}

impl Instrumentation {
    /// Starts a publish on a client. The client is looked at only where none was given.
    pub(super) fn start_send<C: AsRef<Client>>(
        &self,
        client: impl FnOnce() -> C,
        verb: Verb,
        subject: &Subject,
        headers: &mut HeaderMap,
        body_size: usize,
    ) -> Sending {
        let creation = self.handle.creation().clone();
        match &self.reader().given {
            Some(outlet) => outlet.start(verb, subject, headers, body_size, creation),
            None => self.reader().outlet(client().as_ref()).start(verb, subject, headers, body_size, creation),
        }
    }
}

impl RawClient {
    /// Returns the outlet of a client: prepared for the first one that published, made anew for any other.
    fn outlet(&self, client: &Client) -> Arc<Outlet> {
        let statistics = client.statistics();
        if let Some(bound) = self.bound.get().filter(|bound| Arc::ptr_eq(&bound.client, &statistics)) {
            return Arc::clone(&bound.outlet);
        }
        let number = number(client);
        let is_connected = number.is_some();
        let systems = Systems::new(self.client.server(), self.client.client_id.as_deref().or(number.as_deref()));
        let prefix = semconv::inbox_prefix(client).into();
        let outlet = Arc::new(Outlet::new(&self.engine, &systems, prefix, &self.settings));
        if is_connected {
            // Another thread may have been faster; then that one's client is the first.
            let _ = self.bound.set(Bound { client: statistics, outlet: Arc::clone(&outlet) });
        }
        outlet
    }
}

/// Returns the number the server assigned to a client, once it is connected.
// ATTR-N-07.
pub(super) fn number(client: &Client) -> Option<Arc<str>> {
    Some(client.try_server_info()?.client_id.to_string().into())
}
