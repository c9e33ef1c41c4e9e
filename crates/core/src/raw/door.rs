use std::fmt;

use super::message::{RawMessage, ReadMessage};
use crate::telemetry::{Incoming, ProcessOutput, Processing};

/// The processing of the messages of a client. Each adapter's own handle leads here: what is written below is called on that handle.
///
/// `R` says how messages are read, see [`ReadMessage`].
#[derive(Clone)]
pub struct Door<R> {
    reader: R,
}

impl<R> Door<R> {
    /// Makes the door of messages that are read so; for an adapter.
    #[must_use]
    pub const fn new(reader: R) -> Self {
        Self { reader }
    }

    /// Returns how messages are read; for an adapter.
    #[must_use]
    pub const fn reader(&self) -> &R {
        &self.reader
    }

    /// Runs a future as the processing of a message: in a span that belongs to the message's trace, with its baggage. An error that the
    /// future returns makes the span a failed one, with the error's type as `error.type`.
    ///
    /// A word of the server, which some clients hand over like a message, is none: it is logged, and the future runs without a span.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::raw::{Door, ReadMessage};
    /// # async fn handle<M>(_message: &M) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example<R: ReadMessage<M>, M>(otel: Door<R>, message: M) -> Result<(), std::io::Error> {
    /// otel.process(&message, handle(&message)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn process<M, F>(&self, message: &M, future: F) -> F::Output
    where
        R: ReadMessage<M>,
        F: Future<Output: ProcessOutput>,
    {
        let processing = self.start(message);
        processing.run(future).await
    }

    /// Runs a future as the processing of several messages at once, as [`process`](Self::process): in one span with a link to each,
    /// their baggage merged. A word of the server among them is logged and left out of the span.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::raw::{Door, ReadMessage};
    /// # async fn bill<M>(_messages: &[M]) {}
    /// # async fn example<R: ReadMessage<M>, M>(otel: Door<R>, messages: Vec<M>) {
    /// otel.process_batch(&messages, bill(&messages)).await;
    /// # }
    /// ```
    pub async fn process_batch<M, F>(&self, messages: &[M], future: F) -> F::Output
    where
        R: ReadMessage<M>,
        F: Future<Output: ProcessOutput>,
    {
        let processing = self.start_batch(messages);
        processing.run(future).await
    }

    /// Starts the processing of a message, for handlers that want its span and baggage: they are in its
    /// [scope](Processing::scope), and the [`Processing`] runs the handler.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::raw::{Door, ReadMessage};
    /// use throughline_core::telemetry::Scope;
    /// use throughline_core::{CurrentBaggage, CurrentSpan};
    ///
    /// async fn handle<M>(message: &M, scope: Scope) {
    ///     scope.set_attribute("order.is_large", true);
    ///     scope.set("warehouse", "north"); // what is published from here on carries it
    /// }
    ///
    /// # async fn example<R: ReadMessage<M>, M>(otel: Door<R>, message: M) {
    /// let processing = otel.start(&message);
    /// let scope = processing.scope().clone();
    /// processing.run(handle(&message, scope)).await;
    /// # }
    /// ```
    pub fn start<M>(&self, message: &M) -> Processing
    where
        R: ReadMessage<M>,
    {
        let consumer = self.reader.consumer(Some(message));
        if self.reader.accept(message) {
            consumer.process(&self.reader.read(message).incoming())
        } else {
            consumer.pass_by()
        }
    }

    /// Starts the processing of several messages; the [scope](Processing::scope) also has that of each message.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::raw::{Door, ReadMessage};
    /// use throughline_core::CurrentBaggage;
    /// # async fn bill<M>(_messages: &[M]) {}
    /// # async fn example<R: ReadMessage<M>, M>(otel: Door<R>, messages: Vec<M>) {
    /// let processing = otel.start_batch(&messages);
    /// let tenants: Vec<_> = processing.scope().messages().iter().map(|message| message.get("tenant")).collect();
    /// processing.run(bill(&messages)).await;
    /// # }
    /// ```
    pub fn start_batch<M>(&self, messages: &[M]) -> Processing
    where
        R: ReadMessage<M>,
    {
        let mut first = None;
        let mut read = Vec::with_capacity(messages.len());
        for message in messages.iter().filter(|message| self.reader.accept(message)) {
            first.get_or_insert(message);
            read.push(self.reader.read(message));
        }
        let consumer = self.reader.consumer(first);
        if read.is_empty() && !messages.is_empty() {
            return consumer.pass_by();
        }
        let incoming: Vec<Incoming<'_>> = read.iter().map(RawMessage::incoming).collect();
        consumer.process_batch(&incoming)
    }
}

impl<R> fmt::Debug for Door<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}
