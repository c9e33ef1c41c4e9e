use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::alarm::Alarm;
use super::dropped::Dropped;
use super::handling::{Handled, Stages};
use super::patience::{ends_here, is_final};
use super::phase::until_aborting;
use super::settle::{Ending, Endings, settle_all, with_heartbeats};
use super::work::Work;
use crate::broker::{Received, Subscriber};
use crate::handler::RouteOptions;
use crate::later::later;
use crate::log::{SubscriptionLog, log_line};
use crate::message::{Fate, Settlement};
use crate::middleware::Settler;
use crate::telemetry::{Incoming, Receiving};

/// How many requests are handled at the same time where the user sets nothing.
const REQUESTS_AT_ONCE: usize = 64;

/// Takes a delivery of one subscription through its stages to its end: settled, handled again here, or given up.
pub(super) struct Dispatcher {
    stages: Stages,
    concurrency: usize,
    /// Whether requests are handled beside the one delivery at a time.
    requests_beside: bool,
    redelivers: bool,
    stops_if_unpublishable: bool,
    alarm: Alarm,
    pub(super) dropped: Dropped,
}

impl Dispatcher {
    pub(super) fn new(
        subscriber: &dyn Subscriber,
        options: &RouteOptions,
        stages: Stages,
        alarm: Alarm,
        limit: Duration,
    ) -> Self {
        let concurrency = options.concurrency.unwrap_or_else(|| subscriber.concurrency()).max(1);
        Self {
            requests_beside: options.concurrency.is_none() && concurrency == 1,
            concurrency,
            redelivers: subscriber.redelivers(),
            stops_if_unpublishable: options.stops_if_unpublishable,
            alarm,
            dropped: Dropped::new(Arc::clone(&stages.failed.log), limit),
            stages,
        }
    }

    pub(super) fn log(&self) -> &SubscriptionLog {
        &self.stages.failed.log
    }

    /// Counts messages that are about to be settled while the app ends.
    fn note_settled(&self, messages: usize) {
        // In one step: this is asked for each message.
        if !matches!(self.stages.phase.has_changed(), Ok(false)) {
            self.dropped.note_handled(messages);
        }
    }

    pub(super) const fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// How many tasks may handle deliveries at the same time.
    pub(super) const fn room(&self) -> usize {
        if self.requests_beside { REQUESTS_AT_ONCE } else { self.concurrency }
    }

    /// Whether a delivery is handled in a task of its own: where several may be at the same time, and where somebody waits for an answer.
    pub(super) const fn has_own_task(&self, work: &Work) -> bool {
        match work {
            Work::Single(received) if self.requests_beside => received.delivery.is_request(),
            _ => self.concurrency > 1,
        }
    }

    /// Starts the receive span, where the user wants one.
    // SPAN-30.
    pub(super) fn receiving(&self) -> Option<Receiving> {
        self.stages.receiving()
    }

    /// Handles a message or a batch to its end. Where the broker cannot deliver again, what is to be retried is handled again here. When
    /// the app drops its handlers, what the broker does not deliver again is still brought to its end, without its handler.
    pub(super) async fn dispatch(&self, work: Work) {
        let messages = work.messages();
        let is_lost = messages.iter().any(|message| !message.needs_settlement());
        let unfinished = self.dropped.unfinished(messages.len(), is_lost);
        if messages.iter().any(ends_here) {
            self.dispatch_to_end(work).await;
            return unfinished.done();
        }
        let mut handling = pin!(self.dispatch_to_end(work));
        // Many handlers never wait; an abort can reach only those that do.
        if poll_fn(|context| Poll::Ready(handling.as_mut().poll(context))).await.is_ready()
            || until_aborting(&self.stages.phase, handling).await.is_some()
        {
            unfinished.done();
        }
    }

