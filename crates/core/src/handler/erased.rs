use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;

use super::Handler;
use crate::message::{Delivery, Outcome};

/// A handler without its type, so that a route can hold any.
pub(crate) trait ErasedHandler<S>: Send + Sync {
    fn call<'a>(&'a self, delivery: Delivery, state: &'a S) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;
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
    H: Handler<Args, S>,
    Args: 'static,
    S: Sync + 'static,
{
    fn call<'a>(&'a self, delivery: Delivery, state: &'a S) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(self.handler.call(delivery, state))
    }
}
