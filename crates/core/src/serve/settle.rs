use std::future::Future;
use std::time::Duration;

use futures_util::future::{Either, select};
use tracing::warn;

use crate::broker::Received;
use crate::message::{Outcome, Settlement};
use crate::middleware::{Buried, Postponed, Settler};
use crate::telemetry::Incoming;

/// Tells the broker what becomes of one message, and records that.
pub(super) async fn settle_one(
    message: &mut Received,
    outcome: &Outcome,
    settlement: &Settlement,
    settler: Option<&Settler>,
) {
    if let Some(settler) = settler {
        settler.consumer.count_settlement(label(outcome, settlement), message.delivery.destination());
    }
    let Some(settle) = message.take_settle() else { return };
    let result = settle.settle(message, settlement).await;
    if result.is_ok() && settle.is_deferred(message) {
        return;
    }
    if let Err(error) = &result {
        let destination = message.delivery.destination();
        warn!(destination, %error, "settling failed; the broker will deliver the message again");
    }
    if let Some(Settler { consumer, context, clock, .. }) = settler {
        let messages = [Incoming::from_delivery(&message.delivery)];
        consumer.settled(&messages, false, settlement, context, *clock, result.as_ref().err());
    }
}

fn label(outcome: &Outcome, settlement: &Settlement) -> &'static str {
    match settlement {
        Settlement::Ack if outcome.extension::<Buried>().is_some() => "dead_letter",
        Settlement::Ack if outcome.extension::<Postponed>().is_some() => "retry",
        Settlement::Ack => "ack",
        Settlement::Reject { .. } => "reject",
        Settlement::Retry { .. } => "retry",
    }
}

/// Runs a future and meanwhile tells the broker that the messages are still being worked on (SPAN-34).
pub(super) async fn with_heartbeats<F: Future>(received: &[Received], work: F) -> F::Output {
    let Some(interval) = received.iter().filter_map(Received::heartbeat).min() else { return work.await };
    match select(std::pin::pin!(work), std::pin::pin!(beat(received, interval))).await {
        Either::Left((output, _)) => output,
        Either::Right(((), work)) => work.await,
    }
}

async fn beat(received: &[Received], interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        extend_all(received).await;
    }
}

/// Tells the broker once that messages are still wanted.
pub(super) async fn extend_all(messages: &[Received]) {
    for message in messages {
        if let Err(error) = message.extend().await {
            let destination = message.delivery.destination();
            warn!(destination, %error, "the broker could not be told that a message is still being handled, and may deliver it again");
        }
    }
}
