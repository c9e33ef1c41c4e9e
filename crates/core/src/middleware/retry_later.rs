use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::dead_letter::one_by_one;
use super::failure_rule::give_up;
use super::forwarding::{Forwarded, Forwarding, unpublishable};
use super::{Middleware, Next};
use crate::broker::{RETRY_ATTEMPT, RETRY_DUE, RETRY_ERROR, RetryPlace, RetryRoute};
use crate::message::{Delivery, Envelope, Failure, Fate, Outcome, Settlement, header_text};

/// The header that says where the message first failed.
const ORIGIN: &str = "retry-origin";

/// Forwards messages that are to be tried again to the place where they wait, and then acknowledges them; one whose attempts are used
/// up is rejected, and so is one that the place will never take.
pub(crate) struct RetryLater {
    route: Arc<dyn RetryRoute>,
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

fn envelope(message: &Delivery, failure: Option<&Failure>, place: RetryPlace) -> Envelope {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let due = now.saturating_add(place.wait).as_millis();
    let mut envelope = Envelope::forward(message, place.destination);
    let headers = envelope.headers_mut();
    headers.insert(RETRY_ATTEMPT, message.attempt().saturating_add(1).to_string());
    headers.insert(RETRY_DUE, due.to_string());
    headers.remove(RETRY_ERROR);
    if let Some(failure) = failure {
        headers.insert(RETRY_ERROR, header_text::own(failure.error_type()));
    }
    if message.attempt() == 1 || !headers.contains(ORIGIN) {
        headers.insert(ORIGIN, header_text::own(message.destination()));
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
        let gives_up: Vec<bool> = plans.iter().map(|plan| matches!(plan, Some(Plan::GiveUp))).collect();
        let envelope = |((index, message), plan): ((usize, &Delivery), Option<Plan>)| match plan? {
            Plan::Wait(place) => Some(envelope(message, outcome.failure_of(index), place)),
            Plan::GiveUp => None,
        };
        let envelopes = messages.zip(plans).map(envelope).collect();
        next.inner_telemetry().note_failure(outcome.failure());
        let mut done = Forwarding::new("retry", next, delivery.messages(), envelopes).run().await;
        outcome.map_each(count, |index, own| {
            let Some(message) = delivery.messages().get(index) else { return own };
            match done.get_mut(index).and_then(Option::take) {
                None if gives_up.get(index).copied().unwrap_or_default() => give_up(own, message.attempt()),
                None => own,
                Some(Forwarded::Confirmed) => own.with_settlement(Settlement::Ack).with_fate(Fate::Postponed),
                Some(Forwarded::Refused(failure)) => {
                    let why = format!("it cannot be published where it is to wait ({})", failure.error_type());
                    unpublishable(own, message, &why)
                }
                Some(Forwarded::Interrupted) => own.with_fate(Fate::Interrupted),
            }
        })
    }
}
