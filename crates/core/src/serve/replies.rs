use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use tracing::debug;

use super::patience::Patience;
use crate::broker::{PublishError, PublishErrorKind};
use crate::log::{SubscriptionLog, log_line};
use crate::message::{Delivery, Destination, Envelope, Failure, Fate, Outcome, Settlement};
use crate::middleware::{Outlet as _, RetryPolicy, panic_failure, unpublishable};
use crate::publish::Publisher;
use crate::telemetry::Scope;

/// Publishes what a handler replied, where the subscription says and to the requester.
pub(super) struct Replies {
    publisher: Publisher,
    destinations: Vec<Destination>,
    /// What the user chose for the subscription. Where it says how many attempts there are, that bounds the publishes of one reply.
    policy: RetryPolicy,
}

/// Why a reply is not out.
enum Unanswered {
    /// The message is handled again.
    Failed(Failure),
    /// The message is given up; the text says why.
    GivenUp(Failure, String),
    /// The app ends, or another member of the group gets the message.
    Interrupted,
}

/// Where a reply goes, and whose choice that is.
#[derive(Clone, Copy)]
enum Addressee<'a> {
    /// The handler named it in the reply.
    Itself,
    Requester(&'a Destination),
    Subscription(&'a Destination),
}

impl Replies {
    pub(super) fn new(publisher: Publisher, destinations: Vec<Destination>, chosen: Option<RetryPolicy>) -> Self {
        Self { publisher, destinations, policy: chosen.unwrap_or_default() }
    }

    pub(super) const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Publishes all replies of an outcome and returns when they are confirmed. What fails is published again, not handled again; what
    /// can never be published, or is not within the attempts that the user chose, makes its outcome a failure. `inner` is the scope of telemetry that is ordinary middleware: its span has
    /// ended by now and is the parent all the same.
    pub(super) async fn publish(
        &self,
        outcome: Outcome,
        asked: &Delivery,
        inner: Option<Scope>,
        scope: Option<Scope>,
        patience: &Patience<'_>,
    ) -> Outcome {
        let asked_for = outcome.scope();
        let scope = inner.or(asked_for).or(scope);
        let context = scope.as_ref().map_or_else(Context::current, |scope| scope.context().clone());
        let of_messages = scope.as_ref().map_or(&[][..], Scope::members);
        let (outcome, each) = outcome.take_each();
        let was_acked = is_acked(&outcome);
        let outcome = self.settle_replies(outcome, asked, patience).with_context(context.clone()).await;
        let has_failed = was_acked && !is_acked(&outcome);
        let mut settled = Vec::with_capacity(each.len());
        for (index, own) in each.into_iter().enumerate() {
            let message = asked.messages().get(index).unwrap_or(asked);
            let context = of_messages.get(index).map_or(&context, Scope::context).clone();
            settled.push(match own {
                // The reply of the whole batch is lost with them, so they do not stay acknowledged.
                Some(own) if has_failed && is_acked(&own) => None,
                Some(own) => Some(self.settle_replies(own, message, patience).with_context(context).await),
                None => None,
            });
        }
        outcome.with_each(settled)
    }

    /// Publishes the replies of one outcome.
    async fn settle_replies(&self, mut outcome: Outcome, asked: &Delivery, patience: &Patience<'_>) -> Outcome {
        let replies = outcome.take_replies();
        if !is_acked(&outcome) {
            return outcome;
        }
        for reply in replies {
            match self.reply(reply, asked, patience).await {
                Ok(()) => {}
                Err(Unanswered::Failed(failure)) => return Outcome::failed(failure),
                Err(Unanswered::GivenUp(failure, why)) => {
                    return unpublishable(Outcome::failed(failure.permanent()), asked, &why);
                }
                Err(Unanswered::Interrupted) => return outcome.with_fate(Fate::Interrupted),
            }
        }
        outcome
    }

    /// Sends a reply where the subscription says and to the requester; an addressed one goes where it says itself.
    async fn reply(&self, reply: Envelope, asked: &Delivery, patience: &Patience<'_>) -> Result<(), Unanswered> {
        let reply = match asked.correlation_id() {
            Some(id) if reply.correlation_id().is_none() => reply.with_correlation_id(id),
            _ => reply,
        };
        if reply.is_addressed() {
            return self.send(&reply, Addressee::Itself, asked, patience).await;
        }
        let own = self.destinations.iter().map(Addressee::Subscription);
        let mut goes_nowhere = true;
        for addressee in own.chain(asked.reply_to().map(Addressee::Requester)) {
            goes_nowhere = false;
            self.send(&reply, addressee, asked, patience).await?;
        }
        if goes_nowhere {
            debug!(
                destination = asked.destination(),
                "a reply has nowhere to go: nobody asked, and the subscription has no `reply_to`"
            );
        }
        Ok(())
    }

    /// Publishes a reply until it is confirmed. In a transaction what was published before would go with it, so there the message is
    /// handled again.
    async fn send(
        &self,
        reply: &Envelope,
        addressee: Addressee<'_>,
        asked: &Delivery,
        patience: &Patience<'_>,
    ) -> Result<(), Unanswered> {
        // The messages of a batch that are left once some of them are out.
        let mut left: Option<Envelope> = None;
        let mut refused = None;
        for tries in 1_u32.. {
            let envelope = left.clone().unwrap_or_else(|| addressee.address(reply.clone()));
            let place = envelope.destination().clone();
            let publishing = self.publisher.publish_envelope(envelope);
            let failure = match AssertUnwindSafe(publishing).catch_unwind().await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) if addressee.is_gone(&error) => {
                    report_gone(patience.log, asked, error);
                    return Ok(());
                }
                Ok(Err(error)) => {
                    if !error.failed().is_empty() {
                        left = Some(rest_of(left.as_ref().unwrap_or(reply), place.clone(), &error));
                        let is_permanent = |(_, part): &(usize, PublishError)| part.is_permanent();
                        refused =
                            refused.or(error.failed().iter().any(is_permanent).then(|| error.error_type().to_owned()));
                    }
                    error.into_failure()
                }
                // Middleware of the user: it would do so again, so this counts as an attempt.
                Err(panic) => return Err(Unanswered::Failed(panic_failure(panic))),
            };
            let delay = self.policy.pause(tries);
            let given_up = self.why_given_up(&failure, tries);
            let next = Some(delay).filter(|_| given_up.is_none());
            report(patience.log, asked, &place, &failure, (tries, next));
            if let Some(why) = given_up {
                return Err(Unanswered::GivenUp(failure, why));
            }
            if self.publisher.transport().is_atomic() {
                return Err(Unanswered::Failed(failure));
            }
            if !patience.wait(delay).await {
                return Err(Unanswered::Interrupted);
            }
        }
        match refused {
            Some(error_type) => {
                let why = unanswerable(&error_type);
                let failure = Failure::new(error_type, "some messages of a reply can never be published");
                Err(Unanswered::GivenUp(failure.by_framework(), why))
            }
            None => Ok(()),
        }
    }

    /// Says why a reply is not published again. In a transaction the message is handled again instead, and its attempts are counted then.
    fn why_given_up(&self, failure: &Failure, tries: u32) -> Option<String> {
        let error_type = failure.error_type();
        if !failure.is_retryable() {
            return Some(unanswerable(error_type));
        }
        if !self.policy.is_worth_it(failure) {
            return Some(format!(
                "its reply was not published ({error_type}), and the retry policy does not try such a failure again"
            ));
        }
        let is_used_up = self.policy.chosen_attempts().is_some_and(|most| tries >= most);
        (is_used_up && !self.publisher.transport().is_atomic())
            .then(|| format!("its reply was not published in {tries} attempts ({error_type})"))
    }
}

