use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;

use super::batching::{Batcher, Work};
use super::dispatch::{Dispatcher, record_received};
use super::lanes::Lanes;
use super::phase::Phase;
use crate::broker::{BatchPolicy, BrokerError, Received, Subscriber};

/// The receive loop of one subscription.
pub(super) struct Worker {
    subscriber: Box<dyn Subscriber>,
    dispatcher: Arc<Dispatcher>,
    batcher: Batcher,
    phase: watch::Receiver<Phase>,
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
    ) -> Self {
        let (dispatcher, batcher) = (Arc::new(dispatcher), Batcher::new(batch));
        Self { subscriber, dispatcher, batcher, phase, running: JoinSet::new(), lanes: None }
    }

    pub(super) async fn run(mut self) -> Result<(), BrokerError> {
        let result = self.take_messages().await;
        if let Some(lanes) = &mut self.lanes {
            lanes.give_back();
        }
        self.subscriber.close().await;
        self.handle_the_rest().await;
        self.finish().await;
        let finished = self.subscriber.finish().await;
        result.and(finished)
    }

    /// Handles what is taken already: a batch that was being collected, and messages that cannot be given back.
    async fn handle_the_rest(&mut self) {
        while let Some(received) = self.subscriber.drain().await {
            if let Some(full) = self.batcher.push(received) {
                if self.lanes.is_none() {
                    wait_for_room(&mut self.running, self.dispatcher.concurrency()).await;
                }
                self.dispatch(full).await;
            }
            if *self.phase.borrow() == Phase::Aborting {
                return;
            }
        }
        if let Some(rest) = self.batcher.take() {
            self.dispatch(rest).await;
        }
    }

    async fn take_messages(&mut self) -> Result<(), BrokerError> {
        let mut phase = self.phase.clone();
        let mut stopping = pin!(phase.wait_for(|phase| *phase != Phase::Running));
        // Whether the end has come is asked in one step; a future waits for it only where this task waits as well.
        while matches!(self.phase.has_changed(), Ok(false)) {
            if self.lanes.is_some() {
                // A lane that is slow holds up no other one: the adapter bounds what it hands out.
                reap(&mut self.running);
            } else if !self.running.is_empty() {
                tokio::select! {
                    biased;
                    _ = &mut stopping => return Ok(()),
                    () = wait_for_room(&mut self.running, self.dispatcher.concurrency()) => {}
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
            if let Some(receiving) = receiving {
                record_received(receiving, &work);
            }
            self.dispatch(work).await;
            // A queue that is never empty must not keep this thread from everybody else.
            consume_budget().await;
        }
        Ok(())
    }

    /// Handles in this task where one message at a time is allowed, else in its lane or in a task of its own.
    async fn dispatch(&mut self, work: Work) {
        let work = match (self.lane_of(&work), work) {
            (Some(lane), Work::Single(received)) => return self.follow_lane(lane, received),
            (_, work) => work,
        };
        if self.dispatcher.concurrency() > 1 && self.lanes.is_none() {
            let dispatcher = Arc::clone(&self.dispatcher);
            self.running.spawn(async move { dispatcher.dispatch(work).await });
            return;
        }
        let mut handling = pin!(self.dispatcher.dispatch(work));
        // Many handlers never wait; an abort can reach only those that do.
        if poll_fn(|context| Poll::Ready(handling.as_mut().poll(context))).await.is_ready() {
            return;
        }
        let mut phase = self.phase.clone();
        tokio::select! {
            biased;
            () = handling => {}
            _ = phase.wait_for(|phase| *phase == Phase::Aborting) => {}
        }
    }

    /// Where lanes are followed: not at the end, when what cannot be given back is handled in its order.
    fn lane_of(&self, work: &Work) -> Option<u32> {
        let Work::Single(received) = work else { return None };
        received.lane().filter(|_| self.dispatcher.concurrency() > 1 && *self.phase.borrow() == Phase::Running)
    }

    fn follow_lane(&mut self, number: u32, received: Received) {
        let lanes = self.lanes.get_or_insert_with(|| Lanes::new(self.dispatcher.concurrency(), self.phase.clone()));
        lanes.push(number, received, &self.dispatcher, &mut self.running);
    }

    async fn finish(&mut self) {
        let mut phase = self.phase.clone();
        loop {
            tokio::select! {
                biased;
                ended = self.running.join_next() => if ended.is_none() { return },
                _ = phase.wait_for(|phase| *phase == Phase::Aborting), if *self.phase.borrow() != Phase::Aborting => {}
            }
            if *self.phase.borrow() == Phase::Aborting {
                self.running.shutdown().await;
                return;
            }
        }
    }
}

fn reap(running: &mut JoinSet<()>) {
    while running.try_join_next().is_some() {}
}

async fn wait_for_room(running: &mut JoinSet<()>, most: usize) {
    reap(running);
    while running.len() >= most && running.join_next().await.is_some() {}
}
