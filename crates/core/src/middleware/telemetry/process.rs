use std::future::Future;

use opentelemetry::KeyValue;
use opentelemetry::context::FutureExt;

use crate::message::{Delivery, Outcome, Settlement};
use crate::telemetry::{Consumer, Incoming, Scope, semconv};

/// Handed back with the outcome so that the settlement becomes a child of the process span (LINK-12).
pub(crate) struct Settler {
    pub(crate) consumer: Consumer,
    pub(crate) scope: Scope,
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
    delivery.insert_extension(scope.clone());
    let mut outcome = run(delivery).with_context(scope.context().clone()).await;
    processing.finish(outcome.failure(), reason(&outcome));
    outcome.insert_extension(Settler { consumer: consumer.clone(), scope });
    outcome
}

/// Why a handler decided to reject, where it is no failure.
fn reason(outcome: &Outcome) -> Vec<KeyValue> {
    match outcome.settlement() {
        Settlement::Reject { reason } if outcome.failure().is_none() => {
            vec![KeyValue::new(semconv::SETTLEMENT_REASON, reason.clone())]
        }
        _ => Vec::new(),
    }
}
