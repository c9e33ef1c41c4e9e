use std::future::Future;

use super::IntoRoute;
use super::route::Route;
use crate::message::Destination;
use crate::middleware::{Middleware, RetryPolicy};
use crate::telemetry::{ParentMode, Trust};

/// An `async fn` of up to eight arguments, each an extractor, that returns nothing, a [`Settlement`](crate::Settlement), a reply,
/// several replies, or a `Result` of these.
///
/// Its methods add what belongs to one subscription; they turn the handler into a [`Route`].
///
/// # Examples
///
/// ```
/// use throughline_core::{Handler, Route};
///
/// async fn reserve(order: String) -> String {
///     format!("reserved {order}")
/// }
///
/// let route: Route<()> = reserve.reply_to("stock.reserved").concurrency(4);
/// ```
pub trait Handler<Args, S>: Function<Args> {
    /// Publishes what the handler returns to a destination, besides answering a requester.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route};
    /// async fn reserve(order: String) -> String { order }
    /// let route: Route<()> = reserve.reply_to("stock.reserved");
    /// ```
    fn reply_to(self, destination: impl Into<Destination>) -> Route<S>
    where
        Self: IntoRoute<Args, S>,
    {
        self.into_route().reply_to(destination)
    }

    /// Adds middleware to this subscription, inside that of the app.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route, middleware::Timeout};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.middleware(Timeout::secs(10));
    /// ```
    fn middleware(self, middleware: impl Middleware) -> Route<S>
    where
        Self: IntoRoute<Args, S>,
    {
        self.into_route().middleware(middleware)
    }

    /// Forwards messages that are given up to another destination.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.dead_letter("orders.placed.dead");
    /// ```
    fn dead_letter(self, destination: impl Into<Destination>) -> Route<S>
    where
        Self: IntoRoute<Args, S>,
    {
        self.into_route().dead_letter(destination)
    }

    /// Sets how often a failing message of this subscription is tried, when, and which failures are worth it; in place of what the app
    /// says.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, RetryPolicy, Route};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.retry(RetryPolicy::new().attempts(3));
    /// ```
    fn retry(self, policy: RetryPolicy) -> Route<S>
    where
        Self: IntoRoute<Args, S>,
    {
        self.into_route().retry(policy)
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
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.concurrency(16);
    /// ```
    fn concurrency(self, most: usize) -> Route<S>
    where
        Self: IntoRoute<Args, S>,
    {
        self.into_route().concurrency(most)
    }

    /// Sets what the parent of the process span is, for this subscription.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route, telemetry::ParentMode};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.parent_mode(ParentMode::LinkOnly);
    /// ```
    fn parent_mode(self, mode: ParentMode) -> Route<S>
    where
        Self: IntoRoute<Args, S>,
    {
        self.into_route().parent_mode(mode)
    }

    /// Sets how far the headers of this subscription's messages are trusted.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route, telemetry::Trust};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.trust(Trust::Link);
    /// ```
    fn trust(self, trust: Trust) -> Route<S>
    where
        Self: IntoRoute<Args, S>,
    {
        self.into_route().trust(trust)
    }
}

// For any function: what it lacks as a handler is then said by `IntoRoute`, which names the argument, the answer or the future.
impl<F, Args, S> Handler<Args, S> for F where F: Function<Args> {}

/// A function of up to eight arguments, whatever they are. [`Handler`] gives it its methods.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a function of up to eight arguments",
    note = "a handler is an `async fn` of up to eight arguments; put what it needs besides messages into the state (`State<T>`), or several arguments into an extractor of your own"
)]
pub trait Function<Args>: Clone + Send + Sync + Sized + 'static {
    /// What the function returns: of an `async fn`, its future.
    type Output;

    /// Calls the function.
    #[doc(hidden)]
    fn call(&self, arguments: Args) -> Self::Output;
}

/// What an `async fn` returns when it is called.
#[diagnostic::on_unimplemented(
    message = "the handler is not `async`: it returns `{Self}`, which is no future",
    label = "not an `async fn`",
    note = "write `async fn`, or return a future"
)]
pub trait Async: Future {}

#[diagnostic::do_not_recommend]
impl<F: Future> Async for F {}

macro_rules! impl_function {
    ($($argument:ident),*) => {
        #[allow(non_snake_case)] // the type parameters also name the values
        impl<F, R, $($argument,)*> Function<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Clone + Send + Sync + 'static,
        {
            type Output = R;

            fn call(&self, ($($argument,)*): ($($argument,)*)) -> R {
                self($($argument),*)
            }
        }
    };
}

impl_function!();
impl_function!(A1);
impl_function!(A1, A2);
impl_function!(A1, A2, A3);
impl_function!(A1, A2, A3, A4);
impl_function!(A1, A2, A3, A4, A5);
impl_function!(A1, A2, A3, A4, A5, A6);
impl_function!(A1, A2, A3, A4, A5, A6, A7);
impl_function!(A1, A2, A3, A4, A5, A6, A7, A8);
