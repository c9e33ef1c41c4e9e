use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a panic of another holder is its own affair, the data is never left half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
