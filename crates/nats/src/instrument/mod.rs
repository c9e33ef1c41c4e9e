mod fetched;
mod message;
mod outlet;
mod publish;
mod subscription;

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_nats::Client;
use async_nats::jetstream::Message as StreamMessage;
use async_nats::jetstream::consumer::{Consumer, IntoConsumerConfig};
use async_nats::jetstream::message::AckKind;
use throughline_core::broker::{Pattern, Subscription};
use throughline_core::message::Source;
use throughline_core::telemetry::{Builder, CreationContext, Instrumentation as Engine, Processing};

pub use self::fetched::{Fetched, Pulled};
pub use self::message::ClientMessage;
use self::outlet::{Bound, Outlet};
pub use self::publish::{ClientPublisher, PublishAckFuture};
pub use self::subscription::SubscriptionTelemetry;
use crate::semconv::{self, Systems, WILDCARDS};
use crate::{Stream, delivery};

/// Is the telemetry of a service that keeps its own client: the calls of `async-nats`, with spans, baggage and metrics around them.
///
/// Each call has the client's name, argument order and return type, and takes the client (or the JetStream context) first. What
/// is published carries the current context; a future that processes a message runs in the context of that message.
///
/// Everything is optional but worth it: [`with_server`](Self::with_server) and [`with_client`](Self::with_client) say what the
/// client does not tell by itself, [`with_template`](Self::with_template) keeps computed subjects out of span names, and
/// [`subscription`](Self::subscription) does the same for wildcard subscriptions.
///
/// # Examples
///
/// ```no_run
/// use futures_util::StreamExt;
/// # async fn handle(_message: &async_nats::Message) {}
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
///
/// let client = async_nats::connect("localhost:4222").await?;
/// let otel = throughline_nats::Instrumentation::from_globals();
/// let mut orders = client.subscribe("orders").await?;
/// otel.publish(&client, "orders", "{}".into()).await?;
/// while let Some(message) = orders.next().await {
///     otel.process(&message, handle(&message)).await;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Instrumentation {
    shared: Arc<Shared>,
    creation: CreationContext,
}

/// What all handles made of one configuration share.
struct Shared {
    engine: Engine,
    settings: Settings,
    systems: Systems,
    /// The connection of [`Instrumentation::with_client`].
    given: Option<Arc<Outlet>>,
    /// The first client that published, where none was given.
    bound: OnceLock<Bound>,
    core: SubscriptionTelemetry,
    stream: SubscriptionTelemetry,
}

/// What a user says about the connection and its subjects.
#[derive(Clone, Debug, Default)]
struct Settings {
    server: Option<(Arc<str>, u16)>,
    client_id: Option<Arc<str>>,
    inbox_prefix: Option<Arc<str>>,
    templates: Vec<Pattern>,
    records_position: bool,
}

impl Instrumentation {
    /// Creates the telemetry on the global providers. Install them first: what is global when this runs is what is used.
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_nats::Instrumentation::from_globals();
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn from_globals() -> Self {
        Self::builder().build()
    }

    /// Starts a builder: providers, propagator, and all else of [`Builder`].
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::SettleSpans;
    /// let otel = throughline_nats::Instrumentation::builder().settle_spans(SettleSpans::Always).build();
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn builder() -> Builder<Self> {
        Builder::for_target()
    }

    /// Sets `server.address` and `server.port`: the address as it was given to the client, which does not tell it (ATTR-C-17).
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_nats::Instrumentation::from_globals().with_server("localhost", 4222);
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_server(self, host: impl Into<Arc<str>>, port: u16) -> Self {
        self.changed(|settings| settings.server = Some((host.into(), port)))
    }

