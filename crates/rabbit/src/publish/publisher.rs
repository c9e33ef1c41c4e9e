use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use throughline_core::broker::{BoxFuture, Publish};
use throughline_core::message::{System, Target};
use throughline_core::{Delivery, Destination, Envelope, PublishError, Receipt};

use super::written::to_native;
use super::{Outgoing, Problem};
use crate::connection::Connection;
use crate::destination::{Address, Options};
use crate::names::short;
use crate::semconv::{DIRECT_REPLY, ROUTING_KEY, is_anonymous, target_name};

/// Publishes on one connection.
pub(crate) struct RabbitPublisher {
    connection: Arc<Connection>,
}

impl RabbitPublisher {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self { connection: Arc::clone(connection) }
    }

    async fn send(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        let sent = match outgoing(&envelope) {
            Ok(message) => self.connection.publishing.publish(message),
            Err(wrong) => return received(Err(wrong), envelope.destination()),
        };
        let destination = envelope.destination().clone();
        drop(envelope);
        received(sent.await, &destination)
    }
}

fn outgoing(envelope: &Envelope) -> Result<Outgoing, Problem> {
    let (destination, to) = (envelope.destination(), Address::of(envelope.destination()));
    let mut message = Outgoing::new(to, to_native(envelope)?, envelope.payload().clone())?;
    // The servers send a direct reply back as unroutable although they have delivered it, so that nothing could be learnt from it.
    let is_direct_reply = to.exchange.is_empty() && to.key.starts_with(DIRECT_REPLY);
    message.mandatory = !is_direct_reply && destination.native::<Options>().is_none_or(|options| options.mandatory);
    Ok(message)
}

fn received(sent: Result<(), Problem>, destination: &Destination) -> Result<Receipt, PublishError> {
    match sent {
        Ok(()) => Ok(Receipt::new()),
        Err(problem) => Err(problem.into_error(Address::of(destination))),
    }
}

/// Describes where a message goes.
// ATTR-R-01, ATTR-R-05, ATTR-R-08 to -10.
pub(crate) fn target<'a>(address: Address<'a>, template: Option<&'a str>) -> Target<'a> {
    let Address { exchange, key } = address;
    let mut target = Target::new(target_name(exchange, key));
    if let Some(template) = template {
        target = target.with_template(template);
    }
    if exchange.is_empty() && is_anonymous(key) && !key.is_empty() {
        let shown = if key.starts_with(DIRECT_REPLY) { DIRECT_REPLY } else { "amq.gen" };
        target = target.with_template(shown).temporary();
    }
    if !key.is_empty() {
        target.attributes = vec![KeyValue::new(ROUTING_KEY, key.to_owned())];
    }
    target
}

#[async_trait]
impl Publish for RabbitPublisher {
    fn system(&self) -> Arc<System> {
        Arc::clone(&self.connection.system)
    }

    fn target<'a>(&self, destination: &'a Destination) -> Target<'a> {
        let target = target(Address::of(destination), destination.template());
        if destination.is_temporary() { target.temporary() } else { target }
    }

    fn check(&self, destination: &Destination) -> Result<(), PublishError> {
        let Address { exchange, key } = Address::of(destination);
        short("exchange", exchange)?;
        short("routing key", key)?;
        Ok(())
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(self.send(envelope))
    }

    /// All are under way at the same time, in their order.
    async fn publish_batch(&self, messages: Vec<Envelope>) -> Vec<Result<Receipt, PublishError>> {
        let results = self.connection.publishing.publish_in_order(messages.iter().map(outgoing)).await;
        results.into_iter().zip(&messages).map(|(sent, envelope)| received(sent, envelope.destination())).collect()
    }

    async fn request(&self, envelope: Envelope, wait: Duration) -> Result<Delivery, PublishError> {
        match outgoing(&envelope) {
            Ok(message) => self.connection.requests.request(message, wait).await,
            Err(wrong) => Err(wrong.into_error(Address::of(envelope.destination()))),
        }
    }
}
