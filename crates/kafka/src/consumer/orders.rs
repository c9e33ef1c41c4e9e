use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
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
    most_held: AtomicUsize,
}

impl Orders {
    pub(super) const fn new(most_held: usize) -> Self {
        let most_held = AtomicUsize::new(most_held);
        Self { task: AtomicU8::new(Task::Take as u8), deadline: Mutex::new(None), most_held }
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

    /// Orders how many messages of one partition are held at most.
    pub(super) fn hold(&self, most: usize) {
        self.most_held.store(most, Ordering::Relaxed);
    }

    /// Returns how many messages of one partition are held at most.
    pub(super) fn most_held(&self) -> usize {
        self.most_held.load(Ordering::Relaxed)
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
