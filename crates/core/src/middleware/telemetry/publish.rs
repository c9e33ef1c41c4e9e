use opentelemetry::Context;

use crate::broker::{Publish, PublishError};
use crate::guard::{Foreign, Guard};
use crate::message::{Destination, Envelope, Receipt, Target};
use crate::telemetry::{Outgoing, Producer, Sending};

/// A publish under way, with its send span: the one place where the framework makes one. Dropped before its end, it is recorded as
/// cancelled.
pub(crate) struct SendSpan {
    sending: Sending,
    /// How many messages; `None` for a single one.
    batch: Option<usize>,
}

impl SendSpan {
    /// Starts the span and writes its context into the headers.
    pub(crate) fn start(
        producer: &Producer,
        parent: &Context,
        transport: &dyn Publish,
        envelope: &mut Envelope,
    ) -> Self {
        let destination = envelope.destination().clone();
        let guard = producer.guard();
        let mut target = target(transport, &destination, guard);
        let batch = envelope.is_batch().then(|| envelope.messages().len());
        let sending = if batch.is_some() {
            let messages =
                envelope.messages_mut().iter_mut().map(|message| outgoing(transport, message, guard)).collect();
            producer.send_batch_under(parent, &target, messages)
        } else {
            let attributes = std::mem::take(&mut target.attributes);
            let message = outgoing(transport, envelope, guard);
            producer.start_send(parent, &target, attributes, message, producer.operations().send)
        };
        Self { sending, batch }
    }

    /// What is current while the transport works.
    pub(crate) fn context(&self) -> Option<&Context> {
        self.sending.own_context()
    }

    pub(crate) fn finish(self, result: &Result<Receipt, PublishError>) {
        match (result, self.batch) {
            (Ok(receipt), _) => self.sending.finish_with(receipt),
            (Err(error), Some(total)) => self.sending.finish_batch(total, &failures(error, total)),
            (Err(error), None) => self.sending.finish(Vec::new(), Some(error)),
        }
    }
}

/// The errors of a batch's messages; an error without parts stands for all of them.
// METR-13.
fn failures(error: &PublishError, total: usize) -> Vec<&PublishError> {
    if error.failed().is_empty() { vec![error; total] } else { error.failed().iter().map(|(_, error)| error).collect() }
}

/// Asks the transport how a destination stands in telemetry; when it panics, the destination speaks for itself.
pub(crate) fn target<'a>(transport: &dyn Publish, destination: &'a Destination, guard: &Guard) -> Target<'a> {
    guard.run(Foreign::Publish, || transport.target(destination)).unwrap_or_else(|| Target::of(destination))
}

/// Describes a message to the engine. The parts are copied out first: the headers are borrowed for writing.
pub(crate) fn outgoing<'a>(transport: &dyn Publish, envelope: &'a mut Envelope, guard: &Guard) -> Outgoing<'a> {
    let mut attributes = Vec::new();
    if guard.run(Foreign::Publish, || transport.attributes(envelope, &mut attributes)).is_none() {
        attributes.clear();
    }
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
