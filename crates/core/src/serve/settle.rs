use std::future::Future;
use std::time::Duration;

use futures_util::future::{Either, select};
use tracing::{error, warn};

use crate::broker::{BrokerError, Received};
use crate::causes::Causes;
use crate::message::{Fate, Outcome, Settlement};
use crate::middleware::Settler;
use crate::telemetry::Incoming;

/// Tells the broker what becomes of one message, and records that.
pub(super) async fn settle_one(
    message: &mut Received,
    outcome: &Outcome,
    settlement: &Settlement,
    settler: Option<&Settler>,
    group: &str,
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
        report(message, error, group);
    }
    if let Some(Settler { consumer, context, clock, .. }) = settler {
        let messages = [Incoming::from_delivery(&message.delivery)];
        consumer.settled(&messages, false, settlement, context, *clock, result.as_ref().err());
    }
}

fn report(message: &Received, error: &BrokerError, group: &str) {
    let (destination, attempt, error) = (message.delivery.destination(), message.delivery.attempt(), Causes(error));
    if message.delivery.is_last_attempt() {
        let position = message.delivery.position().unwrap_or_default();
        error!(destination, group, attempt, position, %error, "settling failed, and the broker delivers the message no more");
    } else {
        warn!(destination, group, attempt, %error, "settling failed; the broker delivers the message again");
    }
}

fn label(outcome: &Outcome, settlement: &Settlement) -> &'static str {
    match (settlement, outcome.fate()) {
        (Settlement::Ack, Fate::Buried(_)) => "dead_letter",
        (Settlement::Ack, Fate::Postponed) | (Settlement::Retry { .. }, _) => "retry",
        (Settlement::Ack, _) => "ack",
        (Settlement::Reject { .. }, _) => "reject",
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
    // One line for each outage, however long it is and however many messages there are.
    let mut is_reported = false;
    loop {
        tokio::time::sleep(interval).await;
        extend_all(received, &mut is_reported).await;
    }
}

/// Tells the broker once that messages are still wanted; a failure is reported unless the last one was.
pub(super) async fn extend_all(messages: &[Received], is_reported: &mut bool) {
    let mut failed = None;
    for message in messages {
        failed = message.extend().await.err().map(|error| (message, error)).or(failed);
    }
    match failed {
        Some((message, error)) if !*is_reported => {
            let (destination, attempt, error) =
                (message.delivery.destination(), message.delivery.attempt(), Causes(&error));
            warn!(
                destination,
                attempt,
                %error,
                "the broker could not be told that a message is still being handled; it may deliver it to another member meanwhile"
            );
            *is_reported = true;
        }
        Some(_) => {}
        None => *is_reported = false,
    }
}
