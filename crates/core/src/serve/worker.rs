use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

use super::alarm::Alarm;
use super::batching::Batcher;
use super::dispatch::{Dispatcher, record_received};
use super::health::Place;
use super::lanes::Lanes;
use super::patience::ends_here;
use super::phase::{Deadlines, Phase, until_aborting};
use super::work::Work;
use crate::broker::{BatchPolicy, BrokerError, BrokerErrorKind, Received, Subscriber};
use crate::log::SubscriptionLog;

/// The receive loop of one subscription.
pub(super) struct Worker {
    subscriber: Box<dyn Subscriber>,
    dispatcher: Arc<Dispatcher>,
    batcher: Batcher,
    phase: watch::Receiver<Phase>,
    alarm: Alarm,
    /// Where the health of the app shows when messages come.
    place: Option<Place>,
    /// How long the end of the app may take.
    limit: Duration,
    running: JoinSet<()>,
    /// From the first message of a lane on.
    lanes: Option<Lanes>,
}

impl Worker {
    pub(super) fn new(
        subscriber: Box<dyn Subscriber>,
        dispatcher: Dispatcher,
        batch: Option<BatchPolicy>,
        phase: watch::Receiver<Phase>,
        alarm: Alarm,
        limit: Duration,
        log: Arc<SubscriptionLog>,
    ) -> Self {
        let (dispatcher, batcher) = (Arc::new(dispatcher), Batcher::new(batch, log));
        Self { subscriber, dispatcher, batcher, phase, alarm, place: None, limit, running: JoinSet::new(), lanes: None }
    }

    /// Lets the health of the app show there when messages come.
    pub(super) fn shown_at(mut self, place: &Place) -> Self {
        self.place = Some(place.clone());
        self
    }

    /// Lets the subscriber begin to receive.
    pub(super) async fn begin(&mut self) -> Result<(), BrokerError> {
        self.subscriber.begin().await
    }

    /// Logs that the subscription is active.
    pub(super) fn report_start(&self) {
        let log = self.dispatcher.log();
        let (destination, group) = (log.destination(), log.group());
        // Where only the lanes bound it there is no number worth reading.
        let concurrency = Some(self.dispatcher.concurrency()).filter(|most| *most <= Semaphore::MAX_PERMITS);
        info!(destination, group, concurrency, "a subscription has started");
        self.dispatcher.dropped.begin();
    }

    pub(super) async fn run(mut self) -> Result<(), BrokerError> {
        let result = self.take_messages().await;
        if result.is_err() {
            self.alarm.ended();
        }
        if let Some(lanes) = &mut self.lanes {
            let left = lanes.give_back(&self.dispatcher, &mut self.running);
            self.dispatcher.dropped.note_left(left);
        }
        let deadlines = self.deadlines();
        until_aborting(&self.phase, self.subscriber.close(deadlines.handlers)).await;
        self.handle_the_rest().await;
        self.give_up_the_rest().await;
        self.finish_handlers().await;
        let deadlines = self.deadlines();
        let finished = match timeout_at(deadlines.commit, self.subscriber.finish(deadlines.commit)).await {
            Ok(finished) => finished,
            Err(_) => Err(not_finished(self.limit)),
        };
        self.dispatcher.dropped.report();
        result.and(finished)
    }

    /// Those of the app's end; where the subscription has ended alone, of an end that begins now.
    fn deadlines(&self) -> Deadlines {
        self.phase.borrow().deadlines().unwrap_or_else(|| Deadlines::of(self.limit))
    }

    /// Handles what is taken already: a batch that was being collected, and messages that cannot be given back. No handler begins once
    /// they are dropped.
    async fn handle_the_rest(&mut self) {
        while !self.phase.borrow().is_aborting()
            && let Some(Some(received)) = until_aborting(&self.phase, self.subscriber.drain()).await
        {
            if let Some(full) = self.batcher.push(received) {
                self.dispatch_the_rest(full).await;
            }
        }
        if let Some(rest) = self.batcher.take() {
            self.dispatch_the_rest(rest).await;
        }
    }

    async fn dispatch_the_rest(&mut self, work: Work) {
        if self.lanes.is_none() {
            let most = self.dispatcher.room();
            until_aborting(&self.phase, wait_for_room(&mut self.running, most)).await;
        }
        self.dispatch(work).await;
    }

    /// Counts what the subscriber still holds after an abort. What the broker does not deliver again gets to its end without its handler.
    async fn give_up_the_rest(&mut self) {
        while self.phase.borrow().is_aborting() {
            // What is not here at once does not come any more.
            let Some(Some(received)) = self.subscriber.drain().now_or_never() else { break };
            if !ends_here(&received) {
                self.dispatcher.dropped.count(1, !received.needs_settlement());
            } else if let Some(work) = self.batcher.push(received) {
                self.dispatch(work).await;
            }
        }
        if let Some(rest) = self.batcher.take() {
            self.dispatch(rest).await;
        }
    }

