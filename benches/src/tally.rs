//! Counts what the programs on a real server handle, from the first message on.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::stopwatch::{Round, Stopwatch};

/// More than any round takes.
const PATIENCE: Duration = Duration::from_secs(60);

static HANDLED: AtomicUsize = AtomicUsize::new(0);
static GOAL: AtomicUsize = AtomicUsize::new(0);
/// When the first message, or the first batch, was handled, and how many messages that were.
static FIRST: Mutex<Option<(Stopwatch, usize)>> = Mutex::new(None);
static LAST: Notify = Notify::const_new();

/// Begins a round.
pub(crate) fn begin(messages: usize) {
    HANDLED.store(0, Ordering::SeqCst);
    GOAL.store(messages, Ordering::SeqCst);
    *FIRST.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// What each program does with a message.
pub(crate) async fn handle(body: Bytes) {
    handle_slice(&body).await;
}

/// Does the same where the client lends the body.
pub(crate) async fn handle_slice(body: &[u8]) {
    black_box(body);
    count(1);
}

/// Counts messages that are handled.
pub(crate) fn count(messages: usize) {
    let before = HANDLED.fetch_add(messages, Ordering::Relaxed);
    if before == 0 {
        *FIRST.lock().unwrap_or_else(PoisonError::into_inner) = Some((Stopwatch::start(), messages));
    }
    let goal = GOAL.load(Ordering::Relaxed);
    if before < goal && before + messages >= goal {
        LAST.notify_one();
    }
}

/// Waits for the last message and returns what they took, counted from the first on.
pub(crate) async fn round() -> Result<Round, String> {
    let goal = GOAL.load(Ordering::Relaxed);
    timeout(PATIENCE, LAST.notified())
        .await
        .map_err(|_| format!("{} of {goal} messages came", HANDLED.load(Ordering::Relaxed)))?;
    let first = *FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    let (watch, messages) = first.unwrap_or_else(|| (Stopwatch::start(), 0));
    Ok(watch.stop(goal - messages))
}
