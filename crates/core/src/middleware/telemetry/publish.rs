use std::future::Future;

use opentelemetry::Context;
use opentelemetry::context::FutureExt;

use crate::broker::{Publish, PublishError};
use crate::message::{Envelope, Receipt};
use crate::telemetry::{Outgoing, Producer};

/// Runs a publish inside its send span, with the context in the headers: the one place where a send span of the framework is made.
pub(crate) async fn deliver_with<F, Fut>(
    producer: &Producer,
    parent: &Context,
    transport: &dyn Publish,
    mut envelope: Envelope,
    run: F,
) -> Result<Receipt, PublishError>
where
    F: FnOnce(Envelope) -> Fut,
    Fut: Future<Output = Result<Receipt, PublishError>>,
{
    let destination = envelope.destination().clone();
    let target = transport.target(&destination);
    let total = envelope.messages().len();
    let is_batch = envelope.is_batch();
    let sending = if is_batch {
        let messages = envelope.messages_mut().iter_mut().map(|message| outgoing(transport, message)).collect();
        producer.send_batch_under(parent, &target, messages)
    } else {
        producer.send_under(parent, &target, outgoing(transport, &mut envelope))
    };
    let result = run(envelope).with_context(sending.context_or(parent)).await;
    match &result {
        Ok(receipt) => sending.finish(receipt.attributes().to_vec(), None),
        Err(error) if is_batch => sending.finish_batch(total, &failures(error, total)),
        Err(error) => sending.finish(Vec::new(), Some(error)),
    }
    result
}

/// The errors of a batch's messages; an error without parts stands for all of them (METR-13).
fn failures(error: &PublishError, total: usize) -> Vec<&PublishError> {
    if error.failed().is_empty() { vec![error; total] } else { error.failed().iter().map(|(_, error)| error).collect() }
}

/// Describes a message to the engine. The parts are copied out first: the headers are borrowed for writing.
pub(crate) fn outgoing<'a>(transport: &dyn Publish, envelope: &'a mut Envelope) -> Outgoing<'a> {
    let mut attributes = Vec::new();
    transport.attributes(envelope, &mut attributes);
    let parts = envelope.telemetry_parts();
    Outgoing {
        headers: parts.headers,
        id: parts.id,
        correlation_id: parts.correlation_id,
        body_size: parts.body_size,
        attributes,
        creation: parts.creation,
    }
}
