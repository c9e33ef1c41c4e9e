use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::future::IntoFuture;

use opentelemetry::baggage::Baggage as OtelBaggage;
use opentelemetry::context::FutureExt;
use opentelemetry::propagation::Injector;
use opentelemetry::trace::{SpanContext, SpanRef, TraceContextExt};
use opentelemetry::{Context, Key, KeyValue, Value};

use super::changes::{ChangeList, with_baggage};
use super::instrumentation::Instrumentation;
use super::scope::Scope;
use crate::message::{Delivery, Headers};
use crate::propagation::baggage;

/// Gives access to the span of the message that is being handled.
///
/// Implemented by the extractor [`ProcessSpan`], by [`Delivery`], by each message of a batch and by the scope of a raw client.
///
/// # Examples
///
/// ```
/// use throughline_core::{CurrentSpan, telemetry::ProcessSpan};
///
/// async fn reserve(span: ProcessSpan) {
///     span.set_attribute("order.items", 3);
///     span.add_event("reserved", []);
/// }
/// ```
pub trait CurrentSpan {
    /// Returns the scope the span belongs to.
    fn scope(&self) -> Cow<'_, Scope>;

    /// Returns the OpenTelemetry context that holds the span.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentSpan, telemetry::ProcessSpan};
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     let context = span.context();
    ///     # let _ = context;
    /// }
    /// ```
    fn context(&self) -> Context {
        self.scope().context().clone()
    }

    /// Returns the ids of the span; invalid when nothing is traced.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentSpan, telemetry::ProcessSpan};
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     println!("handling in trace {}", span.span_context().trace_id());
    /// }
    /// ```
    fn span_context(&self) -> SpanContext {
        self.scope().context().span().span_context().clone()
    }

