use std::future::Future;
use std::pin::pin;

use opentelemetry::{Context, KeyValue};

use super::InnerTelemetry;
use crate::message::{Delivery, Fate, Outcome, Settlement};
use crate::telemetry::{Clock, Consumer, Incoming, ParentMode, Processing, Scope, ScopeState, Trust, run_in, semconv};

/// What a settlement is recorded with, so that it becomes a child of the process span.
// LINK-12.
#[derive(Clone, Debug)]
pub(crate) struct Settler {
    pub(crate) consumer: Consumer,
    pub(crate) scope: Option<Scope>,
    /// That of the process span.
    pub(crate) context: Context,
    /// Starts where the process span ended.
    pub(crate) clock: Clock,
}

/// What one subscription says about its telemetry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overrides {
    pub(crate) parent: Option<ParentMode>,
    pub(crate) trust: Option<Trust>,
}

impl Overrides {
    pub(crate) fn apply(self, mut consumer: Consumer) -> Consumer {
        if let Some(mode) = self.parent {
            consumer = consumer.with_parent_mode(mode);
        }
        if let Some(trust) = self.trust {
            consumer = consumer.with_trust(trust);
        }
        consumer
    }
}

/// Runs the rest of a delivery inside its process span: the one place where a process span of the framework is made. The scope is brought
/// as far as `scope_state` before anything runs.
pub(crate) async fn process_with<F, Fut>(
    consumer: &Consumer,
    mut delivery: Delivery,
    scope_state: ScopeState,
    inner: &InnerTelemetry,
    run: F,
) -> (Outcome, Settler)
where
    F: FnOnce(Delivery) -> Fut,
    Fut: Future<Output = Outcome>,
{
    let processing = if delivery.is_batch() {
        let messages: Vec<Incoming<'_>> = delivery.messages().iter().map(Incoming::from_delivery).collect();
        consumer.process_batch(&messages)
    } else {
        consumer.process(&Incoming::from_delivery(&delivery))
    };
    let scope = processing.scope_at(scope_state).cloned();
    if let Some(scope) = &scope {
        delivery.set_scope(scope);
    }
    if delivery.is_batch() {
        let mut own = processing.members().iter();
        delivery = delivery.map_messages(|mut message| {
            own.next().into_iter().for_each(|own| message.set_scope(own));
            message
        });
    }
    let context = processing.context().clone();
    let surrounding = processing.surrounds().then(|| context.clone());
    let unfinished = Unfinished { processing: Some(processing), inner };
    let outcome = run_in(surrounding, pin!(run(delivery))).await;
    let clock = unfinished.finish(&outcome);
    (outcome, Settler { consumer: consumer.clone(), scope, context, clock })
}

/// A processing that is under way. Dropped while a failed message is being forwarded, it ends with the failure, not as cancelled.
// STAT-22.
struct Unfinished<'a> {
    processing: Option<Processing>,
    inner: &'a InnerTelemetry,
}

impl Unfinished<'_> {
    fn finish(mut self, outcome: &Outcome) -> Clock {
        let processing = self.processing.take();
        processing.map(|processing| processing.finish(outcome.failure(), reason(outcome))).unwrap_or_default()
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(processing) = self.processing.take()
            && let Some(failure) = self.inner.noted_failure()
        {
            processing.fail(&failure);
        }
    }
}

/// Why a handler decided to reject, where it is no failure; also when the message then became a dead letter. A message that can be
/// published nowhere always says so.
fn reason(outcome: &Outcome) -> Vec<KeyValue> {
    let reason = match (outcome.settlement(), outcome.fate()) {
        (Settlement::Reject { reason }, Fate::Unpublishable) => reason,
        _ if outcome.failure().is_some() => return Vec::new(),
        (Settlement::Reject { reason }, _) | (_, Fate::Buried(reason)) => reason,
        _ => return Vec::new(),
    };
    vec![KeyValue::new(semconv::REJECTION_REASON, reason.clone())]
}