    /// Reads from the client what it tells: the number the server assigned, as `messaging.client.id`, and its inbox prefix.
    ///
    /// Publishing finds this out by itself; processing sees no client and goes without it unless it is said here. Use one
    /// instrumentation for each client: copies are cheap. The number is read once, it can change when the client reconnects.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), async_nats::ConnectError> {
    /// let client = async_nats::connect("localhost:4222").await?;
    /// let otel = throughline_nats::Instrumentation::from_globals().with_client(&client);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_client(self, client: &Client) -> Self {
        self.changed(|settings| {
            settings.inbox_prefix = Some(semconv::inbox_prefix(client).into());
            if settings.client_id.is_none() {
                settings.client_id = outlet::number(client);
            }
        })
    }

    /// Sets `messaging.client.id`: the name in the client's options, which the client does not tell (ATTR-N-07).
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_nats::Instrumentation::from_globals().with_client_id("stock");
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_client_id(self, id: impl Into<Arc<str>>) -> Self {
        self.changed(|settings| settings.client_id = Some(id.into()))
    }

    /// Shows every subject that matches the pattern by the pattern when it is published to: `publish orders.{id}` instead of a
    /// span name for each order. Do so for every subject that is computed (ATTR-N-03). The first pattern that matches counts.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(client: async_nats::Client, id: u64) -> Result<(), Box<dyn std::error::Error>> {
    /// let otel = throughline_nats::Instrumentation::from_globals().with_template("orders.{id}");
    /// otel.publish(&client, format!("orders.{id}"), "{}".into()).await?; // the span is `publish orders.{id}`
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_template(self, pattern: impl Into<Arc<str>>) -> Self {
        self.changed(|settings| settings.templates.push(Pattern::new(pattern, WILDCARDS)))
    }

    /// Records `messaging.nats.stream` and `messaging.nats.sequence` of messages from streams. Off by default: the conventions
    /// do not have these names yet (ATTR-J-08).
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_nats::Instrumentation::from_globals().record_stream_position();
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn record_stream_position(self) -> Self {
        self.changed(|settings| settings.records_position = true)
    }

    /// Returns a handle whose messages have their creation context from elsewhere: a given one is written instead of a new one
    /// (SPAN-25), and with `Kept` the headers stay as they are, for a message that is passed on as it came (SPAN-37).
    ///
    /// Without it, propagation headers that were copied from a received message are replaced (PROP-05).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use throughline_core::telemetry::CreationContext;
    /// # async fn example(
    /// #     otel: throughline_nats::Instrumentation, client: async_nats::Client, message: async_nats::Message,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let headers = message.headers.clone().unwrap_or_default();
    /// let forward = otel.with_creation_context(CreationContext::Kept);
    /// forward.publish_with_headers(&client, "orders.dead", headers, message.payload.clone()).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_creation_context(&self, creation: CreationContext) -> Self {
        Self { shared: Arc::clone(&self.shared), creation }
    }

    fn changed(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.shared.settings.clone();
        change(&mut settings);
        Self { shared: Arc::new(Shared::new(self.shared.engine.clone(), settings)), creation: self.creation }
    }
}

/// Receiving.
impl Instrumentation {
    /// Returns the telemetry of one subscription, described as for the framework: by its subject and queue group, or by the
    /// consumer of a stream and its filters. Nothing is subscribed to.
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

    /// Returns the telemetry of a JetStream consumer, with what the server told about it: its name, filters and deliver group.
    ///
    /// A consumer without a filter does not tell its subjects; then a span has the subject of its message in its name. Use
    /// [`subscription`](Self::subscription) with a [`Stream`] that has a filter where these are many.
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
    /// The span has the message's own subject in its name; where subjects are many, use [`subscription`](Self::subscription).
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
        self.start(message).run(future).await
    }

    /// Runs a future as the processing of a message, as [`process`](Self::process); an error makes the span a failed one.
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

impl Shared {
    fn new(engine: Engine, settings: Settings) -> Self {
        let systems = settings.systems(settings.client_id.as_deref());
        let telemetry = |source| SubscriptionTelemetry::new(&engine, source, settings.records_position);
        let given = settings
            .inbox_prefix
            .as_ref()
            .map(|prefix| Arc::new(Outlet::new(&engine, &systems, Arc::clone(prefix), &settings.templates)));
        Self {
            core: telemetry(Source::new(Arc::clone(&systems.core))),
            stream: telemetry(Source::new(Arc::clone(&systems.jetstream))),
            given,
            bound: OnceLock::new(),
            systems,
            engine,
            settings,
        }
    }

    fn inbox_prefix(&self) -> &str {
        self.settings.inbox_prefix.as_deref().unwrap_or(semconv::DEFAULT_INBOX)
    }

    fn telemetry(&self, source: Source) -> SubscriptionTelemetry {
        SubscriptionTelemetry::new(&self.engine, source, self.settings.records_position)
    }
}

impl Settings {
    fn systems(&self, client_id: Option<&str>) -> Systems {
        Systems::new(self.server.as_ref().map(|(host, port)| (host.as_ref(), *port)), client_id)
    }
}

impl From<Engine> for Instrumentation {
    /// Makes the telemetry of raw clients from an engine, which the framework may use at the same time.
    ///
    /// # Examples
    ///
    /// ```
    /// let engine = throughline_core::telemetry::Instrumentation::from_globals();
    /// let otel = throughline_nats::Instrumentation::from(engine.clone());
    /// # let _ = (engine, otel);
    /// ```
    fn from(engine: Engine) -> Self {
        Self { shared: Arc::new(Shared::new(engine, Settings::default())), creation: CreationContext::New }
    }
}

impl fmt::Debug for Instrumentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instrumentation")
            .field("settings", &self.shared.settings)
            .field("creation", &self.creation)
            .finish_non_exhaustive()
    }
}
