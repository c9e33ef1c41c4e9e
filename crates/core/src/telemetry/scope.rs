use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use opentelemetry::baggage::{Baggage as OtelBaggage, BaggageExt, KeyValueMetadata};
use opentelemetry::propagation::Injector;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, Key, KeyValue};

use super::instrumentation::Instrumentation;
use super::operation::ErrorReport;
use super::semconv::{EXCEPTION_MESSAGE, EXCEPTION_TYPE};
use super::settings::BaggagePolicy;
use crate::guard::{Foreign, Guard};
use crate::message::{OperationType, Surroundings};

/// Is what surrounds the handling of a message: the context with its span, and the baggage as the handler has changed it.
///
/// [`CurrentSpan`](super::CurrentSpan) and [`CurrentBaggage`](super::CurrentBaggage) read and change it. Clones share one state,
/// so what a spawned task changes is seen by the handler and by what it publishes later.
///
/// # Examples
///
/// ```
/// use throughline_core::telemetry::{CurrentBaggage, Scope};
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
    /// The context with a list of changes in it, once somebody may change the baggage: see [`Scope::open`].
    opened: OnceLock<Context>,
    instrumentation: Option<Instrumentation>,
    members: Vec<Scope>,
}

impl Scope {
    /// Creates a scope that belongs to no message: baggage can be started in it.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::{CurrentSpan, Scope};
    /// assert!(!Scope::detached().span_context().is_valid());
    /// ```
    #[must_use]
    pub fn detached() -> Self {
        Self::new(Context::new(), None, Vec::new())
    }

    pub(crate) fn new(context: Context, instrumentation: Option<Instrumentation>, members: Vec<Self>) -> Self {
        Self { inner: Arc::new(Inner { context, opened: OnceLock::new(), instrumentation, members }) }
    }

    /// A scope of what is current, for a message whose process span records nothing. Where changes to baggage are current, they are its own.
    pub(super) fn of_current(instrumentation: Instrumentation) -> Self {
        let current = Context::current();
        let scope = Self::new(current.clone(), Some(instrumentation), Vec::new());
        if current.get::<Changes>().is_some() {
            scope.inner.opened.get_or_init(|| current);
        }
        scope
    }

    pub(crate) fn to_surroundings(&self) -> Surroundings {
        Arc::clone(&self.inner) as Surroundings
    }

    pub(crate) fn from_surroundings(surroundings: &Surroundings) -> Option<Self> {
        Arc::clone(surroundings).downcast().ok().map(|inner| Self { inner })
    }

    /// Makes room for changes to the baggage. To be called before a handler or a middleware gets the scope into its hands, and before
    /// its context becomes current: most handlers never ask, and pay nothing.
    pub(crate) fn open(&self) -> &Self {
        self.inner.opened.get_or_init(|| self.inner.context.with_value(Changes::default()));
        self
    }

    pub(crate) fn set_attribute(&self, attribute: KeyValue) {
        self.inner.context.span().set_attribute(attribute);
    }

