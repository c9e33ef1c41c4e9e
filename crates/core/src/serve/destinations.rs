//! Whether the places exist where replies and dead letters will go.

use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::error::{ServeError, ServeErrorKind};
use crate::broker::{Broker, BrokerError, BrokerErrorKind, Existence, Outbound, OutboundUse, Subscription};
use crate::causes::Causes;
use crate::handler::RouteOptions;
use crate::message::Destination;

/// How long the broker may take to say so.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Returns where replies and the dead letter go.
pub(super) fn known(options: &RouteOptions) -> impl Iterator<Item = (OutboundUse, &Destination)> {
    let replies = options.replies.iter().map(|destination| (OutboundUse::Reply, destination));
    let dead_letter = options.dead_letter.iter().map(|letter| (OutboundUse::DeadLetter, letter.destination()));
    replies.chain(dead_letter)
}

/// Refuses replies and dead letters whose destination the broker does not have. Asked when all subscriptions have started, since one may
/// create what another one publishes to.
pub(super) async fn check(broker: &dyn Broker, started: &[(Subscription, RouteOptions)]) -> Result<(), ServeError> {
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
