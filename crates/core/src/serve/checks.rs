use std::sync::Arc;

use super::destinations::known;
use super::error::{ServeError, ServeErrorKind};
use crate::app::Entry;
use crate::broker::{Broker, BrokerError, Publish, RouteOfApp, Routes, Subscriber, Subscription};
use crate::extract::Shape;
use crate::handler::RouteOptions;
use crate::middleware::RetryPolicy;

/// Refuses what cannot work, before anything starts. The returned value keeps the routes known to the other apps of the connection.
pub(super) fn check(broker: &dyn Broker, entries: &[Entry<()>]) -> Result<Arc<Vec<RouteOfApp>>, ServeError> {
    for Entry { subscription, options, .. } in entries {
        check_names(subscription)?;
        check_shape(subscription, options)?;
    }
    let subscriptions: Vec<&Subscription> = entries.iter().map(|entry| &entry.subscription).collect();
    broker.check(&subscriptions).map_err(contradiction)?;
    let of_one_app = Routes::default();
    let routes = broker.routes().unwrap_or(&of_one_app);
    routes.enter(entries.iter().map(route_of).collect()).map_err(contradiction)
}

/// A name that is set is not empty.
fn check_names(subscription: &Subscription) -> Result<(), ServeError> {
    let empty = if subscription.patterns().iter().any(|pattern| pattern.as_str().is_empty()) {
        "an empty destination"
    } else if subscription.group() == Some("") {
        "an empty group"
    } else if subscription.name() == Some("") {
        "an empty name"
    } else {
        return Ok(());
    };
    Err(ServeError::configuration(format!("the subscription to {subscription} has {empty}: name it, or leave it out")))
}

fn contradiction(error: BrokerError) -> ServeError {
    ServeError::broker(ServeErrorKind::Configuration, "the subscriptions contradict each other".to_owned(), error)
}

fn route_of(entry: &Entry<()>) -> RouteOfApp {
    let options = &entry.options;
    RouteOfApp {
        patterns: entry.subscription.patterns().to_vec(),
        dead_letter: options.dead_letter.as_ref().map(|dead_letter| dead_letter.destination().clone()),
        replies: options.replies.clone(),
    }
}

/// Refuses replies and dead letters that can go nowhere, before the first message is taken.
pub(super) fn check_destinations(
    transport: &dyn Publish,
    subscription: &Subscription,
    options: &RouteOptions,
) -> Result<(), ServeError> {
    for (used_for, destination) in known(options) {
        transport.check(destination).map_err(|error| {
            let setting = used_for.setting();
            ServeError::configuration(format!(
                "`{setting}` of the subscription to {subscription} cannot be published to: {error}"
            ))
        })?;
    }
    Ok(())
}

/// Refuses two counts of attempts: where messages wait in places of their own, those say how often a message is tried.
pub(super) fn check_retry(
    subscriber: &dyn Subscriber,
    subscription: &Subscription,
    options: &RouteOptions,
) -> Result<(), ServeError> {
    let attempts = options.retry.as_ref().and_then(RetryPolicy::chosen_attempts);
    let Some(attempts) = attempts.filter(|_| subscriber.retry_route().is_some()) else { return Ok(()) };
    Err(ServeError::configuration(format!(
        "the retry policy of the subscription to {subscription} says {attempts} attempts, and its retry topics say how often a \
         message is tried, too: leave out `attempts(..)`, or the retry topics"
    )))
}

/// A handler of batches needs a subscription that batches, and the other way round.
fn check_shape(subscription: &Subscription, options: &RouteOptions) -> Result<(), ServeError> {
    match (options.shape, subscription.batch()) {
        (Shape::Batch, None) => Err(ServeError::configuration(format!(
            "the handler of {subscription} takes a batch, but its subscription hands over single messages: \
             add `.batch(100, Duration::from_millis(50))` to the subscription"
        ))),
        (Shape::Single, Some(_)) => Err(ServeError::configuration(format!(
            "the subscription to {subscription} hands over batches, but its handler takes a single message: \
             take `Batch<T>` instead of `T`, or remove `.batch(..)`"
        ))),
        _ => Ok(()),
    }
}
