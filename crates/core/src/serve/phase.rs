use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::later::later;

/// How much of the time for the end is kept for commits and the flush, at most.
const RESERVE: Duration = Duration::from_secs(5);

/// How far an app is on its way to the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Messages are taken.
    Running,
    /// No more messages are taken, handlers finish.
    Draining(Deadlines),
    /// Handlers are dropped.
    Aborting(Deadlines),
}

/// The times by which the parts of an end are done. The whole has one limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Deadlines {
    /// Handlers that still run are dropped then.
    pub(super) handlers: Instant,
    /// The broker has been told what is only noted.
    pub(super) commit: Instant,
    /// What was published is flushed, the connection is closed.
    pub(super) end: Instant,
}

impl Deadlines {
    /// Divides a limit that begins now: handlers get all but a fifth, of which no more than five seconds are kept.
    pub(super) fn of(limit: Duration) -> Self {
        let kept = (limit / 5).min(RESERVE);
        Self { handlers: later(limit - kept), commit: later(limit - kept / 2), end: later(limit) }
    }
}

impl Phase {
    pub(super) const fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    pub(super) const fn is_aborting(&self) -> bool {
        matches!(self, Self::Aborting(_))
    }

    /// The deadlines of an end that has begun.
    pub(super) const fn deadlines(&self) -> Option<Deadlines> {
        match self {
            Self::Running => None,
            Self::Draining(deadlines) | Self::Aborting(deadlines) => Some(*deadlines),
        }
    }
}

/// Runs a future until the app drops its handlers; `None` where that came first.
pub(super) async fn until_aborting<F: Future>(phase: &watch::Receiver<Phase>, work: F) -> Option<F::Output> {
    let mut phase = phase.clone();
    let (mut work, mut aborting) = (pin!(work), pin!(phase.wait_for(Phase::is_aborting)));
    tokio::select! {
        biased;
        done = &mut work => Some(done),
        // An error says that the app itself is gone, and nobody waits for it.
        _ = &mut aborting => None,
    }
}
