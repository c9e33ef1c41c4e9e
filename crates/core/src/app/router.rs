use std::fmt;
use std::sync::Arc;

use crate::broker::{BoxFuture, Subscription};
use crate::handler::{ErasedHandler, IntoRoute, RouteOptions};
use crate::message::{Delivery, Outcome};
use crate::middleware::{Middleware, RetryPolicy};

/// A group of subscriptions that share middleware or a prefix. Routers nest.
///
/// # Examples
///
/// ```
/// use throughline_core::{App, Router};
/// use throughline_core::broker::{Pattern, Subscription};
///
/// async fn reserve(order: String) {}
///
/// let orders = Router::new().subscribe(Subscription::new("in_memory", Pattern::exact("placed")), reserve);
/// let app: App = App::new().nest("orders.", orders); // receives `orders.placed`
/// ```
pub struct Router<S = ()> {
    entries: Vec<Entry<S>>,
    middleware: Vec<Arc<dyn Middleware>>,
    retry: Option<RetryPolicy>,
}

pub(crate) struct Entry<S> {
    pub(crate) subscription: Subscription,
    pub(crate) handler: Arc<dyn ErasedHandler<S>>,
    pub(crate) options: RouteOptions,
}

impl<S: Send + Sync + 'static> Router<S> {
    /// Creates a router without subscriptions.
    ///
    /// # Examples
    ///
    /// ```
    /// let router: throughline_core::Router = throughline_core::Router::new();
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new(), middleware: Vec::new(), retry: None }
    }

    /// Adds a subscription and what handles it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::Router;
    /// # use throughline_core::broker::{Pattern, Subscription};
    /// async fn reserve(order: String) {}
    /// let router: Router = Router::new().subscribe(Subscription::new("in_memory", Pattern::exact("orders")), reserve);
    /// ```
    #[must_use]
    pub fn subscribe<Args>(mut self, subscription: impl Into<Subscription>, handler: impl IntoRoute<Args, S>) -> Self {
        let route = handler.into_route();
        self.entries.push(Entry { subscription: subscription.into(), handler: route.handler, options: route.options });
        self
    }

    /// Adds the subscriptions of another router, with a prefix before each of their names, inside this router's middleware.
    ///
    /// The prefix stands before what is subscribed to, not before where replies go.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Router;
    /// let router: Router = Router::new().nest("eu.", Router::new());
    /// ```
    #[must_use]
    pub fn nest(mut self, prefix: &str, router: Self) -> Self {
        for mut entry in router.into_entries() {
            entry.subscription = entry.subscription.prefixed(prefix);
            self.entries.push(entry);
        }
        self
    }

    /// Adds middleware around every subscription of this router, wherever it is written, inside what is there already.
    #[must_use]
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.middleware.push(Arc::new(middleware));
        self
    }

    /// Sets how often a failing message of each subscription of this router is tried, when, and which failures are worth it. What a nested
    /// router or a subscription says itself holds in its place.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{RetryPolicy, Router};
    /// let router: Router = Router::new().retry(RetryPolicy::new().attempts(5));
    /// ```
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    pub(crate) fn into_entries(self) -> Vec<Entry<S>> {
        let mut entries = self.entries;
        for entry in &mut entries {
            // A nested router has been here before, and is narrower.
            if entry.options.inherited_retry.is_none() {
                entry.options.inherited_retry.clone_from(&self.retry);
            }
            entry.options.middleware.splice(0..0, self.middleware.iter().cloned());
        }
        entries
    }

    pub(crate) fn map_handlers<T>(
        self,
        mut map: impl FnMut(Arc<dyn ErasedHandler<S>>) -> Arc<dyn ErasedHandler<T>>,
    ) -> Router<T> {
        let entries = self.entries.into_iter().map(|entry| Entry {
            subscription: entry.subscription,
            handler: map(entry.handler),
            options: entry.options,
        });
        Router { entries: entries.collect(), middleware: self.middleware, retry: self.retry }
    }
}

impl<S: Send + Sync + 'static> Default for Router<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| &entry.subscription)).finish()
    }
}

/// A handler with its state.
pub(super) struct Bound<S> {
    handler: Arc<dyn ErasedHandler<S>>,
    state: Arc<S>,
}

impl<S> Bound<S> {
    pub(super) const fn new(handler: Arc<dyn ErasedHandler<S>>, state: Arc<S>) -> Self {
        Self { handler, state }
    }
}

impl<S: Send + Sync> ErasedHandler<()> for Bound<S> {
    fn uses_scope(&self) -> bool {
        self.handler.uses_scope()
    }

    fn call<'a>(&'a self, delivery: Delivery, _state: &'a ()) -> BoxFuture<'a, Outcome> {
        self.handler.call(delivery, &self.state)
    }
}
