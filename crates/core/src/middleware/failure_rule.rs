use std::any::Any;
use std::borrow::Cow;

use super::{Backoff, DEFAULT_ATTEMPTS};
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

/// Applies the failure rule: a failed message is tried again with exponential back-off and jitter, ten times in all, and then rejected;
/// a request once, since its requester waits.
/// A retry that names no delay gets the back-off's. What is decided already stays. Where the broker delivers a message no more, a retry
/// of any kind is a rejection: asked for one, the broker would drop the message without a word.
pub(crate) fn decide(outcome: Outcome, attempts: &Attempts) -> Outcome {
    if matches!(outcome.settlement(), Settlement::Ack) && outcome.each().is_empty() {
        return outcome;
    }
    match attempts {
        Attempts::Single(attempt) => decide_one(outcome, *attempt),
        Attempts::Each(attempts) => {
            let first = Attempt { number: 1, is_last: false, is_request: false };
            outcome
                .map_each(attempts.len(), |index, own| decide_one(own, attempts.get(index).copied().unwrap_or(first)))
        }
    }
}

fn decide_one(outcome: Outcome, attempt: Attempt) -> Outcome {
    let Settlement::Retry { after } = outcome.settlement() else { return outcome };
    let Attempt { number, is_last, is_request } = attempt;
    if is_last {
        return outcome.with_settlement(Settlement::reject(format!(
            "delivered {number} times, and the broker delivers it no more"
        )));
    }
    if after.is_some() {
        return outcome;
    }
    if outcome.failure().is_some() && (is_request || number >= DEFAULT_ATTEMPTS) {
        return give_up(outcome, number);
    }
    outcome.with_settlement(Settlement::retry_after(Backoff::default().delay(number)))
}

/// Rejects a message whose attempts are used up.
pub(super) fn give_up(outcome: Outcome, attempts: u32) -> Outcome {
    let reason = if attempts == 1 { "failed once".into() } else { Cow::Owned(format!("failed {attempts} times")) };
    outcome.with_settlement(Settlement::Reject { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let outcome = decide(Outcome::failed(Failure::new("boom", "boom")), &attempts);
        assert_eq!(outcome.settlement(), &Settlement::reject("failed once"));
        let later = decide(Outcome::settle(Settlement::retry()), &attempts);
        assert!(matches!(later.settlement(), Settlement::Retry { after: Some(_) }), "a decision stays");
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
}
