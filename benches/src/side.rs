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
pub(crate) async fn reached(total: usize) {
    while HANDLED.get() < total {
        yield_now().await;
    }
}

#[allow(clippy::expect_used)] // a benchmark without a runtime measures nothing
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime of one thread starts")
}