impl Addressee<'_> {
    fn address(self, reply: Envelope) -> Envelope {
        match self {
            Self::Itself => reply,
            Self::Requester(to) | Self::Subscription(to) => reply.with_destination(to.clone()),
        }
    }

    /// Tells whether nobody can be answered there, which is the requester's fault and not the message's. That a reply is too large, say,
    /// is not.
    fn is_gone(self, error: &PublishError) -> bool {
        use PublishErrorKind::{InvalidDestination, NotFound, Unauthorized};
        matches!(self, Self::Requester(_)) && matches!(error.kind(), InvalidDestination | NotFound | Unauthorized)
    }
}

fn unanswerable(error_type: &str) -> String {
    format!("its reply cannot be published ({error_type})")
}

/// Returns the messages of a batch that failed and may still be published.
fn rest_of(reply: &Envelope, place: Destination, error: &PublishError) -> Envelope {
    let may_pass = error.failed().iter().filter(|(_, error)| !error.is_permanent());
    Envelope::batch(place, may_pass.filter_map(|(index, _)| reply.messages().get(*index).cloned()))
}

fn is_acked(outcome: &Outcome) -> bool {
    *outcome.settlement() == Settlement::Ack
}

fn report(
    log: &SubscriptionLog,
    asked: &Delivery,
    place: &Destination,
    failure: &Failure,
    (tries, delay): (u32, Option<Duration>),
) {
    let (destination, group, attempt) = (asked.destination(), log.group(), asked.attempt());
    let (place, error_type, error) = (place.name(), failure.error_type(), log.error_text(failure));
    let error = error.as_deref();
    if let Some(delay) = delay {
        log_line!(
            log,
            WARN,
            "a reply was not published and is tried again",
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
            "a reply was not published and is not tried again",
            destination,
            group,
            attempt,
            place,
            tries,
            error_type,
            error,
            position = asked.position()
        );
    }
}

fn report_gone(log: &SubscriptionLog, asked: &Delivery, error: PublishError) {
    let failure = error.into_failure();
    let (destination, group, attempt) = (asked.destination(), log.group(), asked.attempt());
    let (error_type, error) = (failure.error_type(), log.error_text(&failure));
    log_line!(
        log,
        WARN,
        "the requester's address cannot be published to; the message counts as handled",
        destination,
        group,
        attempt,
        error_type,
        error = error.as_deref()
    );
}