    /// Calls `f` with the span itself, for what the other methods do not cover.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentSpan, telemetry::ProcessSpan};
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     use opentelemetry::trace::Status;
    ///     span.with_span(|span| span.set_status(Status::error("half done")));
    /// }
    /// ```
    fn with_span<R>(&self, f: impl FnOnce(SpanRef<'_>) -> R) -> R
    where
        Self: Sized,
    {
        f(self.scope().context().span())
    }

    /// Sets an attribute of the process span; it is written when the span ends, the last value of a key winning (GEN-06).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentSpan, telemetry::ProcessSpan};
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     span.set_attribute("order.items", 3);
    /// }
    /// ```
    fn set_attribute(&self, key: impl Into<Key>, value: impl Into<Value>)
    where
        Self: Sized,
    {
        self.scope().set_attribute(KeyValue::new(key, value));
    }

    /// Adds an event with attributes.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentSpan, telemetry::ProcessSpan};
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     span.add_event("reserved", [opentelemetry::KeyValue::new("warehouse", "north")]);
    /// }
    /// ```
    fn add_event(&self, name: impl Into<Cow<'static, str>>, attributes: impl IntoIterator<Item = KeyValue>)
    where
        Self: Sized,
    {
        self.with_span(|span| span.add_event(name, attributes.into_iter().collect()));
    }

    /// Records an error that the handler itself deals with; the span's status stays as it is.
    ///
    /// It becomes a log event of the span where a logger provider was given (STAT-13, -19), else a span event `exception`.
    /// An error the handler returns is recorded without this.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentSpan, telemetry::ProcessSpan};
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     if let Err(error) = "x".parse::<u8>() {
    ///         span.record_error(&error); // and go on without it
    ///     }
    /// }
    /// ```
    fn record_error<E: Error>(&self, error: &E)
    where
        Self: Sized,
    {
        self.scope().record_error(std::any::type_name::<E>(), error);
    }

    /// Writes the trace context and the baggage into the headers of another call, so that it continues the trace.
    ///
    /// Any OpenTelemetry [`Injector`] will do, such as the one for HTTP requests.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentSpan, telemetry::ProcessSpan};
    ///
    /// async fn reserve(span: ProcessSpan) {
    ///     let mut headers = std::collections::HashMap::new();
    ///     span.inject(&mut headers); // then send the call with these headers
    /// }
    /// ```
    fn inject(&self, injector: &mut dyn Injector) {
        self.scope().inject(injector);
    }
}

/// Gives access to the baggage of the message that is being handled.
///
/// What is set, removed or cleared here is what every later publish of the handler carries, also from a task it spawned.
/// In a batch the baggage of all messages is merged, the last value winning (BAGG-12).
///
/// # Examples
///
/// ```
/// use throughline_core::{CurrentBaggage, telemetry::Baggage};
///
/// async fn reserve(baggage: Baggage) {
///     if baggage.get("tenant").is_some() {
///         baggage.set("warehouse", "north");
///     }
/// }
/// ```
pub trait CurrentBaggage {
    /// Returns the scope the baggage belongs to.
    fn baggage_scope(&self) -> Cow<'_, Scope>;

    /// Returns the value of a key.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, telemetry::Baggage};
    ///
    /// async fn reserve(baggage: Baggage) {
    ///     let tenant = baggage.get("tenant");
    ///     # let _ = tenant;
    /// }
    /// ```
    fn get(&self, key: &str) -> Option<String> {
        self.baggage_scope().baggage().get(key).map(ToString::to_string)
    }

    /// Returns all entries.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, telemetry::Baggage};
    ///
    /// async fn reserve(baggage: Baggage) {
    ///     for (key, value) in baggage.get_all() {
    ///         println!("{key}={value}");
    ///     }
    /// }
    /// ```
    fn get_all(&self) -> BTreeMap<String, String> {
        entries(&self.baggage_scope().baggage())
    }

    /// Returns the entries of each message of a batch, in message order; for a single message its own.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, telemetry::Baggage};
    ///
    /// async fn reserve(baggage: Baggage) {
    ///     println!("{} messages", baggage.get_all_batch().len());
    /// }
    /// ```
    fn get_all_batch(&self) -> Vec<BTreeMap<String, String>> {
        let scope = self.baggage_scope();
        if scope.members().is_empty() {
            return vec![entries(&scope.baggage())];
        }
        scope.members().iter().map(|message| entries(&message.baggage())).collect()
    }

    /// Returns the keys for which the messages of a batch have different values, in order of key. An absent key is no different value.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, telemetry::Baggage};
    ///
    /// async fn reserve(baggage: Baggage) {
    ///     if !baggage.conflicts().is_empty() {
    ///         baggage.clear();
    ///     }
    /// }
    /// ```
    fn conflicts(&self) -> Vec<String> {
        let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (key, value) in self.get_all_batch().into_iter().flatten() {
            values.entry(key).or_default().insert(value);
        }
        values.into_iter().filter(|(_, values)| values.len() > 1).map(|(key, _)| key).collect()
    }

    /// Sets an entry and tells whether it was taken: a key must be an HTTP token, and key and value fit the 8192 bytes of all
    /// baggage (BAGG-01, -07).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, telemetry::Baggage};
    ///
    /// async fn reserve(baggage: Baggage) {
    ///     assert!(baggage.set("warehouse", "north"));
    /// }
    /// ```
    fn set(&self, key: impl Into<String>, value: impl Into<String>) -> bool
    where
        Self: Sized,
    {
        let (key, value) = (key.into(), value.into());
        let mut probe = self.baggage_scope().baggage();
        probe.insert(key.clone(), value.clone());
        let taken = probe.get(&key).is_some_and(|stored| stored.as_str() == value);
        if taken {
            self.baggage_scope().change(|changes| changes.set(key, value));
        }
        taken
    }

    /// Removes an entry.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, telemetry::Baggage};
    ///
    /// async fn reserve(baggage: Baggage) {
    ///     baggage.remove("tenant");
    /// }
    /// ```
    fn remove(&self, key: &str) {
        self.baggage_scope().change(|changes| changes.remove(key));
    }

    /// Removes every entry: what is published from now on carries no baggage but what is set afterwards.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, telemetry::Baggage};
    ///
    /// async fn reserve(baggage: Baggage) {
    ///     baggage.clear();
    /// }
    /// ```
    fn clear(&self) {
        self.baggage_scope().change(ChangeList::clear);
    }

    /// Returns the baggage as message headers; empty when there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, telemetry::Baggage};
    ///
    /// async fn reserve(baggage: Baggage) {
    ///     let headers = baggage.to_headers();
    ///     # let _ = headers;
    /// }
    /// ```
    fn to_headers(&self) -> Headers {
        let mut headers = Headers::new();
        if let Some(value) = baggage::format(&self.baggage_scope().baggage()) {
            headers.insert("baggage", value);
        }
        headers
    }

    /// Creates baggage from message headers, to be used outside the handler that received them. Malformed entries are left out.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, Headers, telemetry::Baggage};
    ///
    /// let headers = Headers::from_iter([("baggage", "tenant=acme")]);
    /// let baggage = Baggage::from_headers(&headers);
    /// assert_eq!(baggage.get("tenant").as_deref(), Some("acme"));
    /// ```
    #[must_use]
    fn from_headers(headers: &Headers) -> Baggage
    where
        Self: Sized,
    {
        let values: Vec<&str> =
            headers.get_all("baggage").filter_map(|value| std::str::from_utf8(value).ok()).collect();
        Baggage(Scope::new(with_baggage(&Context::new(), &baggage::parse_all(&values)), None, Vec::new()))
    }
}

fn entries(baggage: &OtelBaggage) -> BTreeMap<String, String> {
    baggage.iter().map(|(key, (value, _))| (key.to_string(), value.to_string())).collect()
}

/// Is the span of the message or batch that is being handled, as an argument of a handler.
///
/// # Examples
///
/// ```
/// use throughline_core::{CurrentSpan, telemetry::ProcessSpan};
///
/// async fn reserve(span: ProcessSpan) {
///     span.set_attribute("order.items", 3);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ProcessSpan(pub(crate) Scope);

impl CurrentSpan for ProcessSpan {
    fn scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(&self.0)
    }
}

/// Is baggage: that of the message being handled, as an argument of a handler, or started outside any handler.
///
/// # Examples
///
/// ```
/// use throughline_core::{CurrentBaggage, telemetry::Baggage};
///
/// let baggage = Baggage::new().with("tenant", "acme");
/// assert_eq!(baggage.get("tenant").as_deref(), Some("acme"));
/// ```
#[derive(Clone, Debug)]
pub struct Baggage(pub(crate) Scope);

impl Baggage {
    /// Creates empty baggage that belongs to no message.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, telemetry::Baggage};
    /// assert!(Baggage::new().get_all().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self(Scope::detached())
    }

    /// Sets an entry; one that cannot be carried is left out, see [`CurrentBaggage::set`].
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, telemetry::Baggage};
    /// assert_eq!(Baggage::new().with("tenant", "acme").get("tenant").as_deref(), Some("acme"));
    /// ```
    #[must_use]
    pub fn with(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.set(key, value);
        self
    }

    /// Runs a future in which this baggage is current: what it publishes carries it, and so does foreign instrumentation
    /// that reads baggage from the OpenTelemetry context.
    ///
    /// The current span stays the parent.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use opentelemetry::{Context, baggage::BaggageExt};
    /// use throughline_core::telemetry::Baggage;
    ///
    /// let seen = Baggage::new()
    ///     .with("tenant", "acme")
    ///     .scope(async { Context::current().baggage().get("tenant").map(ToString::to_string) })
    ///     .await;
    /// assert_eq!(seen.as_deref(), Some("acme"));
    /// # }
    /// ```
    pub async fn scope<F: IntoFuture>(&self, future: F) -> F::Output {
        future.into_future().with_context(self.0.context_with_baggage()).await
    }
}

impl Default for Baggage {
    fn default() -> Self {
        Self::new()
    }
}

impl CurrentBaggage for Baggage {
    fn baggage_scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(&self.0)
    }
}

