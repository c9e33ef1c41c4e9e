//! What a service is made of: [`App`], its subscriptions and handlers, and [`Router`]s that group them.

mod router;

use std::fmt;
use std::sync::Arc;

use self::router::Bound;
pub(crate) use self::router::Entry;
pub use self::router::Router;
use crate::broker::Subscription;
use crate::handler::IntoRoute;
use crate::middleware::{Middleware, RetryPolicy, TelemetryMiddleware};
use crate::telemetry::{Builder, Instrumentation};

/// A service before it runs: subscriptions with their handlers, middleware, state and telemetry. [`serve`](crate::serve()) runs it.
///
/// `S` is the state the handlers still need; [`with_state`](Self::with_state) gives it.
///
/// # Examples
///
/// ```
/// use throughline_core::{App, Handler};
/// use throughline_core::broker::{Pattern, Subscription};
/// use throughline_core::middleware::Timeout;
///
/// async fn reserve(order: String) -> String { order }
///
/// // An adapter's typed subscription, such as `Topic::new("orders.placed").group("stock")`, stands in the place of this general one.
/// let orders = Subscription::new("in_memory", Pattern::exact("orders.placed")).with_group("stock");
/// let app: App = App::new().subscribe(orders, reserve.reply_to("stock.reserved")).middleware(Timeout::secs(10));
/// ```
pub struct App<S = ()> {
    router: Router<S>,
    telemetry: Option<TelemetryChoice>,
    has_error_texts: bool,
}

/// Where an app's telemetry comes from.
enum TelemetryChoice {
    Globals,
    Given(TelemetryMiddleware),
}

impl<S: Send + Sync + 'static> App<S> {
    /// Creates an app without subscriptions, with telemetry on the global providers.
    ///
    /// # Examples
    ///
    /// ```
    /// let app: throughline_core::App = throughline_core::App::new();
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self { router: Router::new(), telemetry: Some(TelemetryChoice::Globals), has_error_texts: true }
    }

    /// Adds a subscription and what handles it: a handler, or a [`Route`](crate::Route) made of one.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::App;
    /// # use throughline_core::broker::{Pattern, Subscription};
    /// # let orders = Subscription::new("in_memory", Pattern::exact("orders"));
    /// async fn reserve(order: String) {}
    /// let app: App = App::new().subscribe(orders, reserve);
    /// ```
    #[must_use]
    pub fn subscribe<Args>(mut self, subscription: impl Into<Subscription>, handler: impl IntoRoute<Args, S>) -> Self {
        self.router = self.router.subscribe(subscription, handler);
        self
    }

    /// Adds the subscriptions of a router, with a prefix before each of their names (`""` for none).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{App, Router};
    /// let app: App = App::new().nest("eu.", Router::new());
    /// ```
    #[must_use]
    pub fn nest(mut self, prefix: &str, router: Router<S>) -> Self {
        self.router = self.router.nest(prefix, router);
        self
    }

    /// Adds middleware around every subscription and every publish of the app, inside what is there already.
    #[must_use]
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.router = self.router.middleware(middleware);
        self
    }

    /// Sets how often a failing message of each subscription is tried, when, and which failures are worth it. What a router or a subscription
    /// says itself holds in its place; the default is [`RetryPolicy::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::{App, RetryPolicy};
    /// let app: App = App::new().retry(RetryPolicy::new().attempts(5).first_delay(Duration::from_secs(1)));
    /// ```
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.router = self.router.retry(policy);
        self
    }

    /// Replaces the telemetry.
    #[must_use]
    pub fn telemetry(mut self, telemetry: impl Into<TelemetryMiddleware>) -> Self {
        self.telemetry = Some(TelemetryChoice::Given(telemetry.into()));
        self
    }

    /// Removes the telemetry: no spans, no metrics, and headers are neither read nor written.
    #[must_use]
    pub fn without_telemetry(mut self) -> Self {
        self.telemetry = None;
        self
    }

    /// Switches the texts of errors in the log (default on; switch off where they may hold private data).
    ///
    /// The text is that of an error your code returned, with its causes. `error_type` stays, and so do the errors of the framework and
    /// the broker. Of a body that cannot be decoded the log has position and kind, such as `data error at line 1 column 13`, and never
    /// what is in it, whatever is set here.
    ///
    /// # Examples
    ///
    /// ```
    /// let app: throughline_core::App = throughline_core::App::new().error_texts_in_logs(false);
    /// ```
    #[must_use]
    pub const fn error_texts_in_logs(mut self, on: bool) -> Self {
        self.has_error_texts = on;
        self
    }

    /// Gives the handlers their state.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::App;
    ///
    /// #[derive(Clone)]
    /// struct Stock;
    ///
    /// let app: App = App::<Stock>::new().with_state(Stock);
    /// ```
    #[must_use]
    pub fn with_state(self, state: S) -> App<()> {
        let state = Arc::new(state);
        App {
            router: self.router.map_handlers(|handler| Arc::new(Bound::new(handler, Arc::clone(&state)))),
            telemetry: self.telemetry,
            has_error_texts: self.has_error_texts,
        }
    }
}

impl<S> App<S> {
    /// Starts a builder with the app's telemetry settings, hooks and propagator, and without its providers; `None` after
    /// [`without_telemetry`](Self::without_telemetry).
    ///
    /// It is for what runs the app of somebody else with providers of its own, as a test does. Telemetry that was placed as ordinary
    /// middleware is not in it.
    ///
    /// # Examples
    ///
    /// ```
    /// use opentelemetry::trace::noop::NoopTracerProvider;
    /// use throughline_core::App;
    /// use throughline_core::telemetry::{Instrumentation, SettleSpans};
    ///
    /// let app: App = App::new().telemetry(Instrumentation::builder().settle_spans(SettleSpans::Always).build());
    /// let app = match app.telemetry_builder() {
    ///     Some(settings) => app.telemetry(settings.tracer_provider(NoopTracerProvider::new()).build()),
    ///     None => app,
    /// };
    /// # let _ = app;
    /// ```
    #[must_use]
    pub fn telemetry_builder(&self) -> Option<Builder> {
        self.telemetry.as_ref().map(|choice| match choice {
            TelemetryChoice::Globals => Instrumentation::builder(),
            TelemetryChoice::Given(middleware) => middleware.instrumentation().to_builder(),
        })
    }
}

impl App<()> {
    /// The telemetry; global providers may be set later.
    pub(crate) fn instrumentation(&self) -> Option<Instrumentation> {
        self.telemetry.as_ref().map(|choice| match choice {
            TelemetryChoice::Globals => Instrumentation::from_globals(),
            TelemetryChoice::Given(middleware) => middleware.instrumentation().clone(),
        })
    }

    pub(crate) const fn has_error_texts(&self) -> bool {
        self.has_error_texts
    }

    pub(crate) fn into_entries(self) -> Vec<Entry<()>> {
        self.router.into_entries()
    }
}

impl<S: Send + Sync + 'static> Default for App<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for App<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("router", &self.router).finish_non_exhaustive()
    }
}

/// An app that lacks nothing: [`serve`](crate::serve()) takes it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be served yet",
    label = "its handlers still need their state",
    note = "a handler takes `State<..>`: give the app its state with `.with_state(..)` before it is served"
)]
pub trait Ready: sealed::Sealed {
    /// Returns the app itself.
    #[doc(hidden)]
    fn into_app(self) -> App<()>;
}

impl Ready for App<()> {
    fn into_app(self) -> Self {
        self
    }
}

mod sealed {
    pub trait Sealed {}
    impl<S> Sealed for super::App<S> {}
}
