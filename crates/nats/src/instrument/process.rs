use std::borrow::Cow;

use async_nats::jetstream::Message as StreamMessage;
use async_nats::jetstream::consumer::{Consumer as StreamConsumer, IntoConsumerConfig};
use async_nats::jetstream::message::AckKind;
use throughline_core::broker::{Pattern, Subscription};
use throughline_core::raw::{RawMessage, ReadMessage};
use throughline_core::telemetry::Consumer;

use super::message::RawPosition;
use super::{ClientMessage, Instrumentation, RawClient, SubscriptionTelemetry};
use crate::carrier::ClientHeaders;
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
        let client = self.reader();
        let source = match subscription.native::<Stream>() {
            Some(stream) => {
                let name = stream.durable.as_deref().unwrap_or_default();
                let filters = crate::jetstream::filters(&subscription, stream);
                semconv::stream_source(&client.systems.jetstream, &filters, name, stream.deliver_group.as_deref())
            }
            None => semconv::core_source(&client.systems.core, &subscription, client.inbox_prefix()),
        };
        client.telemetry(source)
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
    pub fn consumer<T: IntoConsumerConfig>(&self, consumer: &StreamConsumer<T>) -> SubscriptionTelemetry {
        let (client, info) = (self.reader(), consumer.cached_info());
        let config = &info.config;
        let filters = config.filter_subjects.iter().chain([&config.filter_subject]);
        let filters: Vec<Pattern> = filters
            .filter(|filter| !filter.is_empty())
            .map(|filter| Pattern::new(filter.as_str(), WILDCARDS))
            .collect();
        let group = config.deliver_group.as_deref();
        client.telemetry(semconv::stream_source(&client.systems.jetstream, &filters, &info.name, group))
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
        self.reader().stream.ack(message).await
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
        self.reader().stream.ack_with(message, kind).await
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
        self.reader().stream.double_ack(message).await
    }
}

/// The messages of a subscription that is not known.
impl<M: ClientMessage> ReadMessage<M> for RawClient {
    type Headers = ClientHeaders;
    type Native = RawPosition;

    fn consumer(&self, message: Option<&M>) -> Cow<'_, Consumer> {
        match message.map(ClientMessage::as_message) {
            Some(message) if delivery::is_from_stream(message) => Cow::Borrowed(&self.stream.reader().consumer),
            Some(message) => match semconv::inbox_template(&message.subject, self.inbox_prefix()) {
                Some(prefix) => Cow::Owned(self.consumer(semconv::inbox_source(&self.systems.core, prefix))),
                None => Cow::Borrowed(&self.core.reader().consumer),
            },
            None => Cow::Borrowed(&self.core.reader().consumer),
        }
    }

    fn read<'a>(&self, message: &'a M) -> RawMessage<'a, ClientHeaders, RawPosition> {
        self.stream.reader().read(message)
    }

    fn accept(&self, message: &M) -> bool {
        self.core.reader().accept(message)
    }
}
