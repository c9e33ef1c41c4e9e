use std::future::Future;

use opentelemetry::KeyValue;
use opentelemetry::context::FutureExt;

use crate::message::{Delivery, Outcome, Settlement};
use crate::middleware::Buried;
use crate::telemetry::{Consumer, Incoming, ParentMode, Scope, Trust, semconv};

/// Handed back with the outcome so that the settlement becomes a child of the process span (LINK-12).
#[derive(Clone, Debug)]
pub(crate) struct Settler {
    pub(crate) consumer: Consumer,
    pub(crate) scope: Scope,
}

/// What one subscription says about its telemetry. It stands in the delivery where telemetry is ordinary middleware.
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

/// Runs the rest of a delivery inside its process span: the one place where a process span of the framework is made.
pub(crate) async fn process_with<F, Fut>(consumer: &Consumer, mut delivery: Delivery, run: F) -> Outcome
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
    let scope = processing.scope().clone();
    delivery.set_scope(scope.clone());
    if delivery.is_batch() {
        let mut own = scope.messages().iter();
        delivery = delivery.map_messages(|mut message| {
            own.next().into_iter().for_each(|own| message.set_scope(own.clone()));
            message
        });
    }
    let mut outcome = run(delivery).with_context(scope.context().clone()).await;
    processing.finish(outcome.failure(), reason(&outcome));
    outcome.set_settler(Settler { consumer: consumer.clone(), scope });
    outcome
}

/// Why a handler decided to reject, where it is no failure; also when the message then became a dead letter.
fn reason(outcome: &Outcome) -> Vec<KeyValue> {
    let buried = outcome.extension::<Buried>().map(|buried| &buried.0);
    match (outcome.settlement(), buried) {
        _ if outcome.failure().is_some() => Vec::new(),
        (Settlement::Reject { reason }, _) | (_, Some(reason)) => {
            vec![KeyValue::new(semconv::SETTLEMENT_REASON, reason.clone())]
        }
        _ => Vec::new(),
    }
}
