use std::sync::Arc;
use std::time::Duration;

use crate::broker::RetryRoute;
use crate::log::{SubscriptionLog, log_line};
use crate::message::{Delivery, Destination, Failure, Settlement};

/// What the log says about attempts of one subscription that failed, and about what it gives up.
pub(super) struct Failed {
    pub(super) log: Arc<SubscriptionLog>,
    dead_letter: Option<Destination>,
    route: Option<Arc<dyn RetryRoute>>,
}

/// Which attempt of its message one is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) attempt: u32,
    /// Of how many; `None` where somebody else counts.
    pub(super) attempts: Option<u32>,
}

impl Failed {
    pub(super) fn new(
        log: Arc<SubscriptionLog>,
        dead_letter: Option<Destination>,
        route: Option<Arc<dyn RetryRoute>>,
    ) -> Self {
        Self { log, dead_letter, route }
    }

    /// Says what is to become of a message.
    pub(super) fn settlement(
        &self,
        message: &Delivery,
        settlement: &Settlement,
        failure: Option<&Failure>,
        count: Count,
    ) {
        match (settlement, failure) {
            (Settlement::Reject { reason }, None) => self.rejected(message, reason),
            (Settlement::Reject { .. }, Some(failure)) => self.given_up(message, failure, count),
            (Settlement::Retry { after }, Some(failure)) => match &self.route {
                None => self.tried_again(message, failure, count, after.unwrap_or_default()),
                Some(route) => match route.place(message, None) {
                    Some(place) => self.tried_again(message, failure, count, place.wait),
                    None => self.given_up(message, failure, count),
                },
            },
            // Done, or what the handler decided.
            (Settlement::Ack, _) | (Settlement::Retry { .. }, None) => {}
        }
    }

    /// Says that a message is tried again after a delay.
    pub(super) fn tried_again(&self, message: &Delivery, failure: &Failure, count: Count, delay: Duration) {
        let (destination, group, error) = (message.destination(), self.log.group(), self.log.error_text(failure));
        let (error_type, error, Count { attempt, attempts }) = (failure.error_type(), error.as_deref(), count);
        log_line!(
            self.log,
            WARN,
            "an attempt failed; the message is tried again",
            destination,
            group,
            attempt,
            attempts,
            ?delay,
            error_type,
            error
        );
    }

    fn given_up(&self, message: &Delivery, failure: &Failure, count: Count) {
        let (destination, group, error) = (message.destination(), self.log.group(), self.log.error_text(failure));
        let (error_type, error, Count { attempt, attempts }) = (failure.error_type(), error.as_deref(), count);
        match &self.dead_letter {
            Some(dead_letter) => log_line!(
                self.log,
                WARN,
                "an attempt failed; the message goes to the dead letter",
                destination,
                group,
                attempt,
                attempts,
                error_type,
                error,
                place = dead_letter.name()
            ),
            None => log_line!(
                self.log,
                ERROR,
                "an attempt failed; the message is rejected, and there is no dead letter",
                destination,
                group,
                attempt,
                attempts,
                error_type,
                error,
                position = message.position()
            ),
        }
    }

    /// What a handler gives up by decision is lost all the same, unless there is a dead letter.
    fn rejected(&self, message: &Delivery, reason: &str) {
        if self.dead_letter.is_some() {
            return;
        }
        let (destination, group, attempt) = (message.destination(), self.log.group(), message.attempt());
        let (reason, position) = (self.log.reason(reason), message.position());
        log_line!(
            self.log,
            ERROR,
            "a message is rejected by decision, and there is no dead letter",
            destination,
            group,
            attempt,
            reason = reason.as_deref(),
            position
        );
    }
}
