use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use async_nats::Message;
use async_nats::jetstream::Message as StreamMessage;
use async_nats::jetstream::consumer::pull::Batch;
use futures_util::{Stream, StreamExt};
use throughline_core::raw::{RawMessage, ReadMessage as _};
use throughline_core::telemetry::Receiving;

use super::message::Subscribed;
use crate::error;

/// What a pull yields: the client's own messages, one after the other, as its `Batch`.
///
/// # Examples
///
/// ```no_run
/// use futures_util::StreamExt;
/// # async fn example(
/// #     orders: throughline_nats::SubscriptionTelemetry, consumer: async_nats::jetstream::consumer::PullConsumer,
/// # ) -> Result<(), async_nats::Error> {
/// let mut messages = orders.fetch(consumer.fetch().max_messages(100).messages()).await?;
/// while let Some(message) = messages.next().await {
///     println!("{}", message?.subject);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Fetched {
    messages: Batch,
    subscribed: Subscribed,
    receiving: Option<Receiving>,
    seen: Vec<Message>,
    last_arrival: Option<Instant>,
}

impl Fetched {
    pub(super) fn new(subscribed: Subscribed, messages: Batch, receiving: Receiving) -> Self {
        Self { messages, subscribed, receiving: Some(receiving), seen: Vec::new(), last_arrival: None }
    }

    /// Records the receive span, once.
    fn finish(&mut self, failed: Option<&async_nats::Error>) {
        let Some(mut receiving) = self.receiving.take() else { return };
        if let Some(last_arrival) = self.last_arrival {
            receiving = receiving.ended_at(last_arrival);
        }
        let failed = failed.map(|failed| error::raw_pull(failed.as_ref()));
        let seen = std::mem::take(&mut self.seen);
        let read: Vec<_> = seen.iter().map(|message| self.subscribed.read(message)).collect();
        let messages: Vec<_> = read.iter().map(RawMessage::incoming).collect();
        match &failed {
            Some(failed) => receiving.fail_after(&messages, failed),
            None => receiving.finish_batch(&messages),
        }
    }
}

impl Stream for Fetched {
    type Item = Result<StreamMessage, async_nats::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.messages.poll_next_unpin(context);
        if polled.is_pending() {
            // The pull goes on.
            self.last_arrival = None;
        }
        let next = ready!(polled);
        match &next {
            Some(Ok(message)) => {
                self.last_arrival = Some(Instant::now());
                if self.receiving.is_some() {
                    self.seen.push(message.message.clone());
                }
            }
            Some(Err(failed)) => self.finish(Some(failed)),
            None => self.finish(None),
        }
        Poll::Ready(next)
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        self.finish(None);
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("taken", &self.seen.len()).finish_non_exhaustive()
    }
}

/// What a subscription of the client yields: a message, or that of a stream or an error.
pub trait Pulled: sealed::Sealed {
    #[doc(hidden)]
    fn message(&self) -> Result<&Message, &(dyn Error + 'static)>;
}

impl Pulled for Message {
    fn message(&self) -> Result<&Message, &(dyn Error + 'static)> {
        Ok(self)
    }
}

impl<E: Error + 'static> Pulled for Result<StreamMessage, E> {
    fn message(&self) -> Result<&Message, &(dyn Error + 'static)> {
        self.as_ref().map(|message| &message.message).map_err(|failed| failed as &(dyn Error + 'static))
    }
}

mod sealed {
    /// What keeps the trait to what the client yields.
    pub trait Sealed {}

    impl Sealed for async_nats::Message {}
    impl<E> Sealed for Result<async_nats::jetstream::Message, E> {}
}
