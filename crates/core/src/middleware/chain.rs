use std::future::{Future, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::failure_rule::{Attempts, PolicyInForce, decide, panic_failure, panicked};
use super::{InnerTelemetry, RetryPolicy};
use crate::broker::{BoxFuture, Publish, PublishError};
use crate::log::SubscriptionLog;
use crate::message::{Delivery, Envelope, Failure, Outcome, Receipt};

/// What wraps every delivery and every publish of an app or a subscription, single messages and batches alike.
///
/// Middleware runs in the order it is written: the first one is outermost. Both methods default to going on.
///
/// # Examples
///
/// ```
/// use async_trait::async_trait;
/// use throughline_core::middleware::{Next, NextPublish};
/// use throughline_core::{Delivery, Envelope, Middleware, Outcome, PublishError, Receipt};
///
/// struct Audit;
///
/// #[async_trait]
/// impl Middleware for Audit {
///     async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
///         println!("handling {}", delivery.destination());
///         next.run(delivery).await
///     }
///
///     async fn publish(&self, envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
///         next.run(envelope.with_header("audited", "yes")).await
///     }
/// }
/// ```
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Handles a delivery by passing it on, or not.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await, by a timeout or at shutdown; the message is then unsettled and delivered again.
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        next.run(delivery).await
    }

    /// Publishes a message or a batch by passing it on, or not.
    ///
    /// # Errors
    ///
    /// Fails as the publish does.
    async fn publish(&self, envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
        next.run(envelope).await
    }
}

/// What the chain of a delivery ends in: the handler, and the way out for what middleware publishes.
pub(crate) trait Endpoint: Send + Sync {
    fn call(&self, delivery: Delivery) -> BoxFuture<'_, Outcome>;

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>>;

    /// What publishes in the end.
    fn transport(&self) -> &dyn Publish;

    /// Waits before something is tried again for the delivery; false where it is not to be: the app ends, or another member of the group
    /// gets a message of it.
    fn wait(&self, delay: Duration) -> BoxFuture<'_, bool>;

    /// Answers the requesters of messages that are given up.
    fn tell_requesters<'a>(&'a self, outcome: &'a Outcome) -> BoxFuture<'a, ()>;

    /// What telemetry that is ordinary middleware is told, and hands back.
    fn inner_telemetry(&self) -> &InnerTelemetry;

    /// What judges a failure of the delivery.
    fn policy(&self) -> &PolicyInForce<'_>;

    /// The log of the subscription.
    fn log(&self) -> &SubscriptionLog;

    /// Logs that an attempt in place failed and another one follows after a delay.
    fn attempt_failed(&self, delivery: &Delivery, failure: &Failure, delay: Duration);

    /// Notes which attempt begins in place.
    fn attempt_begins(&self, attempt: u32);
}

/// What the chain of a publish ends in: the telemetry and the broker.
pub(crate) trait Outlet: Send + Sync {
    fn deliver(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>>;

    fn transport(&self) -> &dyn Publish;
}

/// The rest of the chain of a delivery. It can run more than once, as a retry does.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    chain: &'a [Arc<dyn Middleware>],
    endpoint: &'a dyn Endpoint,
}

impl<'a> Next<'a> {
    pub(crate) const fn new(chain: &'a [Arc<dyn Middleware>], endpoint: &'a dyn Endpoint) -> Self {
        Self { chain, endpoint }
    }

    pub(super) fn inner_telemetry(self) -> &'a InnerTelemetry {
        self.endpoint.inner_telemetry()
    }

    /// What says by which policy the delivery is judged.
    pub(super) fn policy_in_force(self) -> &'a PolicyInForce<'a> {
        self.endpoint.policy()
    }

    pub(super) fn log(self) -> &'a SubscriptionLog {
        self.endpoint.log()
    }

    /// Passes the delivery on to the next middleware, or to the handler.
    ///
    /// What comes back is decided: a failure says by its settlement whether it is retried, and when, or given up. A panic comes
    /// back as a failure.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Outcome, middleware::Next};
    ///
    /// async fn go_on(delivery: Delivery, next: Next<'_>) -> Outcome {
    ///     next.run(delivery).await
    /// }
    /// ```
    pub fn run(self, delivery: Delivery) -> impl Future<Output = Outcome> + Send + use<'a> {
        let attempts = Attempts::of(&delivery);
        let handling = match self.chain.split_first() {
            Some((first, rest)) => {
                let process = AssertUnwindSafe(|| first.process(delivery, Self { chain: rest, ..self }));
                catch_unwind(process).unwrap_or_else(|panic| Box::pin(ready(panicked(panic))))
            }
            // Only makes a future; what can panic runs inside it.
            None => self.endpoint.call(delivery),
        };
        Step { handling, attempts, endpoint: self.endpoint }
    }

    /// Publishes a message on the broker the delivery came from, through the middleware of the app.
    ///
    /// # Errors
    ///
    /// Fails as the publish does.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Envelope, Outcome, middleware::Next};
    ///
    /// async fn copy(delivery: Delivery, next: Next<'_>) -> Outcome {
    ///     let _ = next.publish(Envelope::new("copies", delivery.payload().clone())).await;
    ///     next.run(delivery).await
    /// }
    /// ```
    pub async fn publish(self, envelope: Envelope) -> Result<Receipt, PublishError> {
        self.endpoint.publish(envelope).await
    }
}

