use std::any::Any;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::RetryPolicy;
use super::retry_policy::Judgement;
use crate::guard::discard;
use crate::message::{Delivery, Failure, Outcome, Settlement};

/// Turns a caught panic into a failure.
// STAT-08.
pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Outcome {
    Outcome::failed(panic_failure(panic))
}

/// Says as a failure what a panic said.
pub(crate) fn panic_failure(panic: Box<dyn Any + Send>) -> Failure {
    let text = panic
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the handler panicked".to_owned());
    discard(panic);
    Failure::new("panic", text)
}

/// Which delivery of its message this is, for each message of a batch or for a single one.
pub(crate) enum Attempts {
    Single(Attempt),
    Each(Vec<Attempt>),
}

/// Which delivery of a message it is, and whether the broker makes another.
#[derive(Clone, Copy)]
pub(crate) struct Attempt {
    number: u32,
    is_last: bool,
    /// Whether somebody waits for the answer, and not for long.
    is_request: bool,
}

impl Attempt {
    fn of(delivery: &Delivery) -> Self {
        let (number, is_last) = (delivery.attempt(), delivery.is_last_attempt());
        Self { number, is_last, is_request: delivery.is_request() }
    }
}

impl Attempts {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        if delivery.is_batch() {
            Self::Each(delivery.messages().iter().map(Attempt::of).collect())
        } else {
            Self::Single(Attempt::of(delivery))
        }
    }
}

/// The policy that judges one delivery: that of its subscription, until a `Retry` around the handler puts its own in its place.
pub(crate) struct PolicyInForce<'a> {
    of_subscription: &'a Arc<RetryPolicy>,
    of_retry: Mutex<OfRetry>,
}

#[derive(Default)]
struct OfRetry {
    policy: Option<Arc<RetryPolicy>>,
    /// How many there have been.
    count: u32,
}

impl<'a> PolicyInForce<'a> {
    pub(crate) fn new(of_subscription: &'a Arc<RetryPolicy>) -> Self {
        Self { of_subscription, of_retry: Mutex::default() }
    }

    /// Puts the policy of a `Retry` in force: for what is inside of it, for what is outside, and for what the broker delivers again.
    /// Returns its number.
    pub(crate) fn replace(&self, policy: &Arc<RetryPolicy>) -> u32 {
        let mut of_retry = self.lock();
        of_retry.policy = Some(Arc::clone(policy));
        of_retry.count += 1;
        of_retry.count
    }

    /// Tells whether no other `Retry` came after the one with that number, further inside.
    pub(crate) fn is_latest(&self, number: u32) -> bool {
        self.lock().count == number
    }

    pub(crate) fn get(&self) -> Arc<RetryPolicy> {
        Arc::clone(self.lock().policy.as_ref().unwrap_or(self.of_subscription))
    }

