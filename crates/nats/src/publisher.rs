use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{BoxFuture, ErrorReplyHeaders, Publish, done};
use throughline_core::message::{System, Target};
use throughline_core::{Delivery, Destination, Envelope, PublishError, Receipt};

use crate::carrier::ERROR_REPLY;
use crate::delivery::{LastSubject, from_core};
use crate::destination::Through;
use crate::pipeline::Pipeline;
use crate::sender::{Sender, no_reply_to};
use crate::status::{is_status, text_of};
use crate::{error, semconv};

/// Publishes on one connection.
#[derive(Debug)]
pub(crate) struct NatsPublisher {
    pub(crate) sender: Sender,
}

#[async_trait]
impl Publish for NatsPublisher {
    fn system(&self) -> Arc<System> {
        Arc::clone(&self.sender.connection.systems.core)
    }

    fn target<'a>(&self, destination: &'a Destination) -> Target<'a> {
        semconv::target(destination, &self.sender.connection.inbox_prefix)
    }

    /// Checks as a publish does. A plain destination may be that of a stream too, which the message that is published decides.
    fn check(&self, destination: &Destination) -> Result<(), PublishError> {
        if self.sender.is_of_stream(destination) {
            self.sender.requested(destination).map(drop)
        } else {
            self.sender.written(destination, 0).map(drop)
        }
    }

    /// To core NATS, returns when the client has taken the message, as the client's own call does: what is
    /// written is not confirmed by anybody either, and waiting for it costs a hundred times as much.
    // SPAN-35.
    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        if self.sender.is_taken_at_once(&envelope) { done() } else { Box::pin(self.sender.confirm(envelope)) }
    }

    async fn publish_batch(&self, messages: Vec<Envelope>) -> Vec<Result<Receipt, PublishError>> {
        Pipeline::new(&self.sender, messages.len()).run(messages).await
    }

    fn error_reply_headers(&self) -> ErrorReplyHeaders {
        ERROR_REPLY
    }

    async fn request(&self, envelope: Envelope, wait: Duration) -> Result<Delivery, PublishError> {
        let subject = self.sender.requested(envelope.destination())?;
        if let Some(Through::Stream(_)) = envelope.destination().native::<Through>() {
            return Err(no_reply_to(&subject));
        }
        let headers = self.sender.headers_of(&envelope)?;
        let mut request = async_nats::Request::new().payload(envelope.payload().clone()).timeout(Some(wait));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let reply = self.sender.connection.link().client.send_request(subject.clone(), request).await;
        let reply = reply.map_err(|failed| error::request(&failed, &subject, Some(wait)).with_source(failed))?;
        if is_status(&reply) {
            return Err(error::status_for_reply(&subject, &text_of(&reply)));
        }
        Ok(from_core(reply, &mut LastSubject::new(), self.sender.connection.reading()))
    }
}