    /// Returns the OpenTelemetry context: the span, the baggage as it arrived, and the changes made to it.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::Scope;
    /// let context = Scope::detached().context().clone();
    /// # let _ = context;
    /// ```
    #[must_use]
    pub fn context(&self) -> &Context {
        self.inner.opened.get().unwrap_or(&self.inner.context)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.inner.opened.get().is_some()
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

    pub(crate) fn instrumentation(&self) -> Option<&Instrumentation> {
        self.inner.instrumentation.as_ref()
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
        let engine = self.inner.instrumentation.as_ref().map(|instrumentation| &instrumentation.engine);
        let text = || Guard::default().run(Foreign::ErrorText, || error.to_string());
        let message = engine.map_or_else(text, |engine| engine.text_of(error));
        match engine.and_then(|engine| Some((engine, engine.events.as_ref()?))) {
            Some((engine, events)) => {
                let error = ErrorReport { message, ..ErrorReport::named(error_type) };
                let record = || events.record(OperationType::Process, &error, span.span_context());
                engine.guard.run(Foreign::Logger, record);
            }
            None => {
                let message = message.map(|message| KeyValue::new(EXCEPTION_MESSAGE, message));
                let attributes = [KeyValue::new(EXCEPTION_TYPE, error_type)].into_iter().chain(message);
                span.add_event("exception", attributes.collect());
            }
        }
    }

    pub(crate) fn inject(&self, injector: &mut dyn Injector) {
        if let Some(instrumentation) = &self.inner.instrumentation {
            instrumentation.engine.inject_call(&self.nearest_context(), injector);
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("span", self.inner.context.span().span_context()).finish_non_exhaustive()
    }
}

/// The changes a handler makes to its baggage. They live in the context, so everything that runs under it sees them, and are
/// applied to the context's baggage when a message leaves.
#[derive(Clone, Default)]
struct Changes(Arc<Mutex<ChangeList>>);

impl Changes {
    /// A poisoned lock only means that another thread panicked between two complete changes.
    fn lock(&self) -> MutexGuard<'_, ChangeList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Default)]
pub(crate) struct ChangeList {
    cleared: bool,
    entries: BTreeMap<String, Option<String>>,
}

impl ChangeList {
    pub(crate) fn set(&mut self, key: String, value: String) {
        self.entries.insert(key, Some(value));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.entries.insert(key.to_owned(), None);
    }

    pub(crate) fn clear(&mut self) {
        self.cleared = true;
        self.entries.clear();
    }

    fn is_empty(&self) -> bool {
        !self.cleared && self.entries.is_empty()
    }

    fn apply(&self, base: &OtelBaggage) -> OtelBaggage {
        let mut result = OtelBaggage::new();
        if !self.cleared {
            for (key, (value, metadata)) in base {
                if !self.entries.contains_key(key.as_str()) {
                    result.insert_with_metadata(key.clone(), value.clone(), metadata.clone());
                }
            }
        }
        for (key, value) in &self.entries {
            if let Some(value) = value {
                result.insert(key.clone(), value.clone());
            }
        }
        result
    }
}

/// The baggage a message published under `context` carries, where it differs from that of the context.
fn changed_baggage(context: &Context) -> Option<OtelBaggage> {
    let changes = context.get::<Changes>()?.lock();
    (!changes.is_empty()).then(|| changes.apply(context.baggage()))
}

/// Whether a message that leaves under this context has nothing to carry: no span and no baggage.
pub(crate) fn carries_nothing(context: &Context) -> bool {
    !context.has_active_span() && context.get::<Changes>().is_none() && context.baggage().is_empty()
}

/// The context to inject: with the changed baggage, and only the entries that may leave.
pub(crate) fn outgoing_context<'a>(context: &'a Context, policy: &BaggagePolicy) -> Cow<'a, Context> {
    match (changed_baggage(context), policy) {
        (None, BaggagePolicy::All) => Cow::Borrowed(context),
        (Some(baggage), BaggagePolicy::All) => Cow::Owned(with_baggage(context, &baggage)),
        (Some(baggage), _) => Cow::Owned(with_baggage(context, &admitted(&baggage, policy))),
        (None, _) => Cow::Owned(with_baggage(context, &admitted(context.baggage(), policy))),
    }
}

/// The entries of `baggage` that the policy admits.
pub(crate) fn admitted(baggage: &OtelBaggage, policy: &BaggagePolicy) -> OtelBaggage {
    let mut result = OtelBaggage::new();
    for (key, (value, metadata)) in baggage.iter().filter(|(key, _)| policy.admits(key.as_str())) {
        result.insert_with_metadata(key.clone(), value.clone(), metadata.clone());
    }
    result
}

/// Replaces the baggage of a context (TRAP-15).
pub(crate) fn with_baggage(context: &Context, baggage: &OtelBaggage) -> Context {
    let entries = baggage.iter();
    context.with_baggage(
        entries.map(|(key, (value, metadata))| KeyValueMetadata::new(key.clone(), value.clone(), metadata.clone())),
    )
}

/// The context under which a message is published: the current one where there is one, with the handler's scope filling what a
/// spawned task lacks (TRAP-02).
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

/// Attributes made of the listed baggage entries (BAGG-13).
pub(crate) fn baggage_attributes(baggage: &OtelBaggage, listed: &[(String, Key)], set: &mut dyn FnMut(KeyValue)) {
    for (key, attribute) in listed {
        if let Some(value) = baggage.get(key) {
            set(KeyValue::new(attribute.clone(), value.clone()));
        }
    }
}
