use std::borrow::Cow;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use opentelemetry::context::FutureExt as _;

use super::{FromDelivery, Rejection, Shape};
use crate::codec::{Decode, IntoOutcome};
use crate::log::{SubscriptionLog, log_line};
use crate::message::{Delivery, Outcome};
use crate::middleware::panicked;
use crate::telemetry::{CurrentBaggage, CurrentSpan, Scope, ScopeState};

/// A batch of messages with decoded bodies, as an argument of a handler.
///
/// Messages whose body cannot be decoded are not in it: each is rejected by itself. What the handler returns settles all messages
/// that did not get an outcome of their own from [`BatchMessage::run`] or [`BatchMessage::settle`].
///
/// # Examples
///
/// ```
/// use throughline_core::extract::Batch;
///
/// async fn bill(order: String) -> Result<(), std::io::Error> {
///     println!("{order}");
///     Ok(())
/// }
///
/// async fn invoice(batch: Batch<String>) {
///     for message in batch {
///         message.run(async |order| bill(order).await).await; // in that message's own trace; its result settles that message
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Batch<T> {
    messages: Vec<BatchMessage<T>>,
}

impl<T> Batch<T> {
    /// Returns the number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Tells whether no message could be decoded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Iterates over the messages.
    pub fn iter(&self) -> std::slice::Iter<'_, BatchMessage<T>> {
        self.messages.iter()
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = BatchMessage<T>;
    type IntoIter = std::vec::IntoIter<BatchMessage<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Batch<T> {
    type Item = &'a BatchMessage<T>;
    type IntoIter = std::slice::Iter<'a, BatchMessage<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.iter()
    }
}

/// One message of a batch: its decoded body, its own trace and baggage, and its own outcome.
#[derive(Debug)]
pub struct BatchMessage<T> {
    index: usize,
    body: T,
    delivery: Delivery,
    scope: Scope,
    verdicts: Verdicts,
}

impl<T> BatchMessage<T> {
    /// Returns the decoded body.
    #[must_use]
    pub const fn body(&self) -> &T {
        &self.body
    }

    /// Returns the message as it was delivered.
    #[must_use]
    pub const fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Handles this message in its own trace and with its own baggage; the result settles this message alone. A panic is caught and
    /// fails this message alone. Returns whether it was handled without failure.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it ends, it leaves the message to the outcome of the batch.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Settlement;
    ///
    /// async fn invoice(batch: throughline_core::extract::Batch<String>) {
    ///     for message in batch {
    ///         message.run(async |order| if order.is_empty() { Err(Settlement::reject("empty")) } else { Ok(()) }).await;
    ///     }
    /// }
    /// ```
    pub async fn run<F, Fut, R>(self, handle: F) -> bool
    where
        F: FnOnce(T) -> Fut,
        Fut: Future<Output = R>,
        R: IntoOutcome,
    {
        let Self { index, body, scope, verdicts, delivery } = self;
        let context = scope.open().context().clone();
        let handled = AssertUnwindSafe(async move { handle(body).await }).catch_unwind().with_context(context).await;
        let outcome = match handled {
            Ok(result) => result.into_outcome(),
            Err(panic) => panicked(panic),
        };
        let succeeded = outcome.failure().is_none();
        verdicts.set(index, &delivery, outcome);
        succeeded
    }

    /// Gives this message an outcome of its own without handling it, such as a [`Settlement`](crate::Settlement).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Settlement;
    ///
    /// async fn invoice(batch: throughline_core::extract::Batch<String>) {
    ///     for message in batch { message.settle(Settlement::reject("closed")); }
    /// }
    /// ```
    pub fn settle(self, result: impl IntoOutcome) {
        self.verdicts.set(self.index, &self.delivery, result.into_outcome());
    }
}

impl<T> CurrentSpan for BatchMessage<T> {
    fn scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(self.scope.open())
    }
}

impl<T> CurrentBaggage for BatchMessage<T> {
    fn baggage_scope(&self) -> Cow<'_, Scope> {
        Cow::Borrowed(self.scope.open())
    }
}

/// The outcomes of the single messages of a batch, filled in while its handler runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts {
    judged: Arc<Mutex<Judged>>,
    /// `None` outside of an app.
    log: Option<Arc<SubscriptionLog>>,
}

#[derive(Debug, Default)]
struct Judged {
    outcomes: Vec<Option<Outcome>>,
    /// The handler has returned.
    is_over: bool,
}

impl Verdicts {
    pub(crate) fn new(log: Arc<SubscriptionLog>) -> Self {
        Self { judged: Arc::default(), log: Some(log) }
    }

    fn set(&self, index: usize, message: &Delivery, outcome: Outcome) {
        let mut judged = self.lock();
        if judged.is_over {
            drop(judged);
            let Some(log) = &self.log else { return };
            let (destination, group, attempt) = (message.destination(), log.group(), message.attempt());
            log_line!(
                log,
                WARN,
                "a message of a batch was settled after the handler had returned: that comes too late and is ignored; await in the \
                 handler what settles its messages",
                destination,
                group,
                attempt
            );
            return;
        }
        if judged.outcomes.len() <= index {
            judged.outcomes.resize(index + 1, None);
        }
        if let Some(place) = judged.outcomes.get_mut(index) {
            *place = Some(outcome);
        }
    }

    pub(crate) fn take(&self) -> Vec<Option<Outcome>> {
        let mut judged = self.lock();
        judged.is_over = true;
        std::mem::take(&mut judged.outcomes)
    }

    /// A poisoned lock only means that another thread panicked between two complete writes.
    fn lock(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sync, T: Decode + Send> FromDelivery<S> for Batch<T> {
    const SHAPE: Shape = Shape::Batch;

    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        let verdicts = delivery.extension::<Verdicts>().cloned().unwrap_or_default();
        let mut messages = Vec::with_capacity(delivery.messages().len());
        for (index, message) in delivery.messages().iter().enumerate() {
            match T::decode(message) {
                Ok(body) => messages.push(BatchMessage {
                    index,
                    body,
                    delivery: message.clone(),
                    scope: message.scope_at(ScopeState::Absent).unwrap_or_else(Scope::detached),
                    verdicts: verdicts.clone(),
                }),
                Err(error) => {
                    verdicts.set(index, message, Outcome::failed(Rejection::malformed(error).into_failure()));
                }
            }
        }
        Ok(Self { messages })
    }
}
