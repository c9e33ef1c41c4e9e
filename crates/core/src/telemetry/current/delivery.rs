use super::scope::Scope;
use crate::message::Delivery;
use crate::telemetry::engine::Engine;

impl Delivery {
    /// The scope for a handler or a middleware, in whose hands the baggage may change.
    pub(crate) fn telemetry_scope(&self) -> Scope {
        let scope = self.unopened_scope().unwrap_or_else(Scope::detached);
        scope.open();
        scope
    }

    /// The scope, made here where the engine needed none; nothing without telemetry. Copies of the delivery made from now on share it.
    pub(crate) fn unopened_scope(&self) -> Option<Scope> {
        self.made_scope().or_else(|| {
            let engine = Engine::from_any(self.runtime()?.telemetry.as_ref()?)?;
            let made = self.surroundings().get_or_init(|| Scope::of_current(engine).to_surroundings());
            Scope::from_surroundings(made)
        })
    }

    /// The scope as far as there is one.
    pub(crate) fn made_scope(&self) -> Option<Scope> {
        Scope::from_surroundings(self.surroundings().get()?)
    }

    pub(crate) fn set_scope(&mut self, scope: &Scope) {
        self.set_surroundings(scope.to_surroundings());
    }
}
