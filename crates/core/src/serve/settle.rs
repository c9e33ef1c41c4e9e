use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use smallvec::SmallVec;

use crate::broker::{BatchSettled, BrokerError, Received, Settle};
use crate::causes::Causes;
use crate::log::{SubscriptionLog, log_line};
use crate::message::{Fate, Outcome, Settlement};
use crate::middleware::Settler;
use crate::telemetry::Incoming;

/// A message that is to be settled, and what came of it.
pub(super) struct Ending<'a> {
    pub(super) message: &'a mut Received,
    pub(super) outcome: &'a Outcome,
    pub(super) settlement: &'a Settlement,
}

impl Ending<'_> {
    /// Whether several messages may be settled so: the reasons of rejections and the delays of retries are each message's own.
    const fn is_of_many(&self) -> bool {
        matches!(self.settlement, Settlement::Ack | Settlement::Retry { after: None })
    }

    /// Whether the broker can be told of both at once.
    fn is_like(&self, other: &Ending<'_>) -> bool {
        self.settlement == other.settlement && self.message.is_settled_with(other.message)
    }

    /// Counts what becomes of the message, and takes what tells the broker.
    fn take_settle(&mut self, settler: Option<&Settler>) -> Option<Arc<dyn Settle>> {
        if let Some(settler) = settler {
            let what = label(self.outcome, self.settlement);
            settler.consumer.count_settlement(what, &Incoming::from_delivery(&self.message.delivery));
        }
        self.message.take_settle()
    }
}

/// One is the rule.
pub(super) type Endings<'a> = SmallVec<[Ending<'a>; 1]>;

/// Settles messages in their order, and all of the same settlement at once, where the broker can be told so.
pub(super) async fn settle_all(mut endings: Endings<'_>, settler: Option<&Settler>, log: &SubscriptionLog) {
    // The rule, and then nothing is allocated.
    if are_alike(&endings) {
        return settle_caught(&mut endings, settler, log).await;
    }
    let mut rest = endings.into_iter();
    while let Some(first) = rest.next() {
        let mut alike = Endings::new();
        // There are few such settlements, so that a batch is not gone through for each of its messages.
        if first.is_of_many() {
            let (own, others): (Endings<'_>, Endings<'_>) = rest.partition(|other| other.is_like(&first));
            (alike, rest) = (own, others.into_iter());
        }
        alike.insert(0, first);
        settle_caught(&mut alike, settler, log).await;
    }
}