    /// A poisoned lock only means that another thread panicked before or after it wrote.
    fn lock(&self) -> MutexGuard<'_, OfRetry> {
        self.of_retry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Applies the failure rule: a failed message is tried again as the policy says, and then rejected. A retry that names no delay gets the
/// policy's. What is decided already stays. Where the broker delivers a message no more, a retry of any kind is a rejection: asked for one,
/// the broker would drop the message without a word.
pub(crate) fn decide(outcome: Outcome, attempts: &Attempts, policy: impl FnOnce() -> Arc<RetryPolicy>) -> Outcome {
    if matches!(outcome.settlement(), Settlement::Ack) && outcome.each().is_empty() {
        return outcome;
    }
    let policy = policy();
    match attempts {
        Attempts::Single(attempt) => decide_one(outcome, *attempt, &policy),
        Attempts::Each(attempts) => {
            let first = Attempt { number: 1, is_last: false, is_request: false };
            outcome.map_each(attempts.len(), |index, own| {
                decide_one(own, attempts.get(index).copied().unwrap_or(first), &policy)
            })
        }
    }
}

fn decide_one(outcome: Outcome, attempt: Attempt, policy: &RetryPolicy) -> Outcome {
    let Settlement::Retry { after } = *outcome.settlement() else { return outcome };
    let Attempt { number, is_last, is_request } = attempt;
    if after.is_none()
        && let Some(failure) = outcome.failure()
    {
        match policy.judge(failure, number) {
            // Its requester waits.
            Judgement::Again if is_request && !policy.is_chosen() => return give_up(outcome, number),
            Judgement::Again => {}
            Judgement::NotWorthIt => return not_worth_it(outcome, number),
            Judgement::UsedUp => return give_up(outcome, number),
        }
    }
    if is_last {
        return outcome.with_settlement(Settlement::reject(format!(
            "delivered {number} times, and the broker delivers it no more"
        )));
    }
    if after.is_some() {
        return outcome;
    }
    outcome.with_settlement(Settlement::retry_after(policy.delay(number)))
}

/// Rejects a message whose attempts are used up.
pub(super) fn give_up(outcome: Outcome, attempts: u32) -> Outcome {
    outcome.with_settlement(Settlement::reject(failed(attempts)))
}

/// Rejects a message with a failure that the policy does not try again.
fn not_worth_it(outcome: Outcome, attempts: u32) -> Outcome {
    let reason = format!("{}, and the retry policy does not try such a failure again", failed(attempts));
    outcome.with_permanent_failure().with_settlement(Settlement::reject(reason))
}

fn failed(attempts: u32) -> Cow<'static, str> {
    if attempts == 1 { Cow::Borrowed("failed once") } else { Cow::Owned(format!("failed {attempts} times")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides by the default policy.
    fn decide(outcome: Outcome, attempts: &Attempts) -> Outcome {
        super::decide(outcome, attempts, Arc::default)
    }

    fn failed(attempt: u32) -> Outcome {
        decide(
            Outcome::failed(Failure::new("boom", "boom")),
            &Attempts::of(&Delivery::new("orders", "x").with_attempt(attempt)),
        )
    }

    #[test]
    fn a_failure_is_retried_with_a_growing_delay() {
        let Settlement::Retry { after: Some(first) } = failed(1).settlement().clone() else { panic!("not retried") };
        let Settlement::Retry { after: Some(ninth) } = failed(9).settlement().clone() else { panic!("not retried") };
        assert!(first < ninth);
    }

    #[test]
    fn the_tenth_failure_rejects() {
        assert!(matches!(failed(10).settlement(), Settlement::Reject { .. }));
    }

    #[test]
    fn a_request_that_fails_is_given_up_at_once() {
        let request = Delivery::new("prices", "x").with_reply_to("inbox").with_waiting_requester();
        let attempts = Attempts::of(&request);
        let nobody_chose = |outcome| super::decide(outcome, &attempts, || Arc::new(RetryPolicy::unchosen()));
        let failed = || Outcome::failed(Failure::new("boom", "boom"));
        assert_eq!(nobody_chose(failed()).settlement(), &Settlement::reject("failed once"));
        let later = nobody_chose(Outcome::settle(Settlement::retry()));
        assert!(matches!(later.settlement(), Settlement::Retry { after: Some(_) }), "a decision stays");
        let chosen = decide(failed(), &attempts);
        assert!(matches!(chosen.settlement(), Settlement::Retry { .. }), "what somebody chose holds");
    }

    #[test]
    fn a_decision_to_retry_is_not_bounded() {
        let outcome =
            decide(Outcome::settle(Settlement::retry()), &Attempts::of(&Delivery::new("orders", "x").with_attempt(50)));
        assert!(matches!(outcome.settlement(), Settlement::Retry { after: Some(_) }));
    }

    #[test]
    fn a_failed_batch_gives_up_only_the_messages_that_are_out_of_attempts() {
        let batch = Delivery::batch(vec![Delivery::new("orders", "a").with_attempt(10), Delivery::new("orders", "b")]);
        let outcome = decide(Outcome::failed(Failure::new("boom", "boom")), &Attempts::of(&batch));
        assert!(matches!(outcome.settlement_of(0), Settlement::Reject { .. }));
        assert!(matches!(outcome.settlement_of(1), Settlement::Retry { .. }));
    }

    #[test]
    fn a_failed_message_of_a_batch_is_retried_alone() {
        let batch = Delivery::batch(vec![Delivery::new("orders", "a"), Delivery::new("orders", "b")]);
        let outcome = Outcome::ack().with_each(vec![None, Some(Outcome::failed(Failure::new("boom", "boom")))]);
        let outcome = decide(outcome, &Attempts::of(&batch));
        assert_eq!(outcome.settlement_of(0), &Settlement::Ack);
        assert!(matches!(outcome.settlement_of(1), Settlement::Retry { after: Some(_) }));
    }

    #[test]
    fn at_the_brokers_last_delivery_no_retry_is_asked_for() {
        let last = Attempts::of(&Delivery::new("orders", "x").with_attempt(3).with_last_attempt());
        for settlement in [Settlement::retry(), Settlement::retry_after(std::time::Duration::from_secs(1))] {
            let outcome = decide(Outcome::settle(settlement), &last);
            assert!(matches!(outcome.settlement(), Settlement::Reject { .. }));
        }
        let outcome = decide(Outcome::failed(Failure::new("boom", "boom")), &last);
        assert!(matches!(outcome.settlement(), Settlement::Reject { .. }));
        assert!(outcome.failure().is_some(), "with its error");
        assert_eq!(decide(Outcome::ack(), &last).settlement(), &Settlement::Ack);
    }

    fn judged(policy: RetryPolicy, failure: Failure, attempt: u32) -> Outcome {
        let attempts = Attempts::of(&Delivery::new("orders", "x").with_attempt(attempt));
        super::decide(Outcome::failed(failure), &attempts, || Arc::new(policy))
    }

    #[test]
    fn the_policy_says_how_often_and_when() {
        let policy = || RetryPolicy::new().attempts(3).first_delay(std::time::Duration::from_secs(1)).jitter(0.0);
        let failure = || Failure::new("boom", "boom");
        let second = Settlement::retry_after(std::time::Duration::from_secs(2));
        assert_eq!(judged(policy(), failure(), 2).settlement(), &second);
        assert_eq!(judged(policy(), failure(), 3).settlement(), &Settlement::reject("failed 3 times"));
        assert_eq!(judged(RetryPolicy::never(), failure(), 1).settlement(), &Settlement::reject("failed once"));
    }

    #[test]
    fn a_predicate_that_says_no_makes_the_failure_permanent() {
        let policy = RetryPolicy::new().retry_if(|failure| failure.error_type() != "boom");
        let outcome = judged(policy, Failure::new("boom", "boom"), 1);
        let reason = "failed once, and the retry policy does not try such a failure again";
        assert_eq!(outcome.settlement(), &Settlement::reject(reason));
        assert!(outcome.failure().is_some_and(|failure| !failure.is_retryable()));
    }

    #[test]
    fn the_policy_of_a_retry_takes_the_place_of_the_subscriptions() {
        let of_subscription = Arc::new(RetryPolicy::new().attempts(7));
        let in_force = PolicyInForce::new(&of_subscription);
        assert_eq!(in_force.get().most_attempts(), Some(7));
        let outer = in_force.replace(&Arc::new(RetryPolicy::new().attempts(5)));
        assert!(in_force.is_latest(outer));
        let inner = in_force.replace(&Arc::new(RetryPolicy::new().attempts(2)));
        assert_eq!(in_force.get().most_attempts(), Some(2));
        assert!(in_force.is_latest(inner) && !in_force.is_latest(outer));
    }
}
