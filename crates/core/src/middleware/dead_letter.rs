use std::borrow::Cow;
use std::time::Duration;

use super::forwarding::{Forwarded, Forwarding, unpublishable};
use super::{Middleware, Next};
use crate::log::{SubscriptionLog, log_line};
use crate::message::{Delivery, Destination, Envelope, Failure, Fate, Outcome, Settlement, header_text};
use async_trait::async_trait;

/// The header that says why a message is a dead letter.
const REASON: &str = "dead-letter-reason";
/// The header that holds the `error.type` of a dead letter that failed; never the error's text, which may be private.
const ERROR: &str = "dead-letter-error";
/// The header that says where a dead letter came from.
const ORIGIN: &str = "dead-letter-origin";

/// A middleware that forwards messages that were given up (rejected, or out of attempts) to another destination, and then acknowledges
/// them.
///
/// The body and the headers stay as they are, with the context of the producer; `dead-letter-reason`,
/// `dead-letter-error` (the `error.type`) and `dead-letter-origin` are set, not added, so they never pile up. They have at most 200 characters and are escaped where they are not
/// printable ASCII: read them with [`Delivery::header_text`]. A message that cannot be
/// forwarded is not settled but retried.
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

    fn envelope(&self, message: &Delivery, reason: &str, failure: Option<&Failure>) -> Envelope {
        let mut envelope = Envelope::forward(message, self.destination.clone());
        envelope.headers_mut().insert(REASON, header_text::own(reason));
        envelope.headers_mut().remove(ERROR);
        if let Some(failure) = failure {
            envelope.headers_mut().insert(ERROR, header_text::own(failure.error_type()));
        }
        envelope.headers_mut().insert(ORIGIN, header_text::own(message.destination()));
        envelope
    }

    /// Tells whether the message comes from where it would go: as a dead letter it would come again, and so on for ever.
    fn would_come_again(&self, message: &Delivery) -> bool {
        let place = self.destination.name();
        message.destination() == place || message.header(ORIGIN).is_some_and(|origin| origin == header_text::own(place))
    }

    pub(crate) const fn destination(&self) -> &Destination {
        &self.destination
    }
}

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
        let envelope = |(index, message): (usize, &Delivery)| match outcome.settlement_of(index) {
            Settlement::Reject { reason } if !self.would_come_again(message) => {
                Some(self.envelope(message, reason, outcome.failure_of(index)))
            }
            _ => None,
        };
        let envelopes = delivery.messages().iter().enumerate().map(envelope).collect();
        next.inner_telemetry().note_failure(outcome.failure());
        let mut done = Forwarding::new("dead letter", next, delivery.messages(), envelopes).run().await;
        outcome.map_each(count, |index, own| {
            let Some(message) = delivery.messages().get(index) else { return own };
            match done.get_mut(index).and_then(Option::take) {
                None if is_rejected(&own) => {
                    report_loop(next.log(), message);
                    unpublishable(own, message, "it came from the dead letter")
                }
                None => own,
                Some(Forwarded::Confirmed) => buried(own),
                Some(Forwarded::Refused(failure)) => {
                    let why = format!("its dead letter cannot be published ({})", failure.error_type());
                    unpublishable(own, message, &why)
                }
                Some(Forwarded::Interrupted) => own.with_fate(Fate::Interrupted),
            }
        })
    }
}

const fn is_rejected(outcome: &Outcome) -> bool {
    matches!(outcome.settlement(), Settlement::Reject { .. })
}

fn buried(own: Outcome) -> Outcome {
    let reason = match own.settlement() {
        Settlement::Reject { reason } => reason.clone(),
        _ => Cow::Borrowed(""),
    };
    own.with_settlement(Settlement::Ack).with_fate(Fate::Buried(reason))
}

fn report_loop(log: &SubscriptionLog, message: &Delivery) {
    let (destination, group, attempt) = (message.destination(), log.group(), message.attempt());
    log_line!(
        log,
        ERROR,
        "a message that came from the dead letter is not sent there again",
        destination,
        group,
        attempt,
        position = message.position()
    );
}

/// Lets a message that is to be forwarded come again by itself, at once.
pub(super) fn one_by_one(own: Outcome, wanted: &[bool], index: usize) -> Outcome {
    if wanted.get(index).copied().unwrap_or_default() {
        return own.with_settlement(Settlement::retry_after(Duration::ZERO));
    }
    own
}
