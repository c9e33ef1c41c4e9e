use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use throughline_core::broker::{BoxFuture, Publish};
use throughline_core::message::{System, Target};
use throughline_core::propagation::NativeCarrier as _;
use throughline_core::{Delivery, Destination, Envelope, PublishError, Receipt, async_trait};

use crate::carrier::{ClientHeaders, to_native};
use crate::client::Message;
use crate::connection::Connection;
use crate::delivery::{CORRELATION_ID, MESSAGE_ID, from_client};
use crate::{error, semconv};

/// The number that the server gave a message: what a [`Receipt`] holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stored(pub u64);

/// Publishes on one connection.
pub(crate) struct Transport(pub(crate) Arc<Connection>);

#[async_trait]
impl Publish for Transport {
    fn system(&self) -> Arc<System> {
        Arc::clone(&self.0.system)
    }

    fn target<'a>(&self, destination: &'a Destination) -> Target<'a> {
        let target = semconv::target(destination.name(), destination.template());
        if destination.is_temporary() { target.temporary() } else { target }
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let sent = self.0.client.publish(to_client(&envelope));
        let sent = sent.map_err(|failed| error::publish(failed, envelope.destination().name()));
        Box::pin(ready(sent.map(|number| Receipt::new().with_native(Stored(number)))))
    }

    async fn request(&self, envelope: Envelope, limit: Duration) -> Result<Delivery, PublishError> {
        let answer = self.0.client.request(to_client(&envelope), limit).await;
        answer.map(from_client).map_err(|failed| error::publish(failed, envelope.destination().name()))
    }
}

/// Makes the client's message. What the client has no field for becomes a header.
fn to_client(envelope: &Envelope) -> Message {
    let mut message = Message::new(envelope.destination().name(), envelope.payload().clone());
    message.headers = to_native(envelope.headers());
    message.reply = envelope.reply_to().map(|reply| reply.name().to_owned());
    for (name, value) in [
        (MESSAGE_ID, envelope.id()),
        (CORRELATION_ID, envelope.correlation_id()),
        ("content-type", envelope.content_type()),
    ] {
        if let Some(value) = value {
            ClientHeaders::remove(&mut message.headers, name);
            ClientHeaders::append(&mut message.headers, name, value);
        }
    }
    message
}
