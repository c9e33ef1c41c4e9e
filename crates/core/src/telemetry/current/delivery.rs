use super::scope::Scope;
use super::scope_state::ScopeState;
use crate::message::{Delivery, Outcome};
use crate::telemetry::engine::Engine;

impl Delivery {
    /// The scope, brought as far as this state at least; `None` where it is absent and may be, and without telemetry.
    pub(crate) fn scope_at(&self, state: ScopeState) -> Option<Scope> {
        let known = self.surroundings().get().and_then(Scope::from_surroundings);
        let scope = match state {
            ScopeState::Absent => known,
            ScopeState::Closed | ScopeState::Open => known.or_else(|| self.make_scope()),
        }?;
        if state == ScopeState::Open {
            scope.open();
        }
        Some(scope)
    }

    /// The scope for code of the user; without telemetry one that belongs to no message.
    pub(crate) fn open_scope(&self) -> Scope {
        self.scope_at(ScopeState::Open).unwrap_or_else(|| Scope::detached().open().clone())
    }

    /// Makes the scope where the process span needed none. Copies of the delivery made from now on share it.
    fn make_scope(&self) -> Option<Scope> {
        let engine = Engine::from_any(self.runtime()?.telemetry.as_ref()?)?;
        let made = self.surroundings().get_or_init(|| Scope::of_current(engine).to_surroundings());
        Scope::from_surroundings(made)
    }

    pub(crate) fn set_scope(&mut self, scope: &Scope) {
        self.set_surroundings(scope.to_surroundings());
    }
}

impl Outcome {
    /// The scope that was made while the message was handled.
    pub(crate) fn scope(&self) -> Option<Scope> {
        self.surroundings().and_then(Scope::from_surroundings)
    }

    pub(crate) fn set_scope(&mut self, scope: &Scope) {
        self.set_surroundings(scope.to_surroundings());
    }
}