impl Next<'_> {
    /// Takes back what was published for this delivery so far, where the subscription publishes and settles in one transaction; does
    /// nothing elsewhere. Middleware that runs a failed delivery again calls it before, or what the failed attempt published would
    /// count with the next one; the framework's own does.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Delivery, Outcome, middleware::Next};
    ///
    /// async fn twice(delivery: Delivery, next: Next<'_>) -> Outcome {
    ///     let outcome = next.run(delivery.clone()).await;
    ///     if outcome.failure().is_none() {
    ///         return outcome;
    ///     }
    ///     next.discard().await;
    ///     next.run(delivery).await
    /// }
    /// ```
    pub async fn discard(self) {
        if self.is_atomic() {
            self.endpoint.transport().discard().await;
        }
    }

    /// Tells whether the subscription publishes and settles in one transaction.
    pub(super) fn is_atomic(self) -> bool {
        self.endpoint.transport().is_atomic()
    }

    /// Publishes a message that goes elsewhere, once. Whether the failure can pass says [`Failure::is_retryable`]; a panic on the way may.
    pub(super) async fn forward(self, envelope: Envelope) -> Result<(), Failure> {
        match AssertUnwindSafe(self.publish(envelope)).catch_unwind().await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into_failure()),
            Err(panic) => Err(panic_failure(panic)),
        }
    }

    /// The policy that judges the delivery.
    pub(super) fn policy(self) -> Arc<RetryPolicy> {
        self.endpoint.policy().get()
    }

    /// Waits after a failed attempt before another one in place, and says so in the log; false where there is to be none.
    pub(super) async fn wait_for_attempt(self, delivery: &Delivery, failure: &Failure, delay: Duration) -> bool {
        self.endpoint.attempt_failed(delivery, failure, delay);
        let goes_on = self.wait(delay).await;
        if goes_on {
            self.endpoint.attempt_begins(delivery.attempt().saturating_add(1));
        }
        goes_on
    }

    /// Waits before a forward is tried again; false where it is not to be.
    pub(super) async fn wait(self, delay: Duration) -> bool {
        self.endpoint.wait(delay).await
    }

    /// Answers the requesters of messages that are given up; changes nothing.
    pub(crate) async fn tell_requesters(self, outcome: &Outcome) {
        self.endpoint.tell_requesters(outcome).await;
    }

    /// Prepares that some messages of a delivery are forwarded, and returns whether they may be. What was published for them is taken
    /// back before. Where that would take back what was published for the others too, nothing may be forwarded: the messages must come
    /// one by one.
    pub(super) async fn may_forward(self, wanted: &[bool]) -> bool {
        if !self.is_atomic() {
            return true;
        }
        if wanted.contains(&false) {
            return false;
        }
        self.discard().await;
        true
    }
}

/// A middleware or the handler that runs: a panic of it becomes a failure, and a failure is decided on.
struct Step<'a> {
    handling: BoxFuture<'a, Outcome>,
    attempts: Attempts,
    endpoint: &'a dyn Endpoint,
}

impl Future for Step<'_> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let Self { handling, attempts, endpoint } = self.get_mut();
        let outcome = match catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome,
            Err(panic) => panicked(panic),
        };
        Poll::Ready(decide(outcome, attempts, || endpoint.policy().get()))
    }
}

/// The rest of the chain of a publish.
#[derive(Clone, Copy)]
pub struct NextPublish<'a> {
    chain: &'a [Arc<dyn Middleware>],
    outlet: &'a dyn Outlet,
}

impl<'a> NextPublish<'a> {
    pub(crate) const fn new(chain: &'a [Arc<dyn Middleware>], outlet: &'a dyn Outlet) -> Self {
        Self { chain, outlet }
    }

    /// Passes the message on to the next middleware, or to the broker.
    ///
    /// # Errors
    ///
    /// Fails as the publish does.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Envelope, PublishError, Receipt, middleware::NextPublish};
    ///
    /// async fn go_on(envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
    ///     next.run(envelope).await
    /// }
    /// ```
    pub async fn run(self, envelope: Envelope) -> Result<Receipt, PublishError> {
        match self.chain.split_first() {
            Some((first, rest)) => first.publish(envelope, Self { chain: rest, ..self }).await,
            None => self.outlet.deliver(envelope).await,
        }
    }

    pub(crate) fn transport(self) -> &'a dyn Publish {
        self.outlet.transport()
    }
}
