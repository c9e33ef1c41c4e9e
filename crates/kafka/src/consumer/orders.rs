use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How long the last commit and the leave may take.
pub(super) const FINISH_WAIT: Duration = Duration::from_secs(10);

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
pub(super) struct Orders(AtomicU8);

impl Orders {
    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(Task::Take as u8))
    }

    pub(super) fn task(&self) -> Task {
        match self.0.load(Ordering::Acquire) {
            0 => Task::Take,
            1 => Task::Stay,
            _ => Task::End,
        }
    }

    pub(super) fn set(&self, task: Task) {
        self.0.fetch_max(task as u8, Ordering::AcqRel);
    }
}
