use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Overrides, Settler};
use crate::message::Failure;
use crate::telemetry::Scope;

/// What a subscription, its middleware and telemetry tell each other while a delivery is handled.
#[derive(Debug)]
pub(crate) struct InnerTelemetry {
    /// What the subscription says, where it says anything.
    overrides: Option<Overrides>,
    /// What telemetry hands back; the last attempt counts.
    settler: Mutex<Option<Box<Settler>>>,
    /// Why the delivery failed, while it is being forwarded elsewhere.
    failure: Mutex<Option<Failure>>,
}

impl InnerTelemetry {
    pub(crate) const fn new(overrides: Option<Overrides>) -> Self {
        Self { overrides, settler: Mutex::new(None), failure: Mutex::new(None) }
    }

    pub(super) const fn overrides(&self) -> Option<Overrides> {
        self.overrides
    }

    pub(super) fn set_settler(&self, settler: Settler) {
        *lock(&self.settler) = Some(Box::new(settler));
    }

    /// The scope of the span, which has ended by now.
    pub(crate) fn scope(&self) -> Option<Scope> {
        lock(&self.settler).as_ref()?.scope.clone()
    }

    pub(crate) fn take_settler(&self) -> Option<Settler> {
        lock(&self.settler).take().map(|settler| *settler)
    }

    /// Notes why the delivery failed, before something is published because of that.
    pub(crate) fn note_failure(&self, failure: Option<&Failure>) {
        *lock(&self.failure) = failure.cloned();
    }

    /// Why the delivery failed, if that is known by now.
    pub(super) fn noted_failure(&self) -> Option<Failure> {
        lock(&self.failure).clone()
    }
}

/// A poisoned lock only means that another thread panicked before or after it wrote.
fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