fn are_alike(endings: &[Ending<'_>]) -> bool {
    let Some((first, others)) = endings.split_first() else { return true };
    others.is_empty() || first.is_of_many() && others.iter().all(|other| other.is_like(first))
}

async fn settle_caught(alike: &mut [Ending<'_>], settler: Option<&Settler>, log: &SubscriptionLog) {
    if AssertUnwindSafe(settle_alike(alike, settler, log)).catch_unwind().await.is_err() {
        let destination = alike.first().map(|one| one.message.delivery.destination());
        let (group, messages) = (log.group(), alike.len());
        log_line!(log, ERROR, "settling panicked; the broker was not told", destination, group, messages);
    }
}

async fn settle_alike(endings: &mut [Ending<'_>], settler: Option<&Settler>, log: &SubscriptionLog) {
    match endings {
        [] => {}
        [one] => settle_one(one, settler, log).await,
        // Boxed, so that single messages do not carry the room for it.
        several => Box::pin(settle_several(several, settler, log)).await,
    }
}

/// The span covers the broker's own call alone.
// SPAN-32.
async fn settle_one(ending: &mut Ending<'_>, settler: Option<&Settler>, log: &SubscriptionLog) {
    let Some(settle) = ending.take_settle(settler) else { return };
    let result = settle.settle(ending.message, ending.settlement).await;
    told(&*settle, &[ending.message], ending.settlement, &result, settler, log);
}

async fn settle_several(endings: &mut [Ending<'_>], settler: Option<&Settler>, log: &SubscriptionLog) {
    let mut settle = None;
    for ending in endings.iter_mut() {
        // Each is told of here and nowhere else from now on.
        let own = ending.take_settle(settler);
        settle = settle.or(own);
    }
    let (Some(settle), Some(first)) = (settle, endings.first()) else { return };
    let messages: Vec<&Received> = endings.iter().map(|ending| &*ending.message).collect();
    match settle.settle_batch(&messages, first.settlement).await {
        BatchSettled::Together(result) => told(&*settle, &messages, first.settlement, &result, settler, log),
        BatchSettled::OneByOne(results) => {
            for (message, result) in messages.iter().zip(&results) {
                told(&*settle, &[*message], first.settlement, result, settler, log);
            }
        }
    }
}

/// Records one operation by which messages were settled.
fn told(
    settle: &dyn Settle,
    messages: &[&Received],
    settlement: &Settlement,
    result: &Result<(), BrokerError>,
    settler: Option<&Settler>,
    log: &SubscriptionLog,
) {
    if result.is_ok() && messages.first().is_some_and(|first| settle.is_deferred(first)) {
        return;
    }
    if let (Err(error), Some(first)) = (result, messages.first()) {
        report(log, settler, first, error);
    }
    if let Some(Settler { consumer, context, clock, .. }) = settler {
        let incoming = messages.iter().map(|message| Incoming::from_delivery(&message.delivery));
        let incoming: SmallVec<[Incoming<'_>; 1]> = incoming.collect();
        consumer.settled(&incoming, incoming.len() > 1, settlement, context, *clock, result.as_ref().err());
    }
}

fn report(log: &SubscriptionLog, settler: Option<&Settler>, message: &Received, error: &BrokerError) {
    let _current = settler.map(|settler| settler.context.clone().attach());
    let (message, group, error_type) = (&message.delivery, log.group(), error.error_type());
    let (destination, attempt, error) = (message.destination(), message.attempt(), Causes(error));
    if message.is_last_attempt() {
        log_line!(
            log,
            ERROR,
            "settling failed, and the broker delivers the message no more",
            destination,
            group,
            attempt,
            error_type,
            %error,
            position = message.position()
        );
    } else {
        log_line!(
            log,
            WARN,
            "settling failed; the broker delivers the message again",
            destination,
            group,
            attempt,
            error_type,
            %error
        );
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

/// Runs a future and meanwhile tells the broker that the messages are still being worked on.
// SPAN-34.
pub(super) async fn with_heartbeats<F: Future>(log: &SubscriptionLog, received: &[Received], work: F) -> F::Output {
    let Some(interval) = received.iter().filter_map(Received::heartbeat).min() else { return work.await };
    match select(std::pin::pin!(work), std::pin::pin!(beat(log, received, interval))).await {
        Either::Left((output, _)) => output,
        Either::Right(((), work)) => work.await,
    }
}

async fn beat(log: &SubscriptionLog, received: &[Received], interval: Duration) {
    // One line for each outage, however long it is and however many messages there are.
    let mut is_reported = false;
    loop {
        tokio::time::sleep(interval).await;
        extend_all(log, received, &mut is_reported).await;
    }
}

/// Tells the broker once that messages are still wanted; a failure is reported unless the last one was.
pub(super) async fn extend_all(log: &SubscriptionLog, messages: &[Received], is_reported: &mut bool) {
    let mut failed = None;
    for message in messages {
        failed = message.extend().await.err().map(|error| (message, error)).or(failed);
    }
    match failed {
        Some((message, error)) if !*is_reported => {
            let (message, group, error_type) = (&message.delivery, log.group(), error.error_type());
            let (destination, attempt, error) = (message.destination(), message.attempt(), Causes(&error));
            log_line!(
                log,
                WARN,
                "the broker could not be told that a message is still being handled; it may deliver it to another member meanwhile",
                destination,
                group,
                attempt,
                error_type,
                %error
            );
            *is_reported = true;
        }
        Some(_) => {}
        None => *is_reported = false,
    }
}
