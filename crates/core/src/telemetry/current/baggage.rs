use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;

use opentelemetry::Context;
use opentelemetry::baggage::Baggage as OtelBaggage;
use opentelemetry::context::FutureExt;

use super::scope::Scope;
use crate::message::Headers;
use crate::propagation::baggage;
use crate::telemetry::changes::{ChangeList, with_baggage};

/// Access to the baggage of the message that is being handled.
///
/// What is set, removed or cleared here is what every later publish of the handler carries, also from a task it spawned.
/// In a batch the baggage of all messages is merged, the last value winning.
///
/// # Examples
///
/// ```
/// use throughline_core::extract::Baggage;
/// use throughline_core::CurrentBaggage;
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
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::CurrentBaggage;
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
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::CurrentBaggage;
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
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::CurrentBaggage;
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
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::CurrentBaggage;
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
    /// baggage.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::CurrentBaggage;
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
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::CurrentBaggage;
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
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::CurrentBaggage;
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
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::CurrentBaggage;
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
}

/// Baggage: that of the message being handled, as an argument of a handler, or started outside any handler.
///
/// # Examples
///
/// ```
/// use throughline_core::extract::Baggage;
/// use throughline_core::CurrentBaggage;
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
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::CurrentBaggage;
    /// assert!(Baggage::new().get_all().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self(Scope::detached())
    }

    /// Creates baggage from message headers, to be used outside the handler that received them. Malformed entries are left out.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::{CurrentBaggage, Headers};
    ///
    /// let headers = Headers::from_iter([("baggage", "tenant=acme")]);
    /// let baggage = Baggage::from_headers(&headers);
    /// assert_eq!(baggage.get("tenant").as_deref(), Some("acme"));
    /// ```
    #[must_use]
    pub fn from_headers(headers: &Headers) -> Self {
        let values: Vec<&str> =
            headers.get_all("baggage").filter_map(|value| std::str::from_utf8(value).ok()).collect();
        Self(Scope::new(with_baggage(&Context::new(), &baggage::parse_all(&values)), None, Vec::new()))
    }

    /// Returns the baggage that is current: in a handler that of its message, where a change is a change of the message's baggage;
    /// elsewhere a copy of what is in the OpenTelemetry context. An entry that is added joins those that are there.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::CurrentBaggage;
    /// use throughline_core::extract::Baggage;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let both = async { Baggage::current().with("region", "eu").get_all() };
    /// assert_eq!(Baggage::new().with("tenant", "acme").scope(both).await.len(), 2);
    /// # }
    /// ```
    #[must_use]
    pub fn current() -> Self {
        Self(Scope::of_current(None))
    }

    /// Sets an entry; one that cannot be carried is left out, see [`CurrentBaggage::set`].
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::extract::Baggage;
    /// use throughline_core::CurrentBaggage;
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
    /// use throughline_core::extract::Baggage;
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

impl CurrentBaggage for Scope {
    fn baggage_scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(self)
    }
}

fn entries(baggage: &OtelBaggage) -> BTreeMap<String, String> {
    baggage.iter().map(|(key, (value, _))| (key.to_string(), value.to_string())).collect()
}