    async fn take_messages(&mut self) -> Result<(), BrokerError> {
        let mut phase = self.phase.clone();
        let mut stopping = pin!(phase.wait_for(|phase| !phase.is_running()));
        // Whether the end has come is asked in one step; a future waits for it only where this task waits as well.
        while matches!(self.phase.has_changed(), Ok(false)) {
            if self.lanes.is_some() {
                // A lane that is slow holds up no other one: the adapter bounds what it hands out.
                reap(&mut self.running);
            } else if !self.running.is_empty() {
                tokio::select! {
                    biased;
                    _ = &mut stopping => return Ok(()),
                    () = wait_for_room(&mut self.running, self.dispatcher.room()) => {}
                }
            }
            let receiving = self.dispatcher.receiving();
            let work = match self.batcher.try_next(&mut *self.subscriber) {
                Some(work) => work?,
                None => {
                    // Before this task waits.
                    if let Some(lanes) = &mut self.lanes {
                        lanes.flush(&self.dispatcher, &mut self.running);
                    }
                    tokio::select! {
                        biased;
                        _ = &mut stopping => return Ok(()),
                        work = self.batcher.next(&mut *self.subscriber) => work?,
                    }
                }
            };
            if let Some(place) = &self.place {
                place.received();
            }
            if let Some(receiving) = receiving {
                record_received(receiving, &work);
            }
            self.dispatch_in_order(work).await;
            // A queue that is never empty must not keep this thread from everybody else.
            consume_budget().await;
        }
        Ok(())
    }

    /// Handles a message in its lane, if it has one, else as [`dispatch`](Self::dispatch) does. That the end has come meanwhile changes
    /// nothing: the message would overtake those that wait in its lane, and is given up with them.
    async fn dispatch_in_order(&mut self, work: Work) {
        match (self.lane_of(&work), work) {
            (Some(lane), Work::Single(received)) => self.follow_lane(lane, received),
            (_, work) => self.dispatch(work).await,
        }
    }

    /// Handles in this task what is handled one after the other, else in a task of its own.
    async fn dispatch(&mut self, work: Work) {
        if self.lanes.is_none() && self.dispatcher.has_own_task(&work) {
            let dispatcher = Arc::clone(&self.dispatcher);
            self.running.spawn(self.alarm.clone().guard(async move { dispatcher.dispatch(work).await }));
            return;
        }
        self.dispatcher.dispatch(work).await;
    }

    /// The lane of a single message, where several are handled at a time.
    fn lane_of(&self, work: &Work) -> Option<u32> {
        let Work::Single(received) = work else { return None };
        received.lane().filter(|_| self.dispatcher.concurrency() > 1)
    }

    fn follow_lane(&mut self, number: u32, received: Received) {
        let lanes = self
            .lanes
            .get_or_insert_with(|| Lanes::new(self.dispatcher.concurrency(), self.phase.clone(), self.alarm.clone()));
        lanes.push(number, received, &self.dispatcher, &mut self.running);
    }

    /// Waits for the handlers. They end by themselves when the app drops them; one that never lets go of its thread is left behind.
    async fn finish_handlers(&mut self) {
        loop {
            // With the phase the deadline comes, or an earlier one.
            let deadline = self.deadlines().commit;
            let mut phase = self.phase.clone();
            phase.mark_unchanged();
            tokio::select! {
                biased;
                ended = self.running.join_next() => if ended.is_none() { return },
                _ = phase.changed() => {}
                () = tokio::time::sleep_until(deadline), if deadline <= Instant::now() || phase.borrow().is_aborting() => {
                    let handlers = self.running.len();
                    error!(handlers, "handlers do not end although they were dropped: they block their threads");
                    self.running.abort_all();
                    return;
                }
            }
        }
    }
}

impl Drop for Worker {
    /// What is collected for a batch, where the subscription does not come to its end.
    fn drop(&mut self) {
        let collected = self.batcher.take();
        for message in collected.iter().flat_map(Work::messages) {
            self.dispatcher.dropped.count(1, !message.needs_settlement());
        }
    }
}

fn not_finished(limit: Duration) -> BrokerError {
    let message = format!(
        "the broker was not told of the last settlements within the {limit:?} of the shutdown: their messages come again; look \
         whether the broker can be reached, or raise `shutdown_timeout`"
    );
    BrokerError::new(BrokerErrorKind::Timeout, "timeout", message)
}

fn reap(running: &mut JoinSet<()>) {
    while running.try_join_next().is_some() {}
}

async fn wait_for_room(running: &mut JoinSet<()>, most: usize) {
    reap(running);
    while running.len() >= most && running.join_next().await.is_some() {}
}
