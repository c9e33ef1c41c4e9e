use std::future::{Future as _, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, warn};

use super::alarm::Alarm;
use super::batching::Work;
use super::dropped::Dropped;
use super::handling::{Handled, Stages};
use super::patience::is_final;
use super::phase::{Phase, until_aborting};
use super::settle::{settle_one, with_heartbeats};
use crate::broker::{Publish, Received, Subscriber};
use crate::handler::{ErasedHandler, RouteOptions};
use crate::later::later;
use crate::message::{Delivery, Settlement};
use crate::middleware::{Interrupted, Unpublishable};
use crate::telemetry::{Consumer, Incoming, Instrumentation, Receiving};

/// Takes a delivery of one subscription through its stages to its end: settled, handled again here, or given up.
pub(super) struct Dispatcher {
    stages: Stages,
    concurrency: usize,
    receive_spans: bool,
    redelivers: bool,
    stops_if_unpublishable: bool,
    alarm: Alarm,
    pub(super) dropped: Dropped,
}

impl Dispatcher {
    pub(super) fn new(
        subscriber: &dyn Subscriber,
        transport: Arc<dyn Publish>,
        handler: Arc<dyn ErasedHandler<()>>,
        options: RouteOptions,
        instrumentation: Option<&Instrumentation>,
        phase: watch::Receiver<Phase>,
        alarm: Alarm,
    ) -> Self {
        Self {
            concurrency: options.concurrency.unwrap_or_else(|| subscriber.concurrency()).max(1),
            receive_spans: instrumentation.is_some_and(|instrumentation| instrumentation.engine.settings.receive_spans),
            redelivers: subscriber.redelivers(),
            stops_if_unpublishable: options.stops_if_unpublishable,
            alarm,
            dropped: Dropped::default(),
            stages: Stages::new(subscriber, transport, handler, options, instrumentation, phase),
        }
    }

    pub(super) const fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Starts the receive span, where the user wants one (SPAN-30).
    pub(super) fn receiving(&self) -> Option<Receiving> {
        self.stages.consumer.as_ref().filter(|_| self.receive_spans).map(Consumer::receive)
    }

    /// Handles a message or a batch to its end. Where the broker cannot deliver again, what is to be retried is handled again here. When
    /// the app drops its handlers, what the broker does not deliver again is still brought to its end, without its handler.
    pub(super) async fn dispatch(&self, work: Work) {
        let messages = work.messages();
        let (count, is_lost) = (messages.len(), messages.iter().any(|message| !message.needs_settlement()));
        if messages.iter().any(|message| message.delivery.is_last_attempt()) {
            return self.dispatch_to_end(work).await;
        }
        let mut handling = pin!(self.dispatch_to_end(work));
        // Many handlers never wait; an abort can reach only those that do.
        if poll_fn(|context| Poll::Ready(handling.as_mut().poll(context))).await.is_ready() {
            return;
        }
        if until_aborting(&self.stages.phase, handling).await.is_none() {
            self.dropped.count(count, is_lost);
        }
    }

    async fn dispatch_to_end(&self, work: Work) {
        match work {
            Work::Single(received) => self.dispatch_single(received).await,
            // Boxed, so that single messages do not carry the room for it.
            Work::Batch(received) => Box::pin(self.dispatch_batch(received)).await,
        }
    }

    async fn dispatch_single(&self, mut received: Received) {
        loop {
            if received.is_withdrawn() {
                return;
            }
            let handled = self.stages.attempt(std::slice::from_ref(&received), &received.delivery).await;
            let Some(delay) = self.next_attempt(&mut received, 0, &handled) else {
                return self.end(&mut received, 0, &handled).await;
            };
            // Boxed, as the rare one of the two ways on.
            let Some(again) = Box::pin(self.pause(vec![received], delay)).await.pop() else { return };
            received = again;
        }
    }

    async fn dispatch_batch(&self, mut received: Vec<Received>) {
        loop {
            received.retain(|message| !message.is_withdrawn());
            if received.is_empty() {
                return;
            }
            let messages = received.iter().map(|received| self.stages.equip(received.delivery.clone()));
            let asked = Delivery::batch(messages.collect());
            let handled = self.stages.attempt(&received, &asked).await;
            let mut again = Vec::new();
            let mut longest = Duration::ZERO;
            for (index, mut message) in received.into_iter().enumerate() {
                match self.next_attempt(&mut message, index, &handled) {
                    None => self.end(&mut message, index, &handled).await,
                    Some(delay) => {
                        longest = longest.max(delay);
                        again.push(message);
                    }
                }
            }
            received = if again.is_empty() { again } else { self.pause(again, longest).await };
        }
    }

    /// Tells the broker what becomes of a message that is not handled again here.
    async fn end(&self, message: &mut Received, index: usize, handled: &Handled) {
        let outcome = handled.outcome_of(index);
        if outcome.extension::<Interrupted>().is_some() {
            return report_interrupted(message, self.stages.group());
        }
        let is_rejected = matches!(handled.outcome.settlement_of(index), Settlement::Reject { .. });
        if self.stops_if_unpublishable && is_rejected && outcome.extension::<Unpublishable>().is_some() {
            return self.alarm.stop(&message.delivery);
        }
        let settlement = handled.outcome.settlement_of(index);
        let settling = settle_one(message, outcome, settlement, handled.settler.as_ref(), self.stages.group());
        if AssertUnwindSafe(settling).catch_unwind().await.is_err() {
            error!(
                destination = message.delivery.destination(),
                "settling a message panicked; the broker was not told"
            );
        }
    }

    /// Waits before messages are handled again here, and returns those that are. One that another member gets is given up at once, so
    /// that nobody waits for it; and when the app ends, those that the broker delivers again.
    async fn pause(&self, mut received: Vec<Received>, delay: Duration) -> Vec<Received> {
        let due = later(delay);
        while !received.is_empty() {
            let patience = self.stages.patience(&received);
            let left = due.saturating_duration_since(Instant::now());
            let waited = with_heartbeats(&received, pin!(patience.wait(left))).await;
            if waited {
                break;
            }
            let is_running = self.stages.phase.borrow().is_running();
            received.retain(|message| !message.is_withdrawn() && (is_running || is_final(message)));
            if self.stages.phase.borrow().is_aborting() {
                received.clear();
            }
        }
        received
    }

    /// Counts the next attempt of a message that is to be handled again here, and returns how long to wait before it; `None` where
    /// the message is to be settled.
    fn next_attempt(&self, message: &mut Received, index: usize, handled: &Handled) -> Option<Duration> {
        let Settlement::Retry { after } = handled.outcome.settlement_of(index) else { return None };
        if self.redelivers || handled.outcome_of(index).extension::<Interrupted>().is_some() {
            return None;
        }
        message.delivery.count_attempt();
        if let Some(settler) = &handled.settler {
            settler.consumer.count_settlement("retry", &Incoming::from_delivery(&message.delivery));
        }
        Some(after.unwrap_or_default())
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

fn report_interrupted(message: &Received, group: &str) {
    let delivery = &message.delivery;
    let (destination, attempt) = (delivery.destination(), delivery.attempt());
    let position = delivery.position().unwrap_or_default();
    if is_final(message) {
        error!(
            destination,
            group,
            attempt,
            position,
            "a message was not published before the app ended, and the broker delivers it no more"
        );
    } else {
        warn!(
            destination,
            group,
            attempt,
            position,
            "a message was not published before it was given up here; the broker delivers it again"
        );
    }
}
