use std::time::Duration;

use futures_util::future::{Either, pending, select};
use tracing::warn;

use crate::broker::{Received, Settle};
use crate::message::{Delivery, Outcome, Settlement};
use crate::middleware::{Buried, Settler};
use crate::telemetry::Incoming;

/// Tells the broker what becomes of one message, and records that.
pub(super) async fn settle_one(
    settle: Option<&dyn Settle>,
    message: &Delivery,
    outcome: &Outcome,
    settlement: &Settlement,
    settler: Option<&Settler>,
) {
    if let Some(settler) = settler {
        settler.consumer.count_settlement(label(outcome, settlement));
    }
    let Some(settle) = settle else { return };
    let settling = settler.map(|settler| settler.consumer.settle(settlement, settler.scope.context()));
    let result = settle.settle(settlement).await;
    if let Err(error) = &result {
        warn!(destination = message.destination(), %error, "settling failed; the broker will deliver the message again");
    }
    if let Some(settling) = settling {
        settling.finish(&[Incoming::from_delivery(message)], result.as_ref().err());
    }
}

fn label(outcome: &Outcome, settlement: &Settlement) -> &'static str {
    match settlement {
        Settlement::Ack if outcome.extension::<Buried>().is_some() => "dead_letter",
        Settlement::Ack => "ack",
        Settlement::Reject { .. } => "reject",
        Settlement::Retry { .. } => "retry",
    }
}

/// Runs a future and meanwhile tells the broker that the messages are still being worked on (SPAN-34).
pub(super) async fn with_heartbeats<F: Future>(received: &[Received], work: F) -> F::Output {
    let interval = received.iter().filter_map(|received| received.settle.as_ref()?.heartbeat()).min();
    let beats = async {
        match interval {
            None => pending::<()>().await,
            Some(interval) => beat(received, interval).await,
        }
    };
    match select(std::pin::pin!(work), std::pin::pin!(beats)).await {
        Either::Left((output, _)) => output,
        Either::Right(((), work)) => work.await,
    }
}

async fn beat(received: &[Received], interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        for settle in received.iter().filter_map(|received| received.settle.as_ref()) {
            if let Err(error) = settle.extend().await {
                warn!(%error, "the broker could not be told that a message is still being handled");
            }
        }
    }
}
