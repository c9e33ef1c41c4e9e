use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{BrokerError, Pattern};
use crate::message::Destination;

/// The routes of all apps that run on one connection.
///
/// A broker keeps one for each connection and returns it from [`Broker::routes`](super::Broker::routes); the framework notes there what
/// its apps receive and where their dead letters go, so that it can refuse a message that would go round for ever.
///
/// # Examples
///
/// ```
/// use throughline_core::broker::Routes;
/// let of_a_connection = Routes::default();
/// let of_its_clone = of_a_connection.clone();
/// # let _ = of_its_clone;
/// ```
#[derive(Clone, Default)]
pub struct Routes {
    apps: Arc<Mutex<Vec<Weak<Vec<RouteOfApp>>>>>,
}

/// What one subscription receives, and where its messages go on to.
pub(crate) struct RouteOfApp {
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) dead_letter: Option<Destination>,
    pub(crate) replies: Vec<Destination>,
}

impl RouteOfApp {
    fn takes(&self, destination: &Destination) -> bool {
        self.patterns.iter().any(|pattern| pattern.takes(destination))
    }

    fn name(&self) -> &str {
        self.patterns.first().map_or("", Pattern::as_str)
    }
}

impl Routes {
    /// Notes the routes of an app for as long as the returned value lives.
    pub(crate) fn enter(&self, app: Vec<RouteOfApp>) -> Result<Arc<Vec<RouteOfApp>>, BrokerError> {
        let app = Arc::new(app);
        let mut apps = self.lock();
        apps.retain(|known| known.strong_count() > 0);
        let others: Vec<_> = apps.iter().filter_map(Weak::upgrade).collect();
        let all: Vec<&RouteOfApp> = app.iter().chain(others.iter().flat_map(|other| other.iter())).collect();
        for route in app.iter() {
            check_own(route)?;
            check_round_trip(route, &all)?;
        }
        apps.push(Arc::downgrade(&app));
        Ok(app)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Vec<RouteOfApp>>>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a subscription that takes what it sends.
fn check_own(route: &RouteOfApp) -> Result<(), BrokerError> {
    let dead_letter = route.dead_letter.iter().map(|to| ("dead letters", to));
    let mut sent = dead_letter.chain(route.replies.iter().map(|to| ("replies", to)));
    match sent.find(|(_, to)| route.takes(to)) {
        Some((what, to)) => Err(BrokerError::configuration(format!(
            "the subscription to `{}` takes its own {what} to `{}`, and each would be handled again, for ever: choose a destination \
             that the subscription does not match, or narrow the subscription",
            route.name(),
            to.name(),
        ))),
        None => Ok(()),
    }
}

/// Refuses dead letters that come back through those of other subscriptions.
fn check_round_trip(start: &RouteOfApp, all: &[&RouteOfApp]) -> Result<(), BrokerError> {
    let mut seen: Vec<&Destination> = Vec::new();
    let mut open: Vec<&Destination> = start.dead_letter.iter().collect();
    while let Some(to) = open.pop() {
        if seen.iter().any(|known| (known.namespace(), known.name()) == (to.namespace(), to.name())) {
            continue;
        }
        seen.push(to);
        if start.takes(to) {
            let way: Vec<String> = seen.iter().map(|to| format!("`{}`", to.name())).collect();
            return Err(BrokerError::configuration(format!(
                "the dead letters of `{}` come back to it by way of {}, and would go round for ever: end the circle at one of them",
                start.name(),
                way.join(" and "),
            )));
        }
        let next = all.iter().filter(|route| route.takes(to));
        open.extend(next.filter_map(|route| route.dead_letter.as_ref()));
    }
    Ok(())
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("apps", &self.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{BrokerErrorKind, Wildcards};

    const DOTTED: Wildcards = Wildcards::new('.', "*", ">");

    fn route(pattern: &str, dead_letter: Option<&str>, replies: &[&str]) -> RouteOfApp {
        RouteOfApp {
            patterns: vec![Pattern::new(pattern, DOTTED)],
            dead_letter: dead_letter.map(Destination::from),
            replies: replies.iter().map(|name| Destination::from(*name)).collect(),
        }
    }

    fn refused(app: Vec<RouteOfApp>) -> bool {
        match Routes::default().enter(app) {
            Ok(_) => false,
            Err(error) => error.kind() == BrokerErrorKind::Configuration,
        }
    }

    #[test]
    fn a_subscription_that_takes_what_it_sends_is_refused() {
        assert!(refused(vec![route("orders.>", Some("orders.dead"), &[])]));
        assert!(refused(vec![route("orders.*", None, &["done", "orders.done"])]));
        assert!(!refused(vec![route("orders.*", Some("dead.orders"), &["done"])]));
    }

    #[test]
    fn what_another_exchange_takes_is_no_circle() {
        let keys = Pattern::new("orders.>", DOTTED).within("orders");
        let to = |exchange: &str| Some(Destination::new("orders.dead").within(exchange));
        let route = |dead_letter| RouteOfApp { patterns: vec![keys.clone()], dead_letter, replies: Vec::new() };
        assert!(refused(vec![route(to("orders"))]));
        assert!(!refused(vec![route(to("dead"))]) && !refused(vec![route(Some("orders.dead".into()))]));
    }

    #[test]
    fn dead_letters_that_come_back_are_refused() {
        let there = || route("orders.>", Some("dead"), &[]);
        assert!(refused(vec![there(), route("dead", Some("orders.again"), &[])]));
        assert!(refused(vec![route("dead", Some("bin"), &[]), there(), route("bin", Some("orders.again"), &[])]));
        assert!(!refused(vec![there(), route("dead", Some("bin"), &[])]));
    }

    #[test]
    fn a_circle_through_another_app_is_refused_while_that_runs() {
        let routes = Routes::default();
        let first = routes.enter(vec![route("orders.>", Some("dead"), &[])]).unwrap();
        let second = || vec![route("dead", Some("orders.again"), &[])];
        assert!(routes.clone().enter(second()).is_err());
        drop(first);
        assert!(routes.enter(second()).is_ok());
    }
}
