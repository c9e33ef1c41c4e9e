use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use tracing::warn;

use super::dead_letter::header_text;
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

    /// Returns what becomes of a message that is to be tried again; `None` where nothing of it changes.
    async fn postpone(
        &self,
        message: &Delivery,
        outcome: &Outcome,
        index: usize,
        next: Next<'_>,
    ) -> Option<Postponing> {
        let Settlement::Retry { after } = outcome.settlement_of(index) else { return None };
        let failure = outcome.failure_of(index);
        // With a failure the delay is that of the failure rule, which the route stands for.
        let Some(place) = self.route.place(message, after.filter(|_| failure.is_none())) else {
            return Some(Postponing::GivenUp(message.attempt()));
        };
        match next.publish(forward(message, failure, place)).await {
            Ok(_) => Some(Postponing::Waits),
            Err(error) => {
                warn!(destination = message.destination(), %error, "a message is tried again in place: it cannot wait elsewhere");
                None
            }
        }
    }
}

/// What becomes of a message that is to be tried again.
#[derive(Clone, Copy)]
enum Postponing {
    GivenUp(u32),
    Waits,
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
        let mut postponed = Vec::with_capacity(count.max(1));
        for (index, message) in delivery.messages().iter().enumerate() {
            postponed.push(self.postpone(message, &outcome, index, next).await);
        }
        if postponed.iter().all(Option::is_none) {
            return outcome;
        }
        outcome.map_each(count, |index, own| match postponed.get(index).copied().flatten() {
            None => own,
            Some(Postponing::GivenUp(attempt)) => {
                own.with_settlement(Settlement::reject(format!("failed {attempt} times")))
            }
            Some(Postponing::Waits) => {
                let mut done = own.with_settlement(Settlement::Ack);
                done.insert_extension(Postponed);
                done
            }
        })
    }
}
