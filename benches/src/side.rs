//! One side of a comparison, ready to be measured.

use std::cell::Cell;
use std::hint::black_box;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// Publishes messages and lets them all be handled, on a runtime of one thread.
pub trait Side {
    /// Publishes `messages` and returns when the last of them is handled.
    fn run(&mut self, messages: usize);

    /// Exports what is waiting, so that the next round finds an empty queue. Not timed.
    fn flush(&mut self);
}

/// So often everything else had its turn without handling a message.
const IDLE_TURNS: usize = 10_000;

thread_local! {
    // Of this thread, as is everything a side runs.
    static HANDLED: Cell<usize> = const { Cell::new(0) };
}

/// What every handler does with a body.
pub(crate) fn handled(body: &Bytes) {
    black_box(body);
    count(1);
}

pub(crate) fn count(messages: usize) {
    HANDLED.set(HANDLED.get() + messages);
}

pub(crate) fn total() -> usize {
    HANDLED.get()
}

/// Waits until so many messages in all are handled.
///
/// # Panics
///
/// When no message is handled any more: a handler's task has ended.
pub(crate) async fn reached(total: usize) {
    let (mut idle, mut before) = (0, 0);
    while HANDLED.get() < total {
        yield_now().await;
        idle = if HANDLED.get() == before { idle + 1 } else { 0 };
        before = HANDLED.get();
        assert!(idle < IDLE_TURNS, "{} of {total} messages are handled, and no more come", HANDLED.get());
    }
}

#[allow(clippy::expect_used)] // a benchmark without a runtime measures nothing
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime of one thread starts")
}
