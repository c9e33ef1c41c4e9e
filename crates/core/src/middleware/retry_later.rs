use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use tracing::warn;

use super::dead_letter::{header_text, one_by_one};
use super::{Middleware, Next};
use crate::broker::{RETRY_ATTEMPT, RETRY_DUE, RetryPlace, RetryRoute};
use crate::message::{Delivery, Envelope, Failure, Outcome, Settlement};

/// The header that holds the `error.type` of the last failure; never the error's text, which may be private.
const ERROR: &str = "retry-error";

/// The header that says where the message first failed.
const ORIGIN: &str = "retry-origin";

/// Forwards messages that are to be tried again to the place where they wait, and then acknowledges them. A message that cannot be
/// forwarded is tried again in place, and one whose attempts are used up is rejected.
pub(crate) struct RetryLater {
    route: Arc<dyn RetryRoute>,
}

/// Waits elsewhere for its next attempt: counted by the settling stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Postponed;

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

/// Returns whether the message waits elsewhere now.
async fn postpone(message: &Delivery, failure: Option<&Failure>, place: RetryPlace, next: Next<'_>) -> bool {
    match next.publish(forward(message, failure, place)).await {
        Ok(_) => true,
        Err(error) => {
            warn!(destination = message.destination(), %error, "a message is tried again in place: it cannot wait elsewhere");
            false
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
                Some(Plan::Wait(place)) => {
                    postpone(message, outcome.failure_of(index), place, next).await.then_some(Settlement::Ack)
                }
                Some(Plan::GiveUp) => Some(Settlement::reject(format!("failed {} times", message.attempt()))),
                None => None,
            });
        }
        outcome.map_each(count, |index, own| match done.get_mut(index).and_then(Option::take) {
            None => own,
            Some(Settlement::Ack) => {
                let mut own = own.with_settlement(Settlement::Ack);
                own.insert_extension(Postponed);
                own
            }
            Some(given_up) => own.with_settlement(given_up),
        })
    }
}
