use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;

/// More than any round takes.
const PATIENCE: Duration = Duration::from_secs(60);

static HANDLED: AtomicUsize = AtomicUsize::new(0);
static GOAL: AtomicUsize = AtomicUsize::new(0);
static FIRST: Mutex<Option<Instant>> = Mutex::new(None);
static LAST: Notify = Notify::const_new();

/// Begins a round.
pub(super) fn begin(messages: usize) {
    HANDLED.store(0, Ordering::SeqCst);
    GOAL.store(messages, Ordering::SeqCst);
    *FIRST.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// What each of the four programs does with a message.
pub(super) async fn handle(body: Bytes) {
    std::hint::black_box(&body);
    let handled = HANDLED.fetch_add(1, Ordering::Relaxed) + 1;
    if handled == 1 {
        *FIRST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
    if handled == GOAL.load(Ordering::Relaxed) {
        LAST.notify_one();
    }
}

/// Waits for the last message and returns how many were handled in a second, counted from the first on.
#[allow(clippy::cast_precision_loss)] // there are far fewer than 2^52
pub(super) async fn rate() -> Result<f64, String> {
    let goal = GOAL.load(Ordering::Relaxed);
    timeout(PATIENCE, LAST.notified())
        .await
        .map_err(|_| format!("{} of {goal} messages came", HANDLED.load(Ordering::Relaxed)))?;
    let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(Instant::now);
    Ok((goal - 1) as f64 / first.elapsed().as_secs_f64())
}
