use std::fmt;

use rdkafka::Message;
use throughline_core::telemetry::{Incoming, Processing};

use super::Instrumentation;
use super::message::Seen;
use crate::RecordHeaders;

/// Processing.
impl Instrumentation {
    /// Runs a future as the processing of a message: in a span that belongs to the message's trace, with its baggage.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::message::BorrowedMessage;
    /// # async fn handle(_message: &BorrowedMessage<'_>) {}
    /// # async fn example(otel: throughline_kafka::Instrumentation, message: BorrowedMessage<'_>) {
    /// otel.process(&message, handle(&message)).await;
    /// # }
    /// ```
    pub async fn process<M, F>(&self, message: &M, future: F) -> F::Output
    where
        M: Message,
        M::Headers: RecordHeaders,
        F: Future,
    {
        let processing = self.start(message);
        processing.run(future).await
    }

    /// Runs a future as the processing of a message, as [`process`](Self::process); an error makes the span a failed one,
    /// with the error's type as `error.type`.
    ///
    /// # Errors
    ///
    /// Returns what the future returns.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::message::BorrowedMessage;
    /// # async fn handle(_message: &BorrowedMessage<'_>) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example(
    /// #     otel: throughline_kafka::Instrumentation, message: BorrowedMessage<'_>,
    /// # ) -> Result<(), std::io::Error> {
    /// otel.try_process(&message, handle(&message)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_process<M, F, T, E>(&self, message: &M, future: F) -> Result<T, E>
    where
        M: Message,
        M::Headers: RecordHeaders,
        F: Future<Output = Result<T, E>>,
        E: fmt::Display,
    {
        let processing = self.start(message);
        processing.try_run(future).await
    }

    /// Runs a future as the processing of several messages at once: in one span with a link to each, their baggage merged.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::message::BorrowedMessage;
    /// # async fn bill(_messages: &[BorrowedMessage<'_>]) {}
    /// # async fn example(otel: throughline_kafka::Instrumentation, messages: Vec<BorrowedMessage<'_>>) {
    /// otel.process_batch(&messages, bill(&messages)).await;
    /// # }
    /// ```
    pub async fn process_batch<M, F>(&self, messages: &[M], future: F) -> F::Output
    where
        M: Message,
        M::Headers: RecordHeaders,
        F: Future,
    {
        let processing = self.start_batch(messages);
        processing.run(future).await
    }

    /// Runs a future as the processing of several messages, as [`process_batch`](Self::process_batch); an error makes the
    /// span a failed one.
    ///
    /// # Errors
    ///
    /// Returns what the future returns.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::message::BorrowedMessage;
    /// # async fn bill(_messages: &[BorrowedMessage<'_>]) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example(
    /// #     otel: throughline_kafka::Instrumentation, messages: Vec<BorrowedMessage<'_>>,
    /// # ) -> Result<(), std::io::Error> {
    /// otel.try_process_batch(&messages, bill(&messages)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_process_batch<M, F, T, E>(&self, messages: &[M], future: F) -> Result<T, E>
    where
        M: Message,
        M::Headers: RecordHeaders,
        F: Future<Output = Result<T, E>>,
        E: fmt::Display,
    {
        let processing = self.start_batch(messages);
        processing.try_run(future).await
    }

    /// Starts the processing of a message, for handlers that want its span and baggage: they are in its
    /// [scope](Processing::scope), and the [`Processing`] runs the handler.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::Message;
    /// use rdkafka::message::BorrowedMessage;
    /// use throughline_core::telemetry::{CurrentBaggage, CurrentSpan, Scope};
    ///
    /// async fn handle(message: &BorrowedMessage<'_>, scope: Scope) {
    ///     scope.set_attribute("order.size", message.payload_len() as i64);
    ///     scope.set("warehouse", "north"); // what is sent from here on carries it
    /// }
    ///
    /// # async fn example(otel: throughline_kafka::Instrumentation, message: BorrowedMessage<'_>) {
    /// let processing = otel.start(&message);
    /// let scope = processing.scope().clone();
    /// processing.run(handle(&message, scope)).await;
    /// # }
    /// ```
    pub fn start<M>(&self, message: &M) -> Processing
    where
        M: Message,
        M::Headers: RecordHeaders,
    {
        self.consumer().process(&Seen::new(message, self.records_keys()).incoming())
    }

    /// Starts the processing of several messages; the [scope](Processing::scope) also has that of each message.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::message::BorrowedMessage;
    /// use throughline_core::telemetry::CurrentBaggage;
    /// # async fn bill(_messages: &[BorrowedMessage<'_>]) {}
    /// # async fn example(otel: throughline_kafka::Instrumentation, messages: Vec<BorrowedMessage<'_>>) {
    /// let processing = otel.start_batch(&messages);
    /// let tenants: Vec<_> = processing.scope().messages().iter().map(|message| message.get("tenant")).collect();
    /// processing.run(bill(&messages)).await;
    /// # }
    /// ```
    pub fn start_batch<M>(&self, messages: &[M]) -> Processing
    where
        M: Message,
        M::Headers: RecordHeaders,
    {
        let seen: Vec<Seen<'_>> = messages.iter().map(|message| Seen::new(message, self.records_keys())).collect();
        let incoming: Vec<Incoming<'_>> = seen.iter().map(Seen::incoming).collect();
        self.consumer().process_batch(&incoming)
    }
}
