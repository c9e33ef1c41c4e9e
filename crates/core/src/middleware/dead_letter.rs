use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;

use super::{Backoff, Middleware, Next};
use crate::message::{Delivery, Destination, Envelope, Failure, Outcome, Settlement};

/// The header that says why a message is a dead letter.
const REASON: &str = "dead-letter-reason";
/// The header that holds the `error.type` of a dead letter that failed; never the error's text, which may be private.
const ERROR: &str = "dead-letter-error";
/// The header that says where a dead letter came from.
const ORIGIN: &str = "dead-letter-origin";

/// Forwards messages that were given up (rejected, or out of attempts) to another destination, and then acknowledges them.
///
/// The body and the headers stay as they are, with the context of the producer (SPAN-37); `dead-letter-reason`,
/// `dead-letter-error` (the `error.type`) and `dead-letter-origin` are set, not added, so they never pile up. A message that cannot be forwarded is not settled but retried.
/// Where the subscription publishes and settles in one transaction, what the message's attempts published is taken back before.
///
/// # Examples
///
/// ```
/// use throughline_core::middleware::DeadLetter;
/// let dead_letter = DeadLetter::to("orders.placed.dead");
/// # let _ = dead_letter;
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetter {
    destination: Destination,
}

impl DeadLetter {
    /// Creates the middleware from the destination of dead letters.
    ///
    /// # Examples
    ///
    /// ```
    /// let dead_letter = throughline_core::middleware::DeadLetter::to("orders.dead");
    /// # let _ = dead_letter;
    /// ```
    #[must_use]
    pub fn to(destination: impl Into<Destination>) -> Self {
        Self { destination: destination.into() }
    }

    async fn bury(
        &self,
        message: &Delivery,
        reason: &str,
        failure: Option<&Failure>,
        next: Next<'_>,
    ) -> Result<(), Failure> {
        let mut envelope = Envelope::forward(message, self.destination.clone());
        envelope.headers_mut().insert(REASON, header_text(reason));
        envelope.headers_mut().remove(ERROR);
        if let Some(failure) = failure {
            envelope.headers_mut().insert(ERROR, header_text(failure.error_type()));
        }
        envelope.headers_mut().insert(ORIGIN, header_text(message.destination()));
        next.forward(envelope).await
    }
}

/// Dead-lettered, with the reason: counted by the settling stage, shown by telemetry.
#[derive(Clone, Debug)]
pub(crate) struct Buried(pub(crate) Cow<'static, str>);

#[async_trait]
impl Middleware for DeadLetter {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        let outcome = next.run(delivery.clone()).await;
        let count = if delivery.is_batch() { delivery.messages().len() } else { 0 };
        let is_given_up = |index| matches!(outcome.settlement_of(index), Settlement::Reject { .. });
        let indices = 0..delivery.messages().len();
        if !indices.clone().any(is_given_up) {
            return outcome;
        }
        let given_up: Vec<bool> = indices.map(is_given_up).collect();
        if !next.may_forward(&given_up).await {
            return outcome.map_each(count, |index, own| one_by_one(own, &given_up, index));
        }
        let mut buried: Vec<Option<Result<Buried, Failure>>> = Vec::with_capacity(count.max(1));
        for (index, message) in delivery.messages().iter().enumerate() {
            buried.push(match outcome.settlement_of(index) {
                Settlement::Reject { reason } => Some(
                    self.bury(message, reason, outcome.failure_of(index), next).await.map(|()| Buried(reason.clone())),
                ),
                _ => None,
            });
        }
        outcome.map_each(count, |index, own| match buried.get_mut(index).and_then(Option::take) {
            None => own,
            Some(Ok(buried)) => {
                let mut done = own.with_settlement(Settlement::Ack);
                done.insert_extension(buried);
                done
            }
            // Decided here, not by the failure rule, which would give up a message that is out of attempts.
            Some(Err(failure)) => {
                let attempt = delivery.messages().get(index).map_or(1, Delivery::attempt);
                Outcome::failed(failure).with_settlement(Settlement::retry_after(Backoff::default().delay(attempt)))
            }
        })
    }
}

/// Lets a message that is to be forwarded come again by itself, at once.
pub(super) fn one_by_one(own: Outcome, wanted: &[bool], index: usize) -> Outcome {
    if wanted.get(index).copied().unwrap_or_default() {
        return own.with_settlement(Settlement::retry_after(Duration::ZERO));
    }
    own
}

/// Makes a text safe for the headers of every broker: printable ASCII, at most 200 characters.
pub(super) fn header_text(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(200).collect()
}
