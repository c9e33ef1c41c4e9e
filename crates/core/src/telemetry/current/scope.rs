use std::fmt;
use std::sync::{Arc, OnceLock};

use opentelemetry::baggage::{Baggage as OtelBaggage, BaggageExt};
use opentelemetry::propagation::Injector;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};

use crate::guard::{Foreign, Guard};
use crate::message::{OperationType, Surroundings};
use crate::telemetry::changes::{ChangeList, Changes, admitted, changed_baggage, with_baggage};
use crate::telemetry::choices::BaggagePolicy;
use crate::telemetry::engine::{Engine, ErrorReport};
use crate::telemetry::semconv::{EXCEPTION_MESSAGE, EXCEPTION_TYPE};

/// What surrounds the handling of a message: the context with its span, and the baggage as the handler has changed it.
///
/// [`CurrentSpan`](super::CurrentSpan) and [`CurrentBaggage`](super::CurrentBaggage) read and change it. Clones share one state,
/// so what a spawned task changes is seen by the handler and by what it publishes later.
///
/// # Examples
///
/// ```
/// use throughline_core::telemetry::Scope;
/// use throughline_core::CurrentBaggage;
///
/// let scope = Scope::detached();
/// scope.set("tenant", "acme");
/// assert_eq!(scope.clone().get("tenant").as_deref(), Some("acme"));
/// ```
#[derive(Clone)]
pub struct Scope {
    inner: Arc<Inner>,
}

struct Inner {
    context: Context,
    /// The context with a list of changes in it, once the scope is open: see [`ScopeState`](super::scope_state::ScopeState).
    with_changes: OnceLock<Context>,
    engine: Option<Arc<Engine>>,
    members: Vec<Scope>,
}

impl Scope {
    /// Creates a scope that belongs to no message: baggage can be started in it.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::Scope;
    /// use throughline_core::CurrentSpan;
    /// assert!(!Scope::detached().span_context().is_valid());
    /// ```
    #[must_use]
    pub fn detached() -> Self {
        Self::new(Context::new(), None, Vec::new())
    }

    pub(crate) fn new(context: Context, engine: Option<Arc<Engine>>, members: Vec<Self>) -> Self {
        Self { inner: Arc::new(Inner { context, with_changes: OnceLock::new(), engine, members }) }
    }

    /// A scope of what is current, for a message whose process span records nothing. Where changes to baggage are current, they are its
    /// own.
    pub(super) fn of_current(engine: Option<Arc<Engine>>) -> Self {
        let current = Context::current();
        let scope = Self::new(current.clone(), engine, Vec::new());
        if current.get::<Changes>().is_some() {
            scope.inner.with_changes.get_or_init(|| current);
        }
        scope
    }

    pub(super) fn to_surroundings(&self) -> Surroundings {
        Arc::clone(&self.inner) as Surroundings
    }

    pub(super) fn from_surroundings(surroundings: &Surroundings) -> Option<Self> {
        Arc::clone(surroundings).downcast().ok().map(|inner| Self { inner })
    }

    /// Makes room for changes to the baggage.
    pub(crate) fn open(&self) -> &Self {
        self.inner.with_changes.get_or_init(|| self.inner.context.with_value(Changes::default()));
        self
    }

    pub(crate) fn set_attribute(&self, attribute: KeyValue) {
        self.inner.context.span().set_attribute(attribute);
    }

    /// Returns the OpenTelemetry context: the span, the baggage as it arrived, and the changes made to it.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.inner.with_changes.get().unwrap_or(&self.inner.context)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.inner.with_changes.get().is_some()
    }

    /// Returns the scopes of the messages of a batch, in message order; empty for a single message.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_core::telemetry::Scope::detached().messages().is_empty());
    /// ```
    #[must_use]
    pub fn messages(&self) -> &[Self] {
        for member in &self.inner.members {
            member.open();
        }
        &self.inner.members
    }

    /// The scopes of the messages, for the engine's own eyes.
    pub(crate) fn members(&self) -> &[Self] {
        &self.inner.members
    }

    pub(super) fn engine(&self) -> Option<&Arc<Engine>> {
        self.inner.engine.as_ref()
    }

    pub(crate) fn baggage(&self) -> OtelBaggage {
        let context = self.context();
        changed_baggage(context).unwrap_or_else(|| admitted(context.baggage(), &BaggagePolicy::All))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut ChangeList)) {
        if let Some(changes) = self.open().context().get::<Changes>() {
            change(&mut changes.lock());
        }
    }

    /// The context with the changed baggage in it, for code that reads baggage from the context itself.
    pub(crate) fn context_with_baggage(&self) -> Context {
        let mut context = self.nearest_context();
        if !has_span(&context) && has_span(&Context::current()) {
            // Baggage that belongs to no message: the current span stays the parent, and changes made meanwhile count.
            let changes = context.get::<Changes>().cloned().unwrap_or_default();
            context = with_baggage(&Context::current(), context.baggage()).with_value(changes);
        }
        match changed_baggage(&context) {
            Some(baggage) => with_baggage(&context, &baggage),
            None => context,
        }
    }

    /// The current context when it lies within this scope (an inner span, say), else the scope's own.
    fn nearest_context(&self) -> Context {
        let own = self.context().get::<Changes>();
        Context::map_current(|current| match (current.get::<Changes>(), own) {
            (Some(current_changes), Some(own)) if current_changes.is_same(own) => Some(current.clone()),
            _ => None,
        })
        .unwrap_or_else(|| self.context().clone())
    }

    pub(crate) fn record_error(&self, error_type: &'static str, error: &dyn fmt::Display) {
        let span = self.inner.context.span();
        let engine = self.engine();
        let text = || Guard::default().run(Foreign::ErrorText, || error.to_string());
        let message = engine.map_or_else(text, |engine| engine.settings.text_of(error));
        match engine.and_then(|engine| Some((engine, engine.events.as_ref()?))) {
            Some((engine, events)) => {
                let error = ErrorReport { message, ..ErrorReport::named(error_type) };
                let record = || events.record(OperationType::Process, &error, span.span_context());
                engine.guard().run(Foreign::Logger, record);
            }
            None => {
                let message = message.map(|message| KeyValue::new(EXCEPTION_MESSAGE, message));
                let attributes = [KeyValue::new(EXCEPTION_TYPE, error_type)].into_iter().chain(message);
                span.add_event("exception", attributes.collect());
            }
        }
    }

    pub(crate) fn inject(&self, injector: &mut dyn Injector) {
        if let Some(engine) = self.engine() {
            engine.inject_call(&self.nearest_context(), injector);
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("span", self.inner.context.span().span_context()).finish_non_exhaustive()
    }
}

/// The context under which a message is published: the current one where there is one, with the handler's scope filling what a
/// spawned task lacks.
// TRAP-02.
pub(crate) fn publish_context(scope: Option<&Scope>) -> Context {
    let current = Context::current();
    let Some(scope) = scope else { return current };
    let own = scope.context();
    match (has_span(&current), current.get::<Changes>().is_some()) {
        (true, true) => current,
        (true, false) => with_baggage(&current, &scope.baggage()),
        // Baggage started in a spawned task: what it carries is new, where it belongs is not.
        (false, true) if has_span(own) => current.with_remote_span_context(own.span().span_context().clone()),
        (false, true) => current,
        (false, false) => own.clone(),
    }
}

/// Whether a context has a span to go on from. One that is invalid, as of a provider that was shut down, is none.
fn has_span(context: &Context) -> bool {
    context.span().span_context().is_valid()
}
