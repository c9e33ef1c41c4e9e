use std::fmt;

use async_nats::jetstream::Message as StreamMessage;
use async_nats::jetstream::consumer::{Consumer, IntoConsumerConfig};
use async_nats::jetstream::message::AckKind;
use throughline_core::broker::{Pattern, Subscription};
use throughline_core::telemetry::Processing;

use super::{ClientMessage, Instrumentation, SubscriptionTelemetry};
use crate::semconv::{self, WILDCARDS};
use crate::{Stream, delivery};

/// Processing.
impl Instrumentation {
    /// Returns the telemetry of one subscription, described as for the framework: by its subject and queue group, or by
    /// the consumer of a stream and its filters. Nothing is subscribed to.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use futures_util::StreamExt;
    /// use throughline_nats::Subject;
    /// # async fn handle(_message: &async_nats::Message) {}
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, client: async_nats::Client,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let orders = otel.subscription(Subject::new("orders.{id}").queue_group("stock"));
    /// let mut messages = client.queue_subscribe("orders.*", "stock".to_owned()).await?;
    /// while let Some(message) = messages.next().await {
    ///     orders.process(&message, handle(&message)).await; // the span is `process orders.{id}`
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn subscription(&self, subscription: impl Into<Subscription>) -> SubscriptionTelemetry {
        let subscription = subscription.into();
        let systems = &self.shared.systems;
        let source = match subscription.native::<Stream>() {
            Some(stream) => {
                let name = stream.durable.as_deref().unwrap_or_default();
                let filters = crate::jetstream::filters(&subscription, stream);
                semconv::stream_source(&systems.jetstream, &filters, name, stream.deliver_group.as_deref())
            }
            None => semconv::core_source(&systems.core, &subscription, self.shared.inbox_prefix()),
        };
        self.shared.telemetry(source)
    }

    /// Returns the telemetry of a JetStream consumer, with what the server told about it: its name, filters and deliver
    /// group.
    ///
    /// A consumer without a filter does not tell its subjects; then a span has the subject of its message in its name.
    /// Use [`subscription`](Self::subscription) with a [`Stream`] that has a filter where these are many.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use async_nats::jetstream::consumer::PullConsumer;
    /// use futures_util::StreamExt;
    /// # async fn handle(_message: &async_nats::Message) {}
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, stream: async_nats::jetstream::stream::Stream,
    /// # ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///
    /// let consumer: PullConsumer = stream.get_consumer("stock").await?;
    /// let orders = otel.consumer(&consumer);
    /// let mut messages = consumer.messages().await?;
    /// while let Some(message) = messages.next().await {
    ///     let message = message?;
    ///     orders.process(&message, handle(&message)).await;
    ///     orders.ack(&message).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn consumer<T: IntoConsumerConfig>(&self, consumer: &Consumer<T>) -> SubscriptionTelemetry {
        let info = consumer.cached_info();
        let config = &info.config;
        let filters = config.filter_subjects.iter().chain([&config.filter_subject]);
        let filters: Vec<Pattern> = filters
            .filter(|filter| !filter.is_empty())
            .map(|filter| Pattern::new(filter.as_str(), WILDCARDS))
            .collect();
        let group = config.deliver_group.as_deref();
        self.shared.telemetry(semconv::stream_source(&self.shared.systems.jetstream, &filters, &info.name, group))
    }

    /// Runs a future as the processing of a message: in a span that belongs to the message's trace, with its baggage.
    ///
    /// The span is named by the operation alone unless a template matches the subject; [`subscription`](Self::subscription) names it
    /// by what was subscribed to. A status of the server is no message: it is logged, and the future runs without a span.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn handle(_message: &async_nats::Message) {}
    /// # async fn example(otel: throughline_nats::Instrumentation, message: async_nats::Message) {
    /// otel.process(&message, handle(&message)).await;
    /// # }
    /// ```
    pub async fn process<F: Future>(&self, message: &impl ClientMessage, future: F) -> F::Output {
        if self.shared.core.is_noted_as_status(message) {
            return future.await;
        }
        self.start(message).run(future).await
    }

    /// Runs a future as the processing of a message, as [`process`](Self::process); an error makes the span a failed
    /// one.
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
    /// #     otel: throughline_nats::Instrumentation, message: async_nats::Message,
    /// # ) -> Result<(), std::io::Error> {
    /// otel.try_process(&message, handle(&message)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_process<F, T, E>(&self, message: &impl ClientMessage, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: fmt::Display,
    {
        if self.shared.core.is_noted_as_status(message) {
            return future.await;
        }
        self.start(message).try_run(future).await
    }

    /// Acknowledges a message of a stream, as the client does.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, message: async_nats::jetstream::Message,
    /// # ) -> Result<(), async_nats::Error> {
    /// otel.ack(&message).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ack(&self, message: &StreamMessage) -> Result<(), async_nats::Error> {
        self.shared.stream.ack(message).await
    }

    /// Settles a message of a stream, as the client does. See [`SubscriptionTelemetry::ack_with`].
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use async_nats::jetstream::AckKind;
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, message: async_nats::jetstream::Message,
    /// # ) -> Result<(), async_nats::Error> {
    /// otel.ack_with(&message, AckKind::Nak(None)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ack_with(&self, message: &StreamMessage, kind: AckKind) -> Result<(), async_nats::Error> {
        self.shared.stream.ack_with(message, kind).await
    }

    /// Acknowledges a message of a stream and waits until the server has confirmed it, as the client does.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, message: async_nats::jetstream::Message,
    /// # ) -> Result<(), async_nats::Error> {
    /// otel.double_ack(&message).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn double_ack(&self, message: &StreamMessage) -> Result<(), async_nats::Error> {
        self.shared.stream.double_ack(message).await
    }

    /// Starts the processing of a message of an unknown subscription.
    fn start(&self, message: &impl ClientMessage) -> Processing {
        let message = message.as_message();
        if delivery::is_from_stream(message) {
            return self.shared.stream.start(message);
        }
        match semconv::inbox_template(&message.subject, self.shared.inbox_prefix()) {
            Some(prefix) => {
                self.shared.telemetry(semconv::inbox_source(&self.shared.systems.core, prefix)).start(message)
            }
            None => self.shared.core.start(message),
        }
    }
}
