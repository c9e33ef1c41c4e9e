use std::any::Any;
use std::borrow::Cow;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::SpanContext;

use super::Publisher;
use super::hand_over::HandOver;
use crate::broker::{BoxFuture, PublishError, PublishErrorKind};
use crate::codec::Decode;
use crate::message::{Envelope, Receipt};

/// How long a request waits for its reply by default.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// A publish that is being prepared; awaiting it publishes.
#[must_use = "nothing is published until this is awaited"]
pub struct Publishing<'a> {
    publisher: &'a Publisher,
    state: State<'a>,
}

enum State<'a> {
    /// Without an envelope for an empty batch.
    Prepared(Result<Option<Envelope>, PublishError>),
    HandingOver(HandOver<'a>),
    InMiddleware(BoxFuture<'a, Result<Receipt, PublishError>>),
    Ended,
}

impl<'a> Publishing<'a> {
    pub(super) fn new(publisher: &'a Publisher, envelope: Result<Option<Envelope>, PublishError>) -> Self {
        Self { publisher, state: State::Prepared(envelope) }
    }

    /// Attaches the message's own properties in the terms of one broker, see [`Envelope::with_native`].
    pub fn native<T: Any + Send + Sync>(self, native: T) -> Self {
        self.map(|envelope| envelope.with_native(native))
    }

    /// Sets the key; of a batch, on each message.
    pub fn key(self, key: impl Into<Bytes>) -> Self {
        self.map(|envelope| envelope.with_key(key))
    }

    /// Sets a header; of a batch, on each message.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(publisher: throughline_core::Publisher) -> Result<(), throughline_core::PublishError> {
    /// publisher.publish("orders.placed", "{}").header("source", "web").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn header(self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        self.map(|envelope| envelope.with_header(name, value))
    }

    /// Sets the message id.
    pub fn id(self, id: impl Into<Arc<str>>) -> Self {
        self.map(|envelope| envelope.with_id(id))
    }

    /// Sets the correlation id; of a batch, on each message.
    pub fn correlation_id(self, id: impl Into<Arc<str>>) -> Self {
        self.map(|envelope| envelope.with_correlation_id(id))
    }

    /// Gives the message a creation context of the caller's instead of one made here.
    pub fn creation_context(self, context: SpanContext) -> Self {
        self.map(|envelope| envelope.with_creation_context(context))
    }

    fn map(mut self, change: impl FnOnce(Envelope) -> Envelope) -> Self {
        self.state = match self.state {
            State::Prepared(envelope) => State::Prepared(envelope.map(|envelope| envelope.map(change))),
            // Polled already: the message is on its way as it is.
            state => state,
        };
        self
    }
}

impl Future for Publishing<'_> {
    type Output = Result<Receipt, PublishError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let State::Prepared(prepared) = &mut this.state {
            let prepared = std::mem::replace(prepared, Ok(None));
            this.state = State::Ended;
            match prepared {
                Ok(Some(envelope)) if this.publisher.has_middleware() => {
                    this.state = State::InMiddleware(Box::pin(this.publisher.send(envelope)));
                }
                Ok(Some(envelope)) => {
                    // A transport inside the process is done at once; then there is no state to keep.
                    let mut handing_over = this.publisher.hand_over(envelope);
                    let polled = Pin::new(&mut handing_over).poll(context);
                    if polled.is_pending() {
                        this.state = State::HandingOver(handing_over);
                    }
                    return polled;
                }
                Ok(None) => return Poll::Ready(Ok(Receipt::new())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let polled = match &mut this.state {
            State::HandingOver(handing_over) => Pin::new(handing_over).poll(context),
            State::InMiddleware(sending) => sending.as_mut().poll(context),
            State::Prepared(_) | State::Ended => panic!("a publish was polled after its end"),
        };
        if polled.is_ready() {
            this.state = State::Ended;
        }
        polled
    }
}

/// A request that is being prepared; awaiting it publishes and waits for the reply.
#[must_use = "nothing is requested until this is awaited"]
pub struct Requesting<'a, T> {
    publisher: &'a Publisher,
    envelope: Result<Envelope, PublishError>,
    timeout: Duration,
    reply: PhantomData<fn() -> T>,
}

impl<'a, T> Requesting<'a, T> {
    pub(super) fn new(publisher: &'a Publisher, envelope: Result<Envelope, PublishError>) -> Self {
        Self { publisher, envelope, timeout: REPLY_TIMEOUT, reply: PhantomData }
    }

    /// Sets how long to wait for the reply (default 10 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets a header.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(publisher: throughline_core::Publisher) -> Result<(), throughline_core::PublishError> {
    /// let price: String = publisher.request("prices.get", "{}").header("tenant", "acme").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        self.envelope = self.envelope.map(|envelope| envelope.with_header(name, value));
        self
    }
}

impl<'a, T: Decode + 'a> IntoFuture for Requesting<'a, T> {
    type Output = Result<T, PublishError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let reply = self.publisher.ask(self.envelope?, self.timeout).await?;
            T::decode(&reply).map_err(|error| {
                PublishError::new(PublishErrorKind::Decode, "decode_error", "the reply could not be read")
                    .with_source(error)
            })
        })
    }
}
