use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;

use super::alarm::Alarm;
use super::dispatch::Dispatcher;
use super::phase::Phase;
use super::work::Work;
use crate::broker::Received;

/// How many messages are collected before they are added to their lanes, if so many are here: what is added one by one wakes up a task
/// for each.
const COLLECTED: usize = 64;

/// Handles the messages of each lane one after the other, and those of different lanes at the same time.
pub(super) struct Lanes {
    by_number: HashMap<u32, Entrance>,
    /// The lanes with messages that are collected.
    collecting: Vec<u32>,
    collected: usize,
    /// How many lanes handle a message at the same time; `None` where nobody bounds it.
    permits: Option<Arc<Semaphore>>,
    phase: watch::Receiver<Phase>,
    alarm: Alarm,
}

/// A lane, and the messages that are collected for it.
#[derive(Default)]
struct Entrance {
    lane: Arc<Lane>,
    collected: VecDeque<Received>,
}

/// The messages of one lane that wait, and the task that handles them.
///
/// The task stays from the first message to the end of the subscription: one that is made for each burst of messages costs more than
/// some of them.
#[derive(Default)]
struct Lane {
    state: Mutex<State>,
    /// Wakes the task that has handled all there was.
    arrived: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Received>,
    is_running: bool,
    /// Whether the task ends when nothing waits.
    is_ending: bool,
}

/// What the task of a lane does next.
enum Next {
    Handle(Received),
    Wait,
    End,
}

impl Lanes {
    pub(super) fn new(most: usize, phase: watch::Receiver<Phase>, alarm: Alarm) -> Self {
        let permits = (most <= Semaphore::MAX_PERMITS).then(|| Arc::new(Semaphore::new(most)));
        Self { by_number: HashMap::new(), collecting: Vec::new(), collected: 0, permits, phase, alarm }
    }

    /// Takes a message for the end of its lane. It is there at the latest with the next [`flush`](Self::flush).
    pub(super) fn push(
        &mut self,
        number: u32,
        received: Received,
        dispatcher: &Arc<Dispatcher>,
        tasks: &mut JoinSet<()>,
    ) {
        let entrance = self.by_number.entry(number).or_default();
        if entrance.collected.is_empty() {
            self.collecting.push(number);
        }
        entrance.collected.push_back(received);
        self.collected += 1;
        if self.collected >= COLLECTED {
            self.flush(dispatcher, tasks);
        }
    }

    /// Adds what is collected to its lanes, and starts the task of a lane where none runs.
    pub(super) fn flush(&mut self, dispatcher: &Arc<Dispatcher>, tasks: &mut JoinSet<()>) {
        self.collected = 0;
        for number in self.collecting.drain(..) {
            let Some(Entrance { lane, collected }) = self.by_number.get_mut(&number) else { continue };
            if lane.append(collected) {
                let (lane, dispatcher, permits) = (Arc::clone(lane), Arc::clone(dispatcher), self.permits.clone());
                let phase = self.phase.clone();
                let running = async move { lane.run(&dispatcher, permits.as_deref(), &phase).await };
                tasks.spawn(self.alarm.clone().guard(running));
            }
        }
    }

    /// Gives up the messages that wait, and returns how many; those that are being handled go on, and so do those that the broker delivers
    /// no more. With them the lanes end.
    pub(super) fn give_back(&mut self, dispatcher: &Arc<Dispatcher>, tasks: &mut JoinSet<()>) -> usize {
        let mut given_up = 0;
        let mut keep_last = |messages: &mut VecDeque<Received>| {
            let before = messages.len();
            messages.retain(is_last);
            given_up += before - messages.len();
        };
        for Entrance { lane, collected } in self.by_number.values_mut() {
            keep_last(&mut lane.lock().waiting);
            keep_last(collected);
        }
        self.flush(dispatcher, tasks);
        for Entrance { lane, .. } in self.by_number.values() {
            lane.end();
        }
        given_up
    }
}

impl Lane {
    /// Returns whether a task has to be started for it.
    fn append(&self, collected: &mut VecDeque<Received>) -> bool {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            std::mem::swap(&mut state.waiting, collected);
        } else {
            state.waiting.append(collected);
        }
        let is_running = std::mem::replace(&mut state.is_running, true);
        drop(state);
        if is_running {
            self.arrived.notify_one();
        }
        !is_running
    }

    fn next(&self) -> Next {
        let mut state = self.lock();
        match state.waiting.pop_front() {
            Some(received) => Next::Handle(received),
            None if state.is_ending => {
                state.is_running = false;
                Next::End
            }
            None => Next::Wait,
        }
    }

    fn end(&self) {
        self.lock().is_ending = true;
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, dispatcher: &Dispatcher, permits: Option<&Semaphore>, phase: &watch::Receiver<Phase>) {
        let _reset = LaneReset(self);
        loop {
            let received = match self.next() {
                Next::Handle(received) => received,
                Next::Wait => {
                    self.arrived.notified().await;
                    continue;
                }
                Next::End => return,
            };
            let _permit = match permits {
                // Never closed.
                Some(permits) => permits.acquire().await.ok(),
                None => None,
            };
            // No handler begins once the app is ending: what waits is given up.
            if !phase.borrow().is_running() && !is_last(&received) {
                continue;
            }
            dispatcher.dispatch(Work::Single(received)).await;
            // A lane that is never empty must not keep this thread from everybody else.
            consume_budget().await;
        }
    }
}

fn is_last(message: &Received) -> bool {
    message.delivery.is_last_attempt()
}

/// Lets the next message start another task where this one panicked.
struct LaneReset<'a>(&'a Lane);

impl Drop for LaneReset<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().is_running = false;
        }
    }
}
