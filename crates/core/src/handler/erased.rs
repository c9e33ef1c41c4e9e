use std::marker::PhantomData;
use std::pin::pin;

use super::{Arguments, Async, Function, IntoOutcome};
use crate::broker::BoxFuture;
use crate::message::{Delivery, Outcome};
use crate::telemetry::{ScopeState, run_in};

/// A handler without its type, so that a route can hold any.
pub(crate) trait ErasedHandler<S>: Send + Sync {
    /// Whether an argument may ask for the span or the baggage of the message.
    fn uses_scope(&self) -> bool;

    fn call<'a>(&'a self, delivery: Delivery, state: &'a S) -> BoxFuture<'a, Outcome>;
}

pub(super) struct Erase<H, Args> {
    handler: H,
    arguments: PhantomData<fn() -> Args>,
}

impl<H, Args> Erase<H, Args> {
    pub(super) const fn new(handler: H) -> Self {
        Self { handler, arguments: PhantomData }
    }
}

impl<H, Args, S> ErasedHandler<S> for Erase<H, Args>
where
    H: Function<Args, Output: Async<Output: IntoOutcome> + Send>,
    Args: Arguments<S>,
    S: Sync + 'static,
{
    fn uses_scope(&self) -> bool {
        Args::USES_SCOPE
    }

    fn call<'a>(&'a self, delivery: Delivery, state: &'a S) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            // One that is open already is current, unless middleware has put another context around the handler, which is to stay.
            let scope = if Args::USES_SCOPE { delivery.scope_at(ScopeState::Closed) } else { None };
            let scope = scope.filter(|scope| !scope.is_open());
            let arguments = match Args::from_delivery(&delivery, state).await {
                Ok(arguments) => arguments,
                Err(rejection) => return Outcome::failed(rejection.into_failure()),
            };
            // Pinned here, so that there is room for it once and not in each way of running it.
            let handling = pin!(self.handler.call(arguments));
            // The arguments may have opened it, and a copy may be asked later.
            let scope = scope.filter(|scope| scope.is_open() || delivery.is_copied());
            let Some(scope) = scope else { return handling.await.into_outcome() };
            let mut outcome = run_in(Some(scope.open().context().clone()), handling).await.into_outcome();
            if outcome.has_replies() {
                outcome.set_scope(&scope);
            }
            outcome
        })
    }
}
