use std::fmt;
use std::sync::Arc;

use async_nats::jetstream::consumer::pull::{Batch, BatchError};
use futures_util::{Stream, StreamExt};
use throughline_core::message::Source;
use throughline_core::telemetry::{Consumer, Incoming, Instrumentation as Engine, ParentMode, Processing, Trust};

use super::fetched::{Fetched, Pulled};
use super::message::{ClientMessage, Seen};
use crate::error;
use crate::status::{Statuses, is_status};

/// Is the telemetry of one subscription of a raw client: receive, process and settle. A clone is cheap.
///
/// [`Instrumentation::subscription`](super::Instrumentation::subscription) and
/// [`Instrumentation::consumer`](super::Instrumentation::consumer) make one.
///
/// # Examples
///
/// ```no_run
/// use throughline_nats::{Instrumentation, Subject};
/// # async fn handle(_message: &async_nats::Message) {}
/// # async fn example(message: async_nats::Message) {
/// let orders = Instrumentation::from_globals().subscription(Subject::new("orders.*").queue_group("stock"));
/// orders.process(&message, handle(&message)).await;
/// # }
/// ```
#[derive(Clone)]
pub struct SubscriptionTelemetry {
    pub(super) consumer: Consumer,
    names_consumer: bool,
    records_position: bool,
    statuses: Arc<Statuses>,
}

impl SubscriptionTelemetry {
    pub(super) fn new(engine: &Engine, source: Source, records_position: bool) -> Self {
        let names_consumer = source.subscription.is_none();
        Self { consumer: engine.consumer(source.into()), names_consumer, records_position, statuses: Arc::default() }
    }

    /// Sets what the parent of a process span is, for this subscription alone (LINK-10).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::ParentMode;
    /// use throughline_nats::{Instrumentation, Subject};
    /// let orders = Instrumentation::from_globals().subscription(Subject::new("orders"));
    /// let orders = orders.with_parent_mode(ParentMode::LinkOnly);
    /// # let _ = orders;
    /// ```
    #[must_use]
    pub fn with_parent_mode(mut self, mode: ParentMode) -> Self {
        self.consumer = self.consumer.with_parent_mode(mode);
        self
    }

