//! How much a span may hold.

use opentelemetry_sdk::trace::TracerProviderBuilder;

use crate::environment::Environment;

/// How much a span may hold of each: what is more is dropped, and how much that was is exported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    attributes: u32,
    events: u32,
    links: u32,
    event_attributes: u32,
    link_attributes: u32,
}

impl Default for Limits {
    /// Those of the specification, but for links: a batch shows all its messages.
    // LINK-17.
    fn default() -> Self {
        Self { attributes: 128, events: 128, links: 1024, event_attributes: 128, link_attributes: 128 }
    }
}

impl Limits {
    /// What the environment says, over the defaults.
    // ENV-10.
    pub(crate) fn read(environment: &mut Environment<'_>) -> Self {
        let default = Self::default();
        let general = environment.count("OTEL_ATTRIBUTE_COUNT_LIMIT");
        let mut of = |name, otherwise: u32| environment.count(name).unwrap_or(otherwise);
        Self {
            attributes: of("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", general.unwrap_or(default.attributes)),
            events: of("OTEL_SPAN_EVENT_COUNT_LIMIT", default.events),
            links: of("OTEL_SPAN_LINK_COUNT_LIMIT", default.links),
            event_attributes: of("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", general.unwrap_or(default.event_attributes)),
            link_attributes: of("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", general.unwrap_or(default.link_attributes)),
        }
    }

    pub(crate) fn apply(self, tracer: TracerProviderBuilder) -> TracerProviderBuilder {
        tracer
            .with_max_attributes_per_span(self.attributes)
            .with_max_events_per_span(self.events)
            .with_max_links_per_span(self.links)
            .with_max_attributes_per_event(self.event_attributes)
            .with_max_attributes_per_link(self.link_attributes)
    }
}
