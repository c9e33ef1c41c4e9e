//! Counts what the programs on a real server handle, from the first message on.

use std::hint::black_box;
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
/// When the first message, or the first batch, was handled, and how many messages that were.
static FIRST: Mutex<Option<(Instant, usize)>> = Mutex::new(None);
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
        *FIRST.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), messages));
    }
    let goal = GOAL.load(Ordering::Relaxed);
    if before < goal && before + messages >= goal {
        LAST.notify_one();
    }
}

/// Waits for the last message and returns how many were handled in a second, counted from the first on.
#[allow(clippy::cast_precision_loss)] // there are far fewer than 2^52
pub(crate) async fn rate() -> Result<f64, String> {
    let goal = GOAL.load(Ordering::Relaxed);
    timeout(PATIENCE, LAST.notified())
        .await
        .map_err(|_| format!("{} of {goal} messages came", HANDLED.load(Ordering::Relaxed)))?;
    let first = *FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    let (begun, messages) = first.unwrap_or_else(|| (Instant::now(), 0));
    Ok((goal - messages) as f64 / begun.elapsed().as_secs_f64())
}
