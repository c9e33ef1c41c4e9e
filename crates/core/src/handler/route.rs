use std::fmt;
use std::sync::Arc;

use super::erased::Erase;
use super::{Arguments, Async, ErasedHandler, Function, IntoOutcome};
use crate::extract::Shape;
use crate::message::Destination;
use crate::middleware::{DeadLetter, Middleware, RetryPolicy};
use crate::telemetry::{ParentMode, Trust};

/// A handler with what belongs to its subscription: replies, middleware, dead letter, limits.
///
/// # Examples
///
/// ```
/// use throughline_core::{Handler, Route};
/// use throughline_core::middleware::Timeout;
///
/// async fn reserve(order: String) -> String { order }
///
/// let route: Route<()> =
///     reserve.reply_to("stock.reserved").middleware(Timeout::secs(10)).dead_letter("orders.placed.dead");
/// ```
pub struct Route<S = ()> {
    pub(crate) handler: Arc<dyn ErasedHandler<S>>,
    pub(crate) options: RouteOptions,
}

#[derive(Clone)]
pub(crate) struct RouteOptions {
    pub(crate) shape: Shape,
    pub(crate) replies: Vec<Destination>,
    pub(crate) middleware: Vec<Arc<dyn Middleware>>,
    pub(crate) dead_letter: Option<DeadLetter>,
    pub(crate) stops_if_unpublishable: bool,
    /// What the subscription itself says.
    pub(crate) retry: Option<RetryPolicy>,
    /// What its router or app says.
    pub(crate) inherited_retry: Option<RetryPolicy>,
    /// The most at the same time, where the user said so.
    pub(crate) concurrency: Option<usize>,
    pub(crate) parent: Option<ParentMode>,
    pub(crate) trust: Option<Trust>,
}

impl RouteOptions {
    /// The policy that the user chose for the subscription; `None` is the default.
    pub(crate) fn retry_policy(&self) -> Option<&RetryPolicy> {
        self.retry.as_ref().or(self.inherited_retry.as_ref())
    }
}

impl<S> Route<S> {
    fn new<H, Args>(handler: H) -> Self
    where
        H: Function<Args, Output: Async<Output: IntoOutcome> + Send>,
        Args: Arguments<S>,
        S: Sync + 'static,
    {
        let options = RouteOptions {
            shape: Args::SHAPE,
            replies: Vec::new(),
            middleware: Vec::new(),
            dead_letter: None,
            stops_if_unpublishable: false,
            retry: None,
            inherited_retry: None,
            concurrency: None,
            parent: None,
            trust: None,
        };
        Self { handler: Arc::new(Erase::new(handler)), options }
    }

    /// Publishes what the handler returns to a destination, besides answering a requester; called again, to that one too.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route};
    /// async fn reserve(order: String) -> String { order }
    /// let route: Route<()> = reserve.reply_to("stock.reserved").reply_to("audit");
    /// ```
    #[must_use]
    pub fn reply_to(mut self, destination: impl Into<Destination>) -> Self {
        self.options.replies.push(destination.into());
        self
    }

    /// Adds middleware, inside what is there already.
    #[must_use]
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.options.middleware.push(Arc::new(middleware));
        self
    }

    /// Forwards messages that are given up to another destination, see [`DeadLetter`]. It is outermost, wherever it is written.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.concurrency(4).dead_letter("orders.placed.dead");
    /// ```
    #[must_use]
    pub fn dead_letter(mut self, destination: impl Into<Destination>) -> Self {
        self.options.dead_letter = Some(DeadLetter::to(destination));
        self
    }

    /// Sets how often a failing message of this subscription is tried, when, and which failures are worth it; in place of what the app
    /// says.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, RetryPolicy, Route};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.concurrency(4).retry(RetryPolicy::new().attempts(3)).dead_letter("orders.dead");
    /// ```
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = Some(policy);
        self
    }

    /// Ends the subscription, and with it the service, where a message failed and can be published nowhere: its reply, its retry or its
    /// dead letter is refused for good, as one that is too large is. The message stays unsettled. By default it is rejected, and the log
    /// says where it lies.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Handler;
    /// async fn handle(order: String) { println!("{order}"); }
    /// let route = handle.dead_letter("orders.dead").stop_if_unpublishable();
    /// # let _: throughline_core::Route = route;
    /// ```
    #[must_use]
    pub const fn stop_if_unpublishable(mut self) -> Self {
        self.options.stops_if_unpublishable = true;
        self
    }

    /// Handles up to so many deliveries at the same time.
    ///
    /// The default is the subscription's own: one, which keeps the order, or, where the broker keeps it by parts of a destination, one
    /// for each part. The order within a part is kept whatever is set here; elsewhere more than one gives it up. Zero counts as one.
    ///
    /// Without this, single messages whose senders wait for the answer ([`Delivery::is_request`](crate::Delivery::is_request)) are handled
    /// up to 64 at the same time, in no order, beside the one message at a time. `concurrency(1)` handles them one after the other too.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route};
    /// async fn reserve(order: String) -> String { order }
    /// let route: Route<()> = reserve.reply_to("stock.reserved").concurrency(16);
    /// ```
    #[must_use]
    pub fn concurrency(mut self, most: usize) -> Self {
        self.options.concurrency = Some(most.max(1));
        self
    }

    /// Sets what the parent of the process span is, for this subscription.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route, telemetry::ParentMode};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.concurrency(4).parent_mode(ParentMode::LinkOnly);
    /// ```
    #[must_use]
    pub const fn parent_mode(mut self, mode: ParentMode) -> Self {
        self.options.parent = Some(mode);
        self
    }

    /// Sets how far the headers of this subscription's messages are trusted.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route, telemetry::Trust};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.concurrency(4).trust(Trust::Link);
    /// ```
    #[must_use]
    pub const fn trust(mut self, trust: Trust) -> Self {
        self.options.trust = Some(trust);
        self
    }
}

impl<S> fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("shape", &self.options.shape)
            .field("replies", &self.options.replies)
            .field("concurrency", &self.options.concurrency)
            .finish_non_exhaustive()
    }
}

/// What can be subscribed: a handler, or a [`Route`] made of one.
///
/// # Examples
///
/// ```
/// use throughline_core::{IntoRoute, Route};
///
/// async fn reserve(order: String) {}
/// let route: Route<()> = reserve.into_route();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler is an `async fn` of up to eight arguments, each an extractor; where that is not enough, take several of them as one `FromDelivery` of your own, or put them into the state"
)]
pub trait IntoRoute<Args, S> {
    /// Makes the route.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{IntoRoute, Route};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.into_route();
    /// ```
    fn into_route(self) -> Route<S>;
}

impl<H, Args, S> IntoRoute<Args, S> for H
where
    H: Function<Args, Output: Async<Output: IntoOutcome> + Send>,
    Args: Arguments<S>,
    S: Sync + 'static,
{
    fn into_route(self) -> Route<S> {
        Route::new(self)
    }
}

/// The mark of a route among the things that can be subscribed.
#[derive(Debug)]
pub enum Prepared {}

impl<S> IntoRoute<Prepared, S> for Route<S> {
    fn into_route(self) -> Self {
        self
    }
}