    async fn dispatch_to_end(&self, mut work: Work) {
        loop {
            let Some(mine) = work.retain(|_, message| !message.is_withdrawn()) else { return };
            work = mine;
            let handled = self.stages.attempt(&work).await;
            let mut longest = None;
            let mut endings = Endings::with_capacity(work.messages().len());
            for (index, message) in work.messages_mut().iter_mut().enumerate() {
                let delay = self.delay_before_next(&handled, index);
                if let Some(failure) = handled.outcome.failure_of(index) {
                    message.tell_failed(failure, handled.outcome.settlement_of(index));
                }
                match delay {
                    Some(_) => self.count_attempt(message, index, &handled),
                    None if !self.is_to_be_settled(message, index, &handled) => {}
                    None => endings.push(Ending {
                        message,
                        outcome: handled.outcome_of(index),
                        settlement: handled.outcome.settlement_of(index),
                    }),
                }
                longest = longest.max(delay);
            }
            self.note_settled(endings.len());
            settle_all(endings, handled.settler.as_ref(), self.log()).await;
            let Some(delay) = longest else { return };
            let again = work.retain(|index, _| self.delay_before_next(&handled, index).is_some());
            let Some(again) = again else { return };
            // Boxed, as the rare one of the two ways on.
            let Some(again) = Box::pin(self.pause(again, delay)).await else { return };
            work = again;
        }
    }

    /// Whether the broker is to be told of a message that is not handled again here.
    fn is_to_be_settled(&self, message: &Received, index: usize, handled: &Handled) -> bool {
        let fate = handled.outcome_of(index).fate();
        if matches!(fate, Fate::Interrupted) {
            self.dropped.note_left(1);
            report_interrupted(self.log(), handled.settler.as_ref(), message);
            return false;
        }
        let is_rejected = matches!(handled.outcome.settlement_of(index), Settlement::Reject { .. });
        if self.stops_if_unpublishable && is_rejected && matches!(fate, Fate::Unpublishable) {
            self.alarm.stop(&message.delivery);
            return false;
        }
        true
    }

    /// Waits before messages are handled again here, and returns those that are. One that another member gets is given up at once, so
    /// that nobody waits for it; and when the app ends, those that the broker delivers again.
    async fn pause(&self, mut work: Work, delay: Duration) -> Option<Work> {
        let due = later(delay);
        loop {
            let patience = self.stages.patience(work.messages());
            let left = due.saturating_duration_since(Instant::now());
            if with_heartbeats(self.log(), work.messages(), pin!(patience.wait(left))).await {
                return Some(work);
            }
            let phase = *self.stages.phase.borrow();
            if phase.is_aborting() {
                let given_up = work.messages().iter().filter(|message| !message.is_withdrawn());
                given_up.for_each(|message| self.dropped.count(1, !message.needs_settlement()));
                return None;
            }
            let stays = |message: &Received| phase.is_running() || is_final(message);
            let all = work.messages().len();
            let kept = work.retain(|_, message| !message.is_withdrawn() && stays(message));
            if !phase.is_running() {
                self.dropped.note_left(all - kept.as_ref().map_or(0, |kept| kept.messages().len()));
            }
            work = kept?;
        }
    }

    /// How long to wait before a message is handled again here; `None` where it is to be settled.
    fn delay_before_next(&self, handled: &Handled, index: usize) -> Option<Duration> {
        let Settlement::Retry { after } = handled.outcome.settlement_of(index) else { return None };
        if self.redelivers || matches!(handled.outcome_of(index).fate(), Fate::Interrupted) {
            return None;
        }
        Some(after.unwrap_or_default())
    }

    /// Counts the next attempt of a message that is handled again here.
    fn count_attempt(&self, message: &mut Received, index: usize, handled: &Handled) {
        message.delivery.count_attempt();
        self.stages.note_cause(&mut message.delivery, handled.outcome.failure_of(index));
        if let Some(settler) = &handled.settler {
            settler.consumer.count_settlement("retry", &Incoming::from_delivery(&message.delivery));
        }
    }
}

/// Ends the receive span with what was received.
pub(super) fn record_received(receiving: Receiving, work: &Work) {
    let messages: Vec<_> = work.messages().iter().map(|message| Incoming::from_delivery(&message.delivery)).collect();
    match (work, messages.as_slice()) {
        (Work::Single(_), [message]) => receiving.finish(message),
        (_, messages) => receiving.finish_batch(messages),
    }
}

fn report_interrupted(log: &SubscriptionLog, settler: Option<&Settler>, message: &Received) {
    let _current = settler.map(|settler| settler.context.clone().attach());
    let (delivery, group) = (&message.delivery, log.group());
    let (destination, attempt, position) = (delivery.destination(), delivery.attempt(), delivery.position());
    if is_final(message) {
        log_line!(
            log,
            ERROR,
            "a message was not published before the app ended, and the broker delivers it no more",
            destination,
            group,
            attempt,
            position
        );
    } else {
        log_line!(
            log,
            WARN,
            "a message was not published before it was given up here; the broker delivers it again",
            destination,
            group,
            attempt,
            position
        );
    }
}
