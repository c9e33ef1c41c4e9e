use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;

use super::batching::Work;
use super::dispatch::Dispatcher;
use super::worker::Phase;
use crate::broker::Received;

/// Handles the messages of each lane one after the other, and those of different lanes at the same time.
pub(super) struct Lanes {
    by_number: HashMap<u32, Arc<Lane>>,
    /// How many lanes handle a message at the same time.
    permits: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
}

/// The messages of one lane that wait, and whether a task handles them.
#[derive(Default)]
struct Lane {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Received>,
    is_running: bool,
}

impl Lanes {
    pub(super) fn new(most: usize, phase: watch::Receiver<Phase>) -> Self {
        let permits = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { by_number: HashMap::new(), permits, phase }
    }

    /// Adds a message to the end of its lane and starts the lane's task where none runs.
    pub(super) fn push(
        &mut self,
        number: u32,
        received: Received,
        dispatcher: &Arc<Dispatcher>,
        tasks: &mut JoinSet<()>,
    ) {
        let lane = self.by_number.entry(number).or_default();
        if lane.push(received) {
            let (lane, dispatcher, permits) = (Arc::clone(lane), Arc::clone(dispatcher), Arc::clone(&self.permits));
            let phase = self.phase.clone();
            tasks.spawn(async move { lane.run(&dispatcher, &permits, &phase).await });
        }
    }

    /// Gives up the messages that wait; those that are being handled go on.
    pub(super) fn give_back(&self) {
        for lane in self.by_number.values() {
            drop(lane.take_waiting());
        }
    }
}

impl Lane {
    /// Returns whether a task has to be started for it.
    fn push(&self, received: Received) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.push_back(received);
        !std::mem::replace(&mut state.is_running, true)
    }

    /// The next message; without one the task has ended.
    fn pop(&self) -> Option<Received> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.waiting.pop_front();
        state.is_running = next.is_some();
        next
    }

    fn take_waiting(&self) -> VecDeque<Received> {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting)
    }

    async fn run(&self, dispatcher: &Dispatcher, permits: &Semaphore, phase: &watch::Receiver<Phase>) {
        let _running = Running(self);
        while let Some(received) = self.pop() {
            // Never closed.
            let _permit = permits.acquire().await;
            // No handler begins once the app is ending: what waits is given up.
            if *phase.borrow() != Phase::Running {
                continue;
            }
            dispatcher.dispatch(Work::Single(received)).await;
            // A lane that is never empty must not keep this thread from everybody else.
            consume_budget().await;
        }
    }
}

/// Lets the next message start another task where this one panicked.
struct Running<'a>(&'a Lane);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_running = false;
        }
    }
}
