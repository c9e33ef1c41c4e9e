use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use async_nats::Subject;
use async_nats::jetstream::context::{PublishAckFuture as NativeAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use throughline_core::telemetry::Sending;

use crate::error;

/// The answer of a stream to a published message that is to come, as the client's own type of this name: await it.
///
/// Its span ends with the answer. Where it is dropped instead, the span ends there without an error: the client has
/// sent the message, and nobody asked whether it was stored.
///
/// # Examples
///
/// ```no_run
/// # async fn example(
/// #     otel: throughline_nats::Instrumentation, jetstream: async_nats::jetstream::Context,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let first = otel.publish(&jetstream, "orders", "1".into()).await?;
/// let second = otel.publish(&jetstream, "orders", "2".into()).await?;
/// let (first, second) = (first.await?, second.await?);
/// # Ok(())
/// # }
/// ```
pub struct PublishAckFuture {
    under_way: Option<(NativeAckFuture, Sending)>,
    subject: Subject,
}

impl PublishAckFuture {
    pub(super) fn new(ack: NativeAckFuture, sending: Sending, subject: Subject) -> Self {
        Self { under_way: Some((ack, sending)), subject }
    }
}

impl IntoFuture for PublishAckFuture {
    type Output = Result<PublishAck, PublishError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(mut self) -> Self::IntoFuture {
        let under_way = self.under_way.take();
        let subject = self.subject.clone();
        Box::pin(async move {
            // It is there: only this and the drop take it, and both happen once.
            let Some((ack, sending)) = under_way else {
                return Err(PublishError::new(PublishErrorKind::Other));
            };
            let result = ack.await;
            let failed = result.as_ref().err().map(|failed| error::stream_publish(failed, &subject));
            sending.finish(Vec::new(), failed.as_ref());
            result
        })
    }
}

impl Drop for PublishAckFuture {
    fn drop(&mut self) {
        if let Some((_, sending)) = self.under_way.take() {
            sending.finish(Vec::new(), None);
        }
    }
}

impl fmt::Debug for PublishAckFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishAckFuture").field("subject", &self.subject).finish_non_exhaustive()
    }
}
