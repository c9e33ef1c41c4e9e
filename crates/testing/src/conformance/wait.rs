//! Waiting for conditions, never for a time.

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// How long a case waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// How long a whole case may take.
const CASE: Duration = Duration::from_secs(120);

/// Runs one case and fails it when it hangs.
#[doc(hidden)]
pub async fn case<F: Future<Output = ()>>(name: &str, case: F) {
    assert!(timeout(CASE, case).await.is_ok(), "the case {name} did not end within {CASE:?}");
}

/// Waits for something that is to happen soon.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Looks again until `look` finds nothing wrong; returns what is still wrong after a short while.
///
/// It is for what becomes true right after an event that can be waited for, such as a measurement after its span.
pub(crate) async fn settled(mut look: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match look() {
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
            result => return result,
        }
    }
}

/// What handlers saw, in order. Clones share it.
pub(crate) struct Seen<T>(Arc<(Mutex<Vec<T>>, Notify)>);

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Debug for Seen<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}

impl<T: Clone + Debug> Seen<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new((Mutex::new(Vec::new()), Notify::new())))
    }

    pub(crate) fn add(&self, item: T) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).push(item);
        self.0.1.notify_waiters();
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until at least so many are there.
    pub(crate) async fn count(&self, count: usize) -> Vec<T> {
        self.until(&format!("{count} of them"), |items| items.len() >= count).await
    }

    pub(crate) async fn until(&self, what: &str, ready: impl Fn(&[T]) -> bool) -> Vec<T> {
        let wait = async {
            loop {
                let mut changed = std::pin::pin!(self.0.1.notified());
                changed.as_mut().enable();
                let items = self.all();
                if ready(&items) {
                    return items;
                }
                changed.await;
            }
        };
        match timeout(PATIENCE, wait).await {
            Ok(items) => items,
            Err(_) => panic!("waited {PATIENCE:?} for {what}; seen were {:?}", self.all()),
        }
    }
}

/// Holds handlers until the test lets them go on. Clones are one gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets everyone pass, from now on.
    pub(crate) fn open(&self) {
        self.0.close();
    }

    pub(crate) async fn pass(&self) {
        // Closing the semaphore is what opens the gate.
        let _ = self.0.acquire().await;
    }
}
