use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::error::{ServeError, ServeErrorKind};
use crate::app::Entry;
use crate::broker::{
    Broker, BrokerError, BrokerErrorKind, Existence, Outbound, OutboundUse, Publish, RouteOfApp, Routes, Subscription,
};
use crate::causes::Causes;
use crate::extract::Shape;
use crate::handler::RouteOptions;
use crate::message::Destination;

/// How long the broker may take to say whether destinations exist.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

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

/// Returns where replies and the dead letter go.
fn known(options: &RouteOptions) -> impl Iterator<Item = (OutboundUse, &Destination)> {
    let replies = options.replies.iter().map(|destination| (OutboundUse::Reply, destination));
    let dead_letter = options.dead_letter.iter().map(|letter| (OutboundUse::DeadLetter, letter.destination()));
    replies.chain(dead_letter)
}

/// Refuses replies and dead letters whose destination the broker does not have. Asked when all subscriptions have started, since one may
/// create what another one publishes to.
pub(super) async fn ask_for_destinations(
    broker: &dyn Broker,
    started: &[(Subscription, RouteOptions)],
) -> Result<(), ServeError> {
    let outbound: Vec<Outbound<'_>> = started
        .iter()
        .flat_map(|(subscription, options)| {
            known(options).map(move |(used_for, destination)| Outbound::new(subscription, destination, used_for))
        })
        .collect();
    if outbound.is_empty() {
        return Ok(());
    }
    let Ok(results) = timeout(ANSWER_WAIT, broker.check_destinations(&outbound)).await else {
        let error = BrokerError::new(BrokerErrorKind::Timeout, "timeout", format!("no answer within {ANSWER_WAIT:?}"));
        warn!(
            destinations = ?outbound.iter().map(|one| one.destination.name()).collect::<Vec<_>>(),
            error = %Causes(&error),
            "the broker does not say whether the destinations of replies and dead letters exist: the app starts, and what cannot be \
             published there is tried again"
        );
        return Ok(());
    };
    for (one, result) in outbound.iter().zip(results) {
        match result {
            Ok(Existence::Usable) => {}
            Ok(Existence::Unknown(error)) => warn_of_unknown(one, &error),
            Err(error) => return Err(missing(one, error)),
        }
    }
    Ok(())
}

fn warn_of_unknown(one: &Outbound<'_>, error: &BrokerError) {
    warn!(
        destination = one.destination.name(),
        setting = one.used_for.setting(),
        subscription = %one.subscription,
        error = %Causes(error),
        "the broker does not say whether a destination exists: the app starts, and what cannot be published there is tried again"
    );
}

fn missing(one: &Outbound<'_>, error: BrokerError) -> ServeError {
    let (setting, subscription) = (one.used_for.setting(), one.subscription);
    let message = format!("`{setting}` of the subscription to {subscription} cannot be published to");
    ServeError::broker(ServeErrorKind::Configuration, message, error)
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
