use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use tracing::warn;

use super::dead_letter::{header_text, one_by_one};
use super::{Backoff, Middleware, Next};
use crate::broker::{RETRY_ATTEMPT, RETRY_DUE, RetryPlace, RetryRoute};
use crate::message::{Delivery, Envelope, Failure, Outcome, Settlement};

/// The header that holds the `error.type` of the last failure; never the error's text, which may be private.
const ERROR: &str = "retry-error";

/// The header that says where the message first failed.
const ORIGIN: &str = "retry-origin";

/// Forwards messages that are to be tried again to the place where they wait, and then acknowledges them; one whose attempts are used
/// up is rejected. One that cannot be forwarded is handled again in place, after a growing delay, until it can be: it is neither settled
/// nor counted as another attempt, or its attempts would be used up by a place that is missing.
pub(crate) struct RetryLater {
    route: Arc<dyn RetryRoute>,
}

/// Waits elsewhere for its next attempt: counted by the settling stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Postponed;

/// Could not be forwarded, so many times in a row. It is in the outcome, and then in the message when that is handled again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unforwarded(u32);

impl Unforwarded {
    fn once_more(message: &Delivery) -> Self {
        Self(message.extension::<Self>().map_or(1, |earlier| earlier.0.saturating_add(1)))
    }

    /// Lets a message be handled again in place.
    fn again(self, own: Outcome) -> Outcome {
        let mut own = own.with_settlement(Settlement::retry_after(Backoff::default().delay(self.0)));
        own.insert_extension(self);
        own
    }
}

impl RetryLater {
    pub(crate) fn new(route: Arc<dyn RetryRoute>) -> Self {
        Self { route }
    }

    /// What is to become of a message, if it is to be tried again.
    fn plan(&self, message: &Delivery, outcome: &Outcome, index: usize) -> Option<Plan> {
        let Settlement::Retry { after } = outcome.settlement_of(index) else { return None };
        // With a failure the delay is that of the failure rule, which the route stands for.
        let asked = after.filter(|_| outcome.failure_of(index).is_none());
        Some(self.route.place(message, asked).map_or(Plan::GiveUp, Plan::Wait))
    }
}

/// What is to become of a message that is to be tried again.
enum Plan {
    GiveUp,
    Wait(RetryPlace),
}

/// What became of a message that was to be tried again.
enum Done {
    GivenUp(u32),
    Stays(Unforwarded),
    Waits,
}

impl Done {
    const fn stays(&self) -> bool {
        matches!(self, Self::Stays(_))
    }
}

async fn postpone(message: &Delivery, failure: Option<&Failure>, place: RetryPlace, next: Next<'_>) -> Done {
    let place_name = place.destination.clone();
    match next.forward(forward(message, failure, place)).await {
        Ok(()) => Done::Waits,
        Err(error) => {
            warn!(
                destination = message.destination(),
                place = place_name.name(),
                %error,
                "a message is handled again in place, after a growing delay: it could not be forwarded to where it is to wait"
            );
            Done::Stays(Unforwarded::once_more(message))
        }
    }
}

fn forward(message: &Delivery, failure: Option<&Failure>, place: RetryPlace) -> Envelope {
    let due = place.due.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let mut envelope = Envelope::forward(message, place.destination);
    let headers = envelope.headers_mut();
    headers.insert(RETRY_ATTEMPT, message.attempt().saturating_add(1).to_string());
    headers.insert(RETRY_DUE, due.to_string());
    headers.remove(ERROR);
    if let Some(failure) = failure {
        headers.insert(ERROR, header_text(failure.error_type()));
    }
    if message.attempt() == 1 || !headers.contains(ORIGIN) {
        headers.insert(ORIGIN, header_text(message.destination()));
    }
    envelope
}

#[async_trait]
impl Middleware for RetryLater {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        let outcome = next.run(delivery.clone()).await;
        let count = if delivery.is_batch() { delivery.messages().len() } else { 0 };
        let fails = |index| matches!(outcome.settlement_of(index), Settlement::Retry { .. });
        if !(0..delivery.messages().len()).any(fails) {
            return outcome;
        }
        let messages = delivery.messages().iter().enumerate();
        let plans: Vec<Option<Plan>> =
            messages.clone().map(|(index, message)| self.plan(message, &outcome, index)).collect();
        let wanted: Vec<bool> = plans.iter().map(|plan| matches!(plan, Some(Plan::Wait(_)))).collect();
        if wanted.contains(&true) && !next.may_forward(&wanted).await {
            return outcome.map_each(count, |index, own| one_by_one(own, &wanted, index));
        }
        let mut done = Vec::with_capacity(count.max(1));
        for ((index, message), plan) in messages.zip(plans) {
            done.push(match plan {
                Some(Plan::Wait(place)) => Some(postpone(message, outcome.failure_of(index), place, next).await),
                Some(Plan::GiveUp) => Some(Done::GivenUp(message.attempt())),
                None => None,
            });
        }
        if next.is_atomic() && done.iter().flatten().any(Done::stays) {
            // All of them were to wait, and what was forwarded is taken back with what was not.
            next.discard().await;
            let again = |message| Some(Done::Stays(Unforwarded::once_more(message)));
            done = delivery.messages().iter().map(again).collect();
        }
        outcome.map_each(count, |index, own| match done.get_mut(index).and_then(Option::take) {
            None => own,
            Some(Done::GivenUp(attempt)) => own.with_settlement(Settlement::reject(format!("failed {attempt} times"))),
            Some(Done::Stays(unforwarded)) => unforwarded.again(own),
            Some(Done::Waits) => {
                let mut own = own.with_settlement(Settlement::Ack);
                own.insert_extension(Postponed);
                own
            }
        })
    }
}
