use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;

use super::batching::Work;
use super::dispatch::Dispatcher;
use super::phase::Phase;
use crate::broker::Received;

/// Handles the messages of each lane one after the other, and those of different lanes at the same time.
pub(super) struct Lanes {
    by_number: HashMap<u32, Arc<Lane>>,
    /// The lane of the last message: brokers hand out runs of them.
    last: Option<(u32, Arc<Lane>)>,
    /// How many lanes handle a message at the same time; `None` where nobody bounds it.
    permits: Option<Arc<Semaphore>>,
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
        let permits = (most <= Semaphore::MAX_PERMITS).then(|| Arc::new(Semaphore::new(most)));
        Self { by_number: HashMap::new(), last: None, permits, phase }
    }

    /// Adds a message to the end of its lane and starts the lane's task where none runs.
    pub(super) fn push(
        &mut self,
        number: u32,
        received: Received,
        dispatcher: &Arc<Dispatcher>,
        tasks: &mut JoinSet<()>,
    ) {
        let lane = self.lane(number);
        if lane.push(received) {
            let (lane, dispatcher, permits) = (Arc::clone(lane), Arc::clone(dispatcher), self.permits.clone());
            let phase = self.phase.clone();
            tasks.spawn(async move { lane.run(&dispatcher, permits.as_deref(), &phase).await });
        }
    }

    fn lane(&mut self, number: u32) -> &Arc<Lane> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
            self.last = None;
        }
        let (_, lane) =
            self.last.get_or_insert_with(|| (number, Arc::clone(self.by_number.entry(number).or_default())));
        lane
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

    async fn run(&self, dispatcher: &Dispatcher, permits: Option<&Semaphore>, phase: &watch::Receiver<Phase>) {
        let _running = Running(self);
        while let Some(received) = self.pop() {
            let _permit = match permits {
                // Never closed.
                Some(permits) => permits.acquire().await.ok(),
                None => None,
            };
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
