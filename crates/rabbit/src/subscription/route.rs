use std::sync::Arc;

use throughline_core::broker::Pattern;

use super::exchange::Exchange;
use super::queue::Binding;
use crate::semconv::WILDCARDS;

/// One way that messages take to a queue: the exchange that they are published to, and the keys that they have.
#[derive(Clone, Debug)]
pub(super) struct Route<'a> {
    exchange: &'a Arc<str>,
    /// `None` where the exchange does not look at keys.
    key: Option<&'a Arc<str>>,
    has_wildcards: bool,
}

impl<'a> Route<'a> {
    fn new(exchange: &'a Exchange, key: &'a Arc<str>) -> Self {
        let key = (!exchange.takes_any_key()).then_some(key);
        Self { exchange: &exchange.name, key, has_wildcards: exchange.has_patterns() }
    }

    /// Returns the exchange's name.
    pub(super) fn exchange(&self) -> &str {
        self.exchange
    }

    /// Returns the key as names show it: nothing where the exchange does not look at keys.
    pub(super) fn shown_key(&self) -> &str {
        self.key.map_or("", |key| key)
    }

    /// Tells whether messages come with a key of any kind and nothing names it.
    pub(super) const fn takes_any_key(&self) -> bool {
        self.key.is_none()
    }

    /// Returns the pattern of the messages that come this way.
    pub(super) fn pattern(&self) -> Pattern {
        let pattern = match self.key {
            None => Pattern::new("#", WILDCARDS),
            Some(key) if self.has_wildcards => Pattern::new(Arc::clone(key), WILDCARDS),
            Some(key) => Pattern::exact(Arc::clone(key)),
        };
        pattern.within(Arc::clone(self.exchange))
    }

    fn lets_all_through(&self) -> bool {
        self.key.is_none_or(|key| self.has_wildcards && &**key == "#")
    }

    /// Returns this way with another before it; `None` where the keys that both let through are no pattern.
    fn after(&self, before: &Self) -> Option<Self> {
        if self.lets_all_through() || (self.key == before.key && self.has_wildcards == before.has_wildcards) {
            return Some(before.clone());
        }
        let through = before.lets_all_through();
        through.then_some(Self { exchange: before.exchange, key: self.key, has_wildcards: self.has_wildcards })
    }
}

impl Binding {
    /// Returns all ways by which this binding brings messages, those over several exchanges too, and whether these are all.
    pub(super) fn routes(&self) -> (Vec<Route<'_>>, bool) {
        let own = Route::new(&self.exchange, &self.key);
        let (mut routes, mut are_all) = (Vec::new(), true);
        collect(&self.exchange, own, &mut routes, &mut are_all);
        (routes, are_all)
    }
}

fn collect<'a>(exchange: &'a Exchange, route: Route<'a>, routes: &mut Vec<Route<'a>>, are_all: &mut bool) {
    for (source, key, _) in &exchange.from {
        match route.after(&Route::new(source, key)) {
            Some(longer) => collect(source, longer, routes, are_all),
            None => *are_all = false,
        }
    }
    routes.push(route);
}
