use std::future::Future;

use super::route::Route;
use super::{IntoOutcome, IntoRoute};
use crate::extract::{FromDelivery, Shape};
use crate::message::{Delivery, Destination, Outcome};
use crate::middleware::Middleware;
use crate::telemetry::{ParentMode, Trust};

/// Is an `async fn` of up to eight arguments, each an extractor, that returns nothing, a [`Settlement`](crate::Settlement), a reply,
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler is an `async fn` of up to eight arguments whose future is `Send` (nothing like `Rc` or a lock guard held over an `.await`)",
    note = "every argument must be an extractor: `Json<T>` (`T` needs `#[derive(serde::Deserialize)]`), `String`, `Bytes`, `Headers`, `State<T>`, `ProcessSpan`, `Baggage`, `Publisher`, `Batch<T>`, `Delivery`",
    note = "it returns `()`, `Settlement`, a reply such as `Json<T>` (`T` needs `#[derive(serde::Serialize)]`), several replies, or a `Result` of these"
)]
pub trait Handler<Args: 'static, S: Sync + 'static>: Clone + Send + Sync + Sized + 'static {
    /// Whether the arguments want single messages, batches, or either.
    const SHAPE: Shape;

    /// Handles a delivery.
    fn call(&self, delivery: Delivery, state: &S) -> impl Future<Output = Outcome> + Send;

    /// Publishes what the handler returns to a destination, besides answering a requester.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route};
    /// async fn reserve(order: String) -> String { order }
    /// let route: Route<()> = reserve.reply_to("stock.reserved");
    /// ```
    fn reply_to(self, destination: impl Into<Destination>) -> Route<S> {
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
    fn middleware(self, middleware: impl Middleware) -> Route<S> {
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
    fn dead_letter(self, destination: impl Into<Destination>) -> Route<S> {
        self.into_route().dead_letter(destination)
    }

    /// Handles up to so many deliveries at the same time (default 1, which keeps their order).
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.concurrency(16);
    /// ```
    fn concurrency(self, most: usize) -> Route<S> {
        self.into_route().concurrency(most)
    }

    /// Sets what the parent of the process span is, for this subscription (LINK-10).
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route, telemetry::ParentMode};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.parent_mode(ParentMode::LinkOnly);
    /// ```
    fn parent_mode(self, mode: ParentMode) -> Route<S> {
        self.into_route().parent_mode(mode)
    }

    /// Sets how far the headers of this subscription's messages are trusted (PROP-22).
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::{Handler, Route, telemetry::Trust};
    /// async fn reserve(order: String) {}
    /// let route: Route<()> = reserve.trust(Trust::Link);
    /// ```
    fn trust(self, trust: Trust) -> Route<S> {
        self.into_route().trust(trust)
    }
}

const fn join(one: Shape, other: Shape) -> Shape {
    match (one, other) {
        (Shape::Any, shape) | (shape, Shape::Any) => shape,
        (Shape::Batch, _) | (_, Shape::Batch) => Shape::Batch,
        (Shape::Single, Shape::Single) => Shape::Single,
    }
}

macro_rules! impl_handler {
    ($($argument:ident),*) => {
        #[allow(non_snake_case)] // the type parameters also name the values
        impl<F, Fut, R, S, $($argument,)*> Handler<($($argument,)*), S> for F
        where
            F: Fn($($argument),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: IntoOutcome,
            S: Sync + 'static,
            $($argument: FromDelivery<S> + Send + 'static,)*
        {
            const SHAPE: Shape = {
                let shape = Shape::Any;
                $(let shape = join(shape, $argument::SHAPE);)*
                shape
            };

            async fn call(&self, delivery: Delivery, state: &S) -> Outcome {
                $(
                    let $argument = match $argument::from_delivery(&delivery, state).await {
                        Ok(argument) => argument,
                        Err(rejection) => return Outcome::failed(rejection.into_failure()),
                    };
                )*
                let _ = (&delivery, state);
                self($($argument),*).await.into_outcome()
            }
        }
    };
}

impl_handler!();
impl_handler!(A1);
impl_handler!(A1, A2);
impl_handler!(A1, A2, A3);
impl_handler!(A1, A2, A3, A4);
impl_handler!(A1, A2, A3, A4, A5);
impl_handler!(A1, A2, A3, A4, A5, A6);
impl_handler!(A1, A2, A3, A4, A5, A6, A7);
impl_handler!(A1, A2, A3, A4, A5, A6, A7, A8);
