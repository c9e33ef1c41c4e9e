use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::context::FutureExt;

use super::failure_rule::give_up;
use super::{Middleware, Next};
use crate::message::{Delivery, Failure, Outcome};

/// How often a failing message is tried by default, the first attempt included.
pub(crate) const DEFAULT_ATTEMPTS: u32 = 10;

/// How long to wait before an attempt: doubling from a first delay up to a limit, with jitter.
///
/// The jitter takes up to half of the delay off, so that messages that failed together do not come back together.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throughline_core::middleware::Backoff;
///
/// let backoff = Backoff::exponential(Duration::from_millis(100));
/// let third = backoff.delay(3);
/// assert!(third >= Duration::from_millis(200) && third <= Duration::from_millis(400));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Creates a back-off that starts with `first` and is limited to 30 s.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// let backoff = throughline_core::middleware::Backoff::exponential(Duration::from_millis(100));
    /// # let _ = backoff;
    /// ```
    #[must_use]
    pub const fn exponential(first: Duration) -> Self {
        Self { first, most: Duration::from_secs(30) }
    }

    /// Sets the longest delay.
    #[must_use]
    pub const fn limit(mut self, most: Duration) -> Self {
        self.most = most;
        self
    }

    /// Returns the delay after the given failed attempt, counted from 1.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Duration {
        self.longest_delay(attempt).mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Returns the longest delay after the given failed attempt, counted from 1: the one without jitter.
    #[must_use]
    pub fn longest_delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(100))
    }
}

/// A middleware that tries a failing message again in place: the handler runs again after a delay, the order of messages is kept, and
/// the process span
/// covers all attempts. From the second on each attempt is a child span `retry`, so that the trace shows them.
///
/// It replaces the failure rule's own retries: when its attempts are used up, the message is rejected, or dead-lettered where a
/// dead letter is set. Deliveries by the broker count as attempts. Errors that no attempt can mend, such as a body that cannot be
/// decoded, are not tried again. A batch is tried again as a whole when it failed as a whole.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use throughline_core::middleware::Retry;
/// let retry = Retry::exponential(Duration::from_millis(100)).attempts(5);
/// # let _ = retry;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    backoff: Backoff,
    attempts: u32,
}

impl Retry {
    /// Creates a retry with exponential back-off from `first`, limited to 30 s, and 10 attempts.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// let retry = throughline_core::middleware::Retry::exponential(Duration::from_millis(100));
    /// # let _ = retry;
    /// ```
    #[must_use]
    pub const fn exponential(first: Duration) -> Self {
        Self::new(Backoff::exponential(first))
    }

    /// Creates a retry with a back-off of its own and 10 attempts.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::middleware::{Backoff, Retry};
    /// let retry = Retry::new(Backoff::default());
    /// # let _ = retry;
    /// ```
    #[must_use]
    pub const fn new(backoff: Backoff) -> Self {
        Self { backoff, attempts: DEFAULT_ATTEMPTS }
    }

    /// Sets the most attempts, the first included; zero counts as one.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = if attempts == 0 { 1 } else { attempts };
        self
    }
}

#[async_trait]
impl Middleware for Retry {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        let mut attempt = delivery.attempt();
        let mut outcome = next.run(delivery.clone()).await;
        loop {
            let Some(failure) = outcome.own_failure() else { return outcome };
            let is_last = attempt >= self.attempts || !failure.is_retryable();
            let delay = self.backoff.delay(attempt);
            next.attempt_failed(&delivery, failure, attempt, self.attempts, (!is_last).then_some(delay));
            if !failure.is_retryable() {
                return outcome;
            }
            if is_last {
                let messages = if delivery.is_batch() { delivery.messages().len() } else { 0 };
                return outcome.map_each(messages, |_, own| give_up_failed(own, attempt));
            }
            if !next.wait(delay).await {
                // The app ends, or another member gets the message: it is handled again elsewhere.
                return outcome;
            }
            next.discard().await;
            attempt += 1;
            let scope = delivery.open_scope();
            let span = scope.start_attempt(attempt);
            let run = next.run(delivery.clone().with_attempt(attempt));
            outcome = match span.context() {
                Some(context) => run.with_context(context).await,
                None => run.await,
            };
            span.finish(outcome.own_failure());
        }
    }
}

/// Of a batch, those of its messages that were dealt with stay so.
fn give_up_failed(outcome: Outcome, attempt: u32) -> Outcome {
    if outcome.own_failure().is_some_and(Failure::is_retryable) {
        return give_up(outcome, attempt);
    }
    outcome
}