    /// Sets how far incoming headers are trusted, for this subscription alone (PROP-22).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::Trust;
    /// use throughline_nats::{Instrumentation, Subject};
    /// let public = Instrumentation::from_globals().subscription(Subject::new("public.>")).with_trust(Trust::Ignore);
    /// # let _ = public;
    /// ```
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.consumer = self.consumer.with_trust(trust);
        self
    }

    /// Runs a future as the processing of a message: in a span that belongs to the message's trace, with its baggage.
    ///
    /// A status of the server, which the client hands over like a message, is none: it is logged, and the future runs without a span.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn handle(_message: &async_nats::Message) {}
    /// # async fn example(orders: throughline_nats::SubscriptionTelemetry, message: async_nats::Message) {
    /// orders.process(&message, handle(&message)).await;
    /// # }
    /// ```
    pub async fn process<F: Future>(&self, message: &impl ClientMessage, future: F) -> F::Output {
        if self.is_noted_as_status(message) {
            return future.await;
        }
        self.start(message).run(future).await
    }

    /// Runs a future as the processing of a message, as [`process`](Self::process); an error makes the span a failed
    /// one, with the error's type as `error.type`.
    ///
    /// # Errors
    ///
    /// Returns what the future returns.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn handle(_message: &async_nats::Message) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example(
    /// #     orders: throughline_nats::SubscriptionTelemetry, message: async_nats::Message,
    /// # ) -> Result<(), std::io::Error> {
    /// orders.try_process(&message, handle(&message)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_process<F, T, E>(&self, message: &impl ClientMessage, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: fmt::Display,
    {
        if self.is_noted_as_status(message) {
            return future.await;
        }
        self.start(message).try_run(future).await
    }

    /// Runs a future as the processing of several messages at once: in one span with a link to each, their baggage
    /// merged. A status of the server among them is logged and left out of the span.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn bill(_messages: &[async_nats::Message]) {}
    /// # async fn example(orders: throughline_nats::SubscriptionTelemetry, messages: Vec<async_nats::Message>) {
    /// orders.process_batch(&messages, bill(&messages)).await;
    /// # }
    /// ```
    pub async fn process_batch<F: Future>(&self, messages: &[impl ClientMessage], future: F) -> F::Output {
        match self.start_messages(messages) {
            Some(processing) => processing.run(future).await,
            None => future.await,
        }
    }

    /// Runs a future as the processing of several messages, as [`process_batch`](Self::process_batch); an error makes
    /// the span a failed one.
    ///
    /// # Errors
    ///
    /// Returns what the future returns.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn bill(_messages: &[async_nats::Message]) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn example(
    /// #     orders: throughline_nats::SubscriptionTelemetry, messages: Vec<async_nats::Message>,
    /// # ) -> Result<(), std::io::Error> {
    /// orders.try_process_batch(&messages, bill(&messages)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_process_batch<F, T, E>(&self, messages: &[impl ClientMessage], future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: fmt::Display,
    {
        match self.start_messages(messages) {
            Some(processing) => processing.try_run(future).await,
            None => future.await,
        }
    }

    /// Starts the processing of a message, for handlers that want its span and baggage: they are in its
    /// [scope](Processing::scope), and the [`Processing`] runs the handler.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use throughline_core::telemetry::{CurrentBaggage, CurrentSpan, Scope};
    ///
    /// async fn handle(message: &async_nats::Message, scope: Scope) {
    ///     scope.set_attribute("order.size", message.payload.len() as i64);
    ///     scope.set("warehouse", "north"); // what is published from here on carries it
    /// }
    ///
    /// # async fn example(orders: throughline_nats::SubscriptionTelemetry, message: async_nats::Message) {
    /// let processing = orders.start(&message);
    /// let scope = processing.scope().clone();
    /// processing.run(handle(&message, scope)).await;
    /// # }
    /// ```
    pub fn start(&self, message: &impl ClientMessage) -> Processing {
        self.consumer.process(&self.seen(message).incoming())
    }

    /// Starts the processing of several messages; the [scope](Processing::scope) also has that of each message.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use throughline_core::telemetry::CurrentBaggage;
    /// # async fn bill(_messages: &[async_nats::Message]) {}
    /// # async fn example(orders: throughline_nats::SubscriptionTelemetry, messages: Vec<async_nats::Message>) {
    /// let processing = orders.start_batch(&messages);
    /// let tenants: Vec<_> = processing.scope().messages().iter().map(|message| message.get("tenant")).collect();
    /// processing.run(bill(&messages)).await;
    /// # }
    /// ```
    pub fn start_batch(&self, messages: &[impl ClientMessage]) -> Processing {
        self.look_at(messages, |messages| self.consumer.process_batch(messages))
    }

    /// Awaits a pull of the client and returns its messages, of the client's own type, with a receive span around the
    /// pull that links to each of them.
    ///
    /// The span is recorded when the last message was taken, and ends with its arrival however long the messages are
    /// handled.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use futures_util::StreamExt;
    /// # async fn handle(_message: &async_nats::Message) {}
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, consumer: async_nats::jetstream::consumer::PullConsumer,
    /// # ) -> Result<(), async_nats::Error> {
    ///
    /// let orders = otel.consumer(&consumer);
    /// let mut messages = orders.fetch(consumer.fetch().max_messages(100).messages()).await?;
    /// while let Some(message) = messages.next().await {
    ///     let message = message?;
    ///     orders.process(&message, handle(&message)).await;
    ///     orders.ack(&message).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn fetch<F>(&self, messages: F) -> Result<Fetched, BatchError>
    where
        F: Future<Output = Result<Batch, BatchError>>,
    {
        let receiving = self.consumer.receive();
        match messages.await {
            Ok(messages) => Ok(Fetched::new(self.clone(), messages, receiving)),
            Err(failed) => {
                receiving.fail_after(&[], &error::raw_pull(&failed));
                Err(failed)
            }
        }
    }

    /// Waits for the next message of a subscription of the client, with a receive span around the wait.
    ///
    /// A status of the server in place of a message, as after a request that nobody answers, is logged and not returned.
    ///
    /// For services that pull: where a loop does nothing but take and process messages, the process spans are enough.
    ///
    /// # Cancel safety
    ///
    /// As the client's: a dropped call loses no message, and has no span.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use throughline_nats::{Instrumentation, Subject};
    /// # async fn example(client: async_nats::Client) -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let mut messages = client.subscribe("orders").await?;
    /// let orders = Instrumentation::from_globals().subscription(Subject::new("orders"));
    /// let message = orders.next(&mut messages).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next<S>(&self, messages: &mut S) -> Option<S::Item>
    where
        S: Stream + Unpin,
        S::Item: Pulled,
    {
        let receiving = self.consumer.receive();
        let next = loop {
            let next = messages.next().await;
            match next.as_ref().map(Pulled::message) {
                Some(Ok(message)) if is_status(message) => self.statuses.note(message),
                _ => break next,
            }
        };
        match next.as_ref().map(Pulled::message) {
            Some(Ok(message)) => receiving.finish(&self.seen(message).incoming()),
            Some(Err(failed)) => receiving.fail(&error::raw_pull(failed)),
            None => {}
        }
        next
    }

    /// Tells whether this is a status of the server, and notes it then.
    pub(super) fn is_noted_as_status(&self, message: &impl ClientMessage) -> bool {
        let message = message.as_message();
        let is_status = is_status(message);
        if is_status {
            self.statuses.note(message);
        }
        is_status
    }

    /// Starts the processing of what is a message; `None` where none of several is one.
    fn start_messages(&self, messages: &[impl ClientMessage]) -> Option<Processing> {
        if !messages.iter().any(|message| is_status(message.as_message())) {
            return Some(self.start_batch(messages));
        }
        let (statuses, messages): (Vec<_>, Vec<_>) =
            messages.iter().map(ClientMessage::as_message).partition(|message| is_status(message));
        statuses.into_iter().for_each(|status| self.statuses.note(status));
        (!messages.is_empty()).then(|| self.start_batch(&messages))
    }

    pub(super) fn seen<'a>(&self, message: &'a impl ClientMessage) -> Seen<'a> {
        Seen::new(message.as_message(), self.names_consumer, self.records_position)
    }

    pub(super) fn look_at<R>(&self, messages: &[impl ClientMessage], tell: impl FnOnce(&[Incoming<'_>]) -> R) -> R {
        let seen: Vec<Seen<'_>> = messages.iter().map(|message| self.seen(message)).collect();
        let incoming: Vec<Incoming<'_>> = seen.iter().map(Seen::incoming).collect();
        tell(&incoming)
    }
}

impl fmt::Debug for SubscriptionTelemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionTelemetry").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
