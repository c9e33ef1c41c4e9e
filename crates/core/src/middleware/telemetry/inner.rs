use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Overrides, Settler};
use crate::telemetry::Scope;

/// What a subscription and telemetry that is ordinary middleware tell each other while a delivery is handled.
#[derive(Debug)]
pub(crate) struct InnerTelemetry {
    /// What the subscription says, where it says anything.
    overrides: Option<Overrides>,
    /// What telemetry hands back; the last attempt counts.
    settler: Mutex<Option<Box<Settler>>>,
}

impl InnerTelemetry {
    pub(crate) const fn new(overrides: Option<Overrides>) -> Self {
        Self { overrides, settler: Mutex::new(None) }
    }

    pub(super) const fn overrides(&self) -> Option<Overrides> {
        self.overrides
    }

    pub(super) fn set_settler(&self, settler: Settler) {
        *self.lock() = Some(Box::new(settler));
    }

    /// The scope of the span, which has ended by now.
    pub(crate) fn scope(&self) -> Option<Scope> {
        self.lock().as_ref()?.scope.clone()
    }

    pub(crate) fn take_settler(&self) -> Option<Settler> {
        self.lock().take().map(|settler| *settler)
    }

    /// A poisoned lock only means that another thread panicked before or after it wrote.
    fn lock(&self) -> MutexGuard<'_, Option<Box<Settler>>> {
        self.settler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
