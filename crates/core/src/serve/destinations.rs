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
        warn_of_unknown(&outbound, &error);
        return Ok(());
    };
    let (mut unknown, mut why) = (Vec::new(), None);
    for (one, result) in outbound.into_iter().zip(results) {
        match result {
            Ok(Existence::Usable) => {}
            Ok(Existence::Unknown(error)) => {
                unknown.push(one);
                why.get_or_insert(error);
            }
            Err(error) => return Err(missing(&one, error)),
        }
    }
    if let Some(error) = why {
        warn_of_unknown(&unknown, &error);
    }
    Ok(())
}

/// One line for all of them: mostly the reason is the same.
fn warn_of_unknown(outbound: &[Outbound<'_>], error: &BrokerError) {
    let shown = |one: &Outbound<'_>| {
        format!("{} (`{}` of {})", one.destination.name(), one.used_for.setting(), one.subscription)
    };
    warn!(
        destinations = ?outbound.iter().map(shown).collect::<Vec<_>>(),
        error = %Causes(error),
        "the broker does not say whether destinations exist: the app starts, and what cannot be published there is tried again"
    );
}

fn missing(one: &Outbound<'_>, error: BrokerError) -> ServeError {
    let (setting, subscription) = (one.used_for.setting(), one.subscription);
    let message = format!("`{setting}` of the subscription to {subscription} cannot be published to");
    ServeError::broker(ServeErrorKind::Configuration, message, error)
}
