use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::KeyValue;

use super::{BoxFuture, ErrorReplyHeaders, PublishError, PublishErrorKind};
use crate::message::{Delivery, Destination, Envelope, Receipt, System, Target};

/// What hands messages to a broker. Implemented by adapters; users publish through [`Publisher`](crate::Publisher).
#[async_trait]
pub trait Publish: Send + Sync + 'static {
    /// Describes the connection for telemetry.
    fn system(&self) -> Arc<System>;

    /// Describes a destination for telemetry; the default takes its name and template.
    fn target<'a>(&self, destination: &'a Destination) -> Target<'a> {
        Target::of(destination)
    }

    /// Adds the attributes of one message for telemetry, such as its key; the default adds none.
    fn attributes(&self, envelope: &Envelope, attributes: &mut Vec<KeyValue>) {
        let _ = (envelope, attributes);
    }

    /// Tells whether a message can be published there at all, as far as the name alone says so. The framework asks when an app starts,
    /// for the replies and dead letters it knows; a publish checks its own destination. The default refuses an empty name.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidDestination`](PublishErrorKind::InvalidDestination).
    fn check(&self, destination: &Destination) -> Result<(), PublishError> {
        if destination.is_empty() { Err(PublishError::no_destination()) } else { Ok(()) }
    }

    /// Publishes one message and returns when the broker has confirmed it, or, where it does not confirm, when the client accepted it.
    /// The headers are complete and are written as they are. The call itself may already publish: whoever calls it awaits it.
    ///
    /// # Errors
    ///
    /// Fails when the message was refused, could not be routed where that is known, or was not confirmed in time.
    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>>;

    /// Publishes several messages and returns one result for each, in order. The default publishes one after the other;
    /// an adapter that can pipeline does.
    async fn publish_batch(&self, messages: Vec<Envelope>) -> Vec<Result<Receipt, PublishError>> {
        let mut results = Vec::with_capacity(messages.len());
        for message in messages {
            results.push(self.publish(message).await);
        }
        results
    }

    /// Tells whether what is published counts only when the messages it was published for are settled, and together with them.
    ///
    /// Such a transport is that of one [`Subscriber`](super::Subscriber::transport) alone. The framework calls
    /// [`discard`](Self::discard) before a message is handled once more in place or forwarded, so that nothing of a failed attempt
    /// counts. The default is that a message counts as soon as it is published.
    fn is_atomic(&self) -> bool {
        false
    }

    /// Takes back all that was published and is not settled yet; called only where [`is_atomic`](Self::is_atomic) says so. Where it
    /// cannot be taken back, settling must fail. The default does nothing.
    async fn discard(&self) {}

    /// Returns the names of the headers by which a reply says that its request failed. The framework answers so where a request is given
    /// up, and recognises such replies. The default is `reply-error-code` and `reply-error`.
    fn error_reply_headers(&self) -> ErrorReplyHeaders {
        ErrorReplyHeaders::default()
    }

    /// Publishes a message and waits for its reply, which may be an error reply: that is for the caller to see.
    ///
    /// # Errors
    ///
    /// Fails with [`Unsupported`](PublishErrorKind::Unsupported) where the broker knows no request and reply, with
    /// [`Timeout`](PublishErrorKind::Timeout) when no reply came, with [`NotFound`](PublishErrorKind::NotFound) when nobody listens.
    async fn request(&self, envelope: Envelope, timeout: Duration) -> Result<Delivery, PublishError> {
        let _ = (envelope, timeout);
        let system = self.system();
        Err(PublishError::new(
            PublishErrorKind::Unsupported,
            "unsupported",
            format!("{} knows no request and reply: publish and subscribe to the answer instead", system.name()),
        ))
    }
}