impl CurrentSpan for Scope {
    fn scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(self)
    }
}

impl CurrentBaggage for Scope {
    fn baggage_scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(self)
    }
}

impl Delivery {
    /// The scope for a handler or a middleware, in whose hands the baggage may change.
    pub(crate) fn telemetry_scope(&self) -> Scope {
        let scope = self.unopened_scope().unwrap_or_else(Scope::detached);
        scope.open();
        scope
    }

    /// The scope, made here where the engine needed none; nothing without telemetry. Copies of the delivery made from now on share it.
    pub(crate) fn unopened_scope(&self) -> Option<Scope> {
        self.made_scope().or_else(|| {
            let instrumentation = Instrumentation::from_any(self.runtime()?.telemetry.as_ref()?)?;
            let made = self.surroundings().get_or_init(|| Scope::of_current(instrumentation).to_surroundings());
            Scope::from_surroundings(made)
        })
    }

    /// The scope as far as there is one.
    pub(crate) fn made_scope(&self) -> Option<Scope> {
        Scope::from_surroundings(self.surroundings().get()?)
    }

    pub(crate) fn set_scope(&mut self, scope: &Scope) {
        self.set_surroundings(scope.to_surroundings());
    }
}

impl CurrentSpan for Delivery {
    fn scope(&self) -> Cow<'_, Scope> {
        Cow::Owned(self.telemetry_scope())
    }
}

impl CurrentBaggage for Delivery {
    fn baggage_scope(&self) -> Cow<'_, Scope> {
        Cow::Owned(self.telemetry_scope())
    }
}
