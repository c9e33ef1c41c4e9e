use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks also after another test thread panicked: what it captured is still worth reading.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
