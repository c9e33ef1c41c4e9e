//! Publishing a message that goes elsewhere, until that is confirmed.

use std::time::Duration;

use super::Next;
use crate::log::{SubscriptionLog, log_line};
use crate::message::{Delivery, Envelope, Failure, Fate, Outcome, Settlement};

/// What became of a message that was to go elsewhere.
pub(crate) enum Forwarded {
    /// The broker has it.
    Confirmed,
    /// The broker will never take it.
    Refused(Failure),
    /// The app ends, or another member of the group gets the message: it is left as it is.
    Interrupted,
}

/// The messages of a delivery that go elsewhere. What fails is published again, with the delays of the policy in force and for as long as
/// it takes; nothing else is done again for it.
pub(super) struct Forwarding<'a> {
    next: Next<'a>,
    messages: &'a [Delivery],
    /// What they are forwarded as; `None` for those that stay.
    envelopes: Vec<Option<Envelope>>,
    ended: Vec<Option<Forwarded>>,
    /// What the log calls it: "dead letter".
    name: &'static str,
}

impl<'a> Forwarding<'a> {
    pub(super) fn new(
        name: &'static str,
        next: Next<'a>,
        messages: &'a [Delivery],
        envelopes: Vec<Option<Envelope>>,
    ) -> Self {
        let ended = envelopes.iter().map(|_| None).collect();
        Self { next, messages, envelopes, ended, name }
    }

    /// Returns what became of each message; `None` for those that stay.
    pub(super) async fn run(mut self) -> Vec<Option<Forwarded>> {
        for tries in 1_u32.. {
            let delay = self.next.policy().pause(tries);
            let has_failed = self.publish_all(tries, delay).await;
            if has_failed && self.next.is_atomic() {
                self.take_back().await;
            }
            if !self.has_rest() {
                break;
            }
            if !self.next.wait(delay).await {
                self.interrupt();
                break;
            }
        }
        self.next.inner_telemetry().note_failure(None);
        self.ended
    }

    /// Publishes what is not yet, and returns whether any of it has failed.
    async fn publish_all(&mut self, tries: u32, delay: Duration) -> bool {
        let mut has_failed = false;
        for ((envelope, ended), message) in self.envelopes.iter().zip(&mut self.ended).zip(self.messages) {
            let Some(envelope) = envelope.as_ref().filter(|_| ended.is_none()) else { continue };
            match self.next.forward(envelope.clone()).await {
                Ok(()) => *ended = Some(Forwarded::Confirmed),
                Err(failure) => {
                    has_failed = true;
                    report(self.next.log(), self.name, message, envelope, &failure, (tries, delay));
                    if !failure.is_retryable() {
                        *ended = Some(Forwarded::Refused(failure));
                    }
                }
            }
        }
        has_failed
    }

    /// In a transaction, what was published goes with what failed, and is published again.
    async fn take_back(&mut self) {
        self.next.discard().await;
        for ended in &mut self.ended {
            if matches!(ended, Some(Forwarded::Confirmed)) {
                *ended = None;
            }
        }
    }

    fn has_rest(&self) -> bool {
        self.envelopes.iter().zip(&self.ended).any(|(envelope, ended)| envelope.is_some() && ended.is_none())
    }

    fn interrupt(&mut self) {
        for (ended, envelope) in self.ended.iter_mut().zip(&self.envelopes) {
            if ended.is_none() && envelope.is_some() {
                *ended = Some(Forwarded::Interrupted);
            }
        }
    }
}

fn report(
    log: &SubscriptionLog,
    name: &str,
    message: &Delivery,
    envelope: &Envelope,
    failure: &Failure,
    (tries, delay): (u32, Duration),
) {
    let (destination, group, attempt) = (message.destination(), log.group(), message.attempt());
    let (place, error_type, error) = (envelope.destination().name(), failure.error_type(), log.error_text(failure));
    let error = error.as_deref();
    if failure.is_retryable() {
        log_line!(
            log,
            WARN,
            "a {name} was not published and is tried again",
            destination,
            group,
            attempt,
            place,
            tries,
            ?delay,
            error_type,
            error
        );
    } else {
        log_line!(
            log,
            ERROR,
            "a {name} can never be published and is not tried again",
            destination,
            group,
            attempt,
            place,
            error_type,
            error,
            position = message.position()
        );
    }
}

/// Rejects a message that can be published nowhere, and says why and where it still lies.
pub(crate) fn unpublishable(own: Outcome, message: &Delivery, why: &str) -> Outcome {
    let reason = match own.settlement() {
        Settlement::Reject { reason } => format!("{reason}; {why}"),
        _ => why.to_owned(),
    };
    let reason = match message.position() {
        Some(position) => format!("{reason}; it lies in {position}"),
        None => reason,
    };
    own.with_settlement(Settlement::reject(reason)).with_fate(Fate::Unpublishable)
}
