use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the last commit is tried where nobody says until when.
const COMMIT_WAIT: Duration = Duration::from_secs(10);

/// What the poll thread is to do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(super) enum Task {
    /// Hand messages out.
    Take,
    /// Only stay a member, until the handlers are done.
    Stay,
    /// Commit, leave and end.
    End,
}

/// The task as the thread sees it.
#[derive(Debug)]
pub(super) struct Orders {
    task: AtomicU8,
    deadline: Mutex<Option<Instant>>,
}

impl Orders {
    pub(super) const fn new() -> Self {
        Self { task: AtomicU8::new(Task::Take as u8), deadline: Mutex::new(None) }
    }

    pub(super) fn task(&self) -> Task {
        match self.task.load(Ordering::Acquire) {
            0 => Task::Take,
            1 => Task::Stay,
            _ => Task::End,
        }
    }

    pub(super) fn set(&self, task: Task) {
        self.task.fetch_max(task as u8, Ordering::AcqRel);
    }

    /// Orders the end, which nobody waits for after the deadline.
    pub(super) fn end_by(&self, deadline: Instant) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.set(Task::End);
    }

    /// Returns until when the last commit is tried.
    pub(super) fn deadline(&self) -> Instant {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.unwrap_or_else(|| Instant::now() + COMMIT_WAIT)
    }
}
