use std::borrow::Cow;

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::{Link, TraceContextExt as _};

use super::changes::{admitted, with_baggage};
use super::choices::Trust;
use super::instrumentation::Instrumentation;

impl Instrumentation {
    /// Starts the span of a request that came in another way than by a message, over HTTP say, and returns the context to serve it in:
    /// what is published there is in the trace of whoever asked, and carries their baggage. The span is of the kind `server`. It ends
    /// when the last clone of the context is dropped.
    ///
    /// The headers are trusted as those of messages are ([`Builder::trust`](super::Builder::trust),
    /// [`Builder::inbound_baggage`](super::Builder::inbound_baggage)). `name` is one of few, such as `POST /orders`: the route, not the
    /// path. A program whose HTTP framework makes such a span and makes it current needs no call.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::context::FutureExt as _;
    /// use throughline_core::telemetry::Instrumentation;
    /// use throughline_core::{Headers, PublishError, Publisher};
    ///
    /// async fn place(otel: &Instrumentation, publisher: &Publisher, headers: &Headers) -> Result<(), PublishError> {
    ///     let context = otel.server_span("POST /orders", headers);
    ///     async { publisher.publish("orders.placed", "{}").await }.with_context(context).await?;
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn server_span(&self, name: impl Into<Cow<'static, str>>, headers: &dyn Extractor) -> Context {
        let engine = &self.engine;
        let remote = match engine.settings.trust {
            Trust::Ignore => Context::new(),
            Trust::Continue | Trust::Link => engine.extract(&Context::new(), headers).unwrap_or_default(),
        };
        if engine.settings.trust == Trust::Continue {
            let baggage = admitted(remote.baggage(), &engine.settings.inbound_baggage);
            return engine.server_span(name.into(), Vec::new(), &with_baggage(&remote, &baggage));
        }
        let asked = remote.span().span_context().clone();
        let links = if asked.is_valid() { vec![Link::new(asked, Vec::new(), 0)] } else { Vec::new() };
        engine.server_span(name.into(), links, &Context::new())
    }
}
