use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::broker::{BoxFuture, Publish, PublishError};
use crate::message::{Envelope, Receipt};
use crate::middleware::SendSpan;

/// One call of the transport, inside its send span where there is one. Written out instead of `async fn`, so that a publish
/// needs no allocation beyond what the transport itself needs.
pub(super) struct HandOver<'a> {
    calling: BoxFuture<'a, Result<Receipt, PublishError>>,
    span: Option<SendSpan>,
}

impl<'a> HandOver<'a> {
    #[inline]
    pub(super) fn start(transport: &'a dyn Publish, envelope: Envelope, span: Option<SendSpan>) -> Self {
        let calling = if envelope.destination().is_empty() {
            Box::pin(ready(Err(PublishError::no_destination())))
        } else if envelope.is_batch() {
            Box::pin(publish_batch(transport, envelope))
        } else {
            transport.publish(envelope)
        };
        Self { calling, span }
    }
}

impl Future for HandOver<'_> {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let current = self.span.as_ref().and_then(SendSpan::context).map(|context| context.clone().attach());
        let polled = self.calling.as_mut().poll(context);
        drop(current);
        if let Poll::Ready(result) = &polled
            && let Some(span) = self.span.take()
        {
            span.finish(result);
        }
        polled
    }
}

async fn publish_batch(transport: &dyn Publish, envelope: Envelope) -> Result<Receipt, PublishError> {
    let messages = envelope.into_messages();
    let total = messages.len();
    let mut receipts = Vec::with_capacity(total);
    let mut failed = Vec::new();
    for (index, result) in transport.publish_batch(messages).await.into_iter().enumerate() {
        match result {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => failed.push((index, error)),
        }
    }
    if failed.is_empty() { Ok(Receipt::batch(receipts)) } else { Err(PublishError::partial(failed, total)) }
}
