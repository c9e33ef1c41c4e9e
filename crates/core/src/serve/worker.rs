use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::batching::Batcher;
use super::dispatch::Dispatcher;
use crate::broker::{BatchPolicy, BrokerError, Received, Subscriber};

/// How far an app is on its way to the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Messages are taken.
    Running,
    /// No more messages are taken, handlers finish.
    Draining,
    /// Handlers are dropped.
    Aborting,
}

/// The receive loop of one subscription.
pub(super) struct Worker {
    subscriber: Box<dyn Subscriber>,
    dispatcher: Arc<Dispatcher>,
    batcher: Batcher,
    phase: watch::Receiver<Phase>,
    running: JoinSet<()>,
}

impl Worker {
    pub(super) fn new(
        subscriber: Box<dyn Subscriber>,
        dispatcher: Dispatcher,
        batch: Option<BatchPolicy>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let (dispatcher, batcher) = (Arc::new(dispatcher), Batcher::new(batch));
        Self { subscriber, dispatcher, batcher, phase, running: JoinSet::new() }
    }

    pub(super) async fn run(mut self) -> Result<(), BrokerError> {
        let result = self.take_messages().await;
        self.subscriber.close().await;
        self.handle_the_rest().await;
        self.finish().await;
        result
    }

    /// Handles what is taken already: a batch that was being collected, and messages that cannot be given back.
    async fn handle_the_rest(&mut self) {
        while let Some(received) = self.subscriber.drain().await {
            if let Some(full) = self.batcher.push(received) {
                wait_for_room(&mut self.running, self.dispatcher.concurrency()).await;
                self.dispatch(full).await;
            }
            if *self.phase.borrow() == Phase::Aborting {
                return;
            }
        }
        let rest = self.batcher.take();
        if !rest.is_empty() {
            self.dispatch(rest).await;
        }
    }

    async fn take_messages(&mut self) -> Result<(), BrokerError> {
        loop {
            let mut phase = self.phase.clone();
            tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase != Phase::Running) => return Ok(()),
                () = wait_for_room(&mut self.running, self.dispatcher.concurrency()) => {}
            }
            let received = tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase != Phase::Running) => return Ok(()),
                received = self.dispatcher.received(self.batcher.is_batch(), self.batcher.next(&mut *self.subscriber)) => received?,
            };
            self.dispatch(received).await;
        }
    }

    /// Handles in this task where one message at a time is allowed, else in a task of its own.
    async fn dispatch(&mut self, received: Vec<Received>) {
        let is_batch = self.batcher.is_batch();
        if self.dispatcher.concurrency() > 1 {
            let dispatcher = Arc::clone(&self.dispatcher);
            self.running.spawn(async move { dispatcher.dispatch(received, is_batch).await });
            return;
        }
        let mut phase = self.phase.clone();
        tokio::select! {
            biased;
            () = self.dispatcher.dispatch(received, is_batch) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Aborting) => {}
        }
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

async fn wait_for_room(running: &mut JoinSet<()>, most: usize) {
    while running.try_join_next().is_some() {}
    while running.len() >= most && running.join_next().await.is_some() {}
}
