use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::context::FutureExt;

use super::retry_policy::Judgement;
use super::{Middleware, Next, RetryPolicy};
use crate::message::{Delivery, Failure, Outcome};

/// A middleware that tries a failing message again in place: the handler runs again after a delay, the order of messages is kept, and
/// the process span covers all attempts. From the second on each attempt is a child span `retry`, so that the trace shows them.
///
/// Its policy takes the place of the subscription's, also for what the broker delivers again, such as a message of a batch that failed
/// alone. Deliveries by the broker count as attempts. When the attempts are used up, the message is dead-lettered where a dead letter is
/// set, else rejected; so is one whose failure the policy does not try again. A batch is tried again as a whole when it failed as a whole.
/// Of several `Retry`, the innermost one's policy holds.
///
/// # Examples
///
/// ```
/// use throughline_core::RetryPolicy;
/// use throughline_core::middleware::Retry;
/// let retry = Retry::new(RetryPolicy::new().attempts(5));
/// # let _ = retry;
/// ```
#[derive(Clone, Debug)]
pub struct Retry {
    policy: Arc<RetryPolicy>,
}

impl Retry {
    /// Creates the middleware from how often to try, when, and what.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::RetryPolicy;
    /// use throughline_core::middleware::Retry;
    /// let retry = Retry::new(RetryPolicy::new().attempts(3).first_delay(Duration::from_millis(10)));
    /// # let _ = retry;
    /// ```
    #[must_use]
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy: Arc::new(policy) }
    }

    /// Why the delivery is tried again here, and how long to wait before; `None` where it is not.
    fn delay_before_next<'a>(&self, outcome: &'a Outcome, attempt: u32) -> Option<(&'a Failure, Duration)> {
        let failure = outcome.own_failure()?;
        let judgement = self.policy.judge(failure, attempt);
        (judgement == Judgement::Again).then(|| (failure, self.policy.delay(attempt)))
    }
}

#[async_trait]
impl Middleware for Retry {
    async fn process(&self, mut delivery: Delivery, next: Next<'_>) -> Outcome {
        let in_force = next.policy_in_force();
        let number = in_force.replace(&self.policy);
        let mut outcome = next.run(delivery.clone()).await;
        while let Some((failure, delay)) = self.delay_before_next(&outcome, delivery.attempt()) {
            // One further inside has made all attempts there are; or the app ends, or another member gets the message.
            if !in_force.is_latest(number) || !next.wait_for_attempt(&delivery, failure, delay).await {
                break;
            }
            next.discard().await;
            delivery = delivery.next_attempt();
            delivery.set_retry_cause(outcome.own_failure().map(Failure::error_type));
            let scope = delivery.open_scope();
            let span = scope.start_attempt(delivery.attempt(), outcome.own_failure());
            let run = next.run(delivery.clone());
            outcome = match span.context() {
                Some(context) => run.with_context(context).await,
                None => run.await,
            };
            span.finish(outcome.own_failure());
        }
        outcome
    }
}
