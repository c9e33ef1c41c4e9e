use super::baggage::Baggage;
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

    /// Returns the baggage of the message, or of all messages of a batch merged. What is changed in it is what later publishes of the
    /// handler carry. Outside an app it is what the header `baggage` says, and changes are kept in the delivery.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{CurrentBaggage, Delivery, Headers};
    ///
    /// let headers = Headers::from_iter([("baggage", "tenant=acme")]);
    /// let delivery = Delivery::new("orders", "x").with_headers(headers);
    /// delivery.baggage().set("region", "eu");
    /// assert_eq!(delivery.baggage().get_all().len(), 2);
    /// ```
    #[must_use]
    pub fn baggage(&self) -> Baggage {
        Baggage(self.open_scope())
    }

    /// The scope for code of the user. Without telemetry it is one of the delivery alone, and the same each time.
    pub(crate) fn open_scope(&self) -> Scope {
        self.scope_at(ScopeState::Open).unwrap_or_else(|| {
            let detached =
                || if self.runtime().is_some() { Scope::detached() } else { Baggage::from_headers(self.headers()).0 };
            let kept = self.surroundings().get_or_init(|| detached().to_surroundings());
            Scope::from_surroundings(kept).unwrap_or_else(Scope::detached).open().clone()
        })
    }

    /// Makes the scope where the process span needed none. Copies of the delivery made from now on share it.
    fn make_scope(&self) -> Option<Scope> {
        let engine = Engine::from_any(self.runtime()?.telemetry.as_ref()?)?;
        let made = self.surroundings().get_or_init(|| Scope::of_current(Some(engine)).to_surroundings());
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
