use std::future::{Future, poll_fn};
use std::panic::panic_any;
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

/// Waits for something, for no longer than a span of real time; `None` where that is over.
///
/// The clock of the runtime may be paused. It jumps to the next timer then, and a timer of this wait could be the next one while the app
/// waits for a later one. So there is no such timer.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    // What is there already needs no thread.
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
        return Some(done);
    }
    let (_stop, over) = alarm(limit);
    tokio::select! {
        biased;
        done = work => Some(done),
        _ = over => None,
    }
}

/// Returns what stops the alarm when it is dropped, and what ends when the time is over.
fn alarm(limit: Duration) -> (mpsc::Sender<()>, oneshot::Receiver<()>) {
    let (stop, stopped) = mpsc::channel::<()>();
    let (sender, over) = oneshot::channel();
    let wait = move || {
        if stopped.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Nobody waits any more otherwise.
            let _ = sender.send(());
        }
    };
    if let Err(error) = thread::Builder::new().name("patience".to_owned()).spawn(wait) {
        panic_any(format!("the test cannot measure how long it waits: {error}"));
    }
    (stop, over)
}
