mod callbacks;
mod commit;
mod message;
mod publish;
mod pull;
mod report;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};
use rdkafka::util::Timeout;
use throughline_core::broker::HeaderNames;
use throughline_core::message::CreationContext;
use throughline_core::raw::{self, ClientSettings, Door, Handle};
use throughline_core::telemetry::{Builder, Instrumentation as Engine, ParentMode, Trust};

pub use self::callbacks::{CallbackProducer, PendingDelivery, ProducerTelemetry};
use self::message::RawClient;
pub use self::report::DeliveryFuture;
use crate::semconv;

/// The telemetry of a service that keeps its own client: the calls of `rdkafka`, with spans, baggage and metrics around
/// them.
///
/// Each call has the client's name, argument order and return type, and takes the producer or consumer first. What is sent
/// carries the current context; a future that processes a message runs in the context of that message. Contexts, callbacks
/// and settings of the client stay the user's.
///
/// [`process`](Door::process) and what goes with it are those of [`Door`], to which this leads.
///
/// Everything is optional but worth it: [`with_config`](Self::with_config) says what the client does not tell by itself, and
/// [`topics`](Self::topics) what a consumer is subscribed to. Use one instrumentation for each client: copies are cheap.
///
/// # Examples
///
/// ```no_run
/// use rdkafka::ClientConfig;
/// use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
/// use throughline_kafka::Instrumentation;
/// # async fn handle(_message: &rdkafka::message::BorrowedMessage<'_>) {}
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
///
/// let mut config = ClientConfig::new();
/// config.set("bootstrap.servers", "localhost:9092").set("group.id", "stock").set("enable.auto.commit", "false");
/// let otel = Instrumentation::from_globals().with_config(&config).topics(["orders"]);
/// let consumer: StreamConsumer = config.create()?;
/// consumer.subscribe(&["orders"])?;
/// loop {
///     let message = consumer.recv().await?;
///     otel.process(&message, handle(&message)).await;
///     otel.commit_message(&consumer, &message, CommitMode::Async)?;
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Instrumentation {
    handle: Handle<Settings>,
}

/// What a user says about the client.
#[derive(Clone, Debug, Default)]
struct Settings {
    cluster_id: Option<Arc<str>>,
    group: Option<Arc<str>>,
    topics: Vec<Arc<str>>,
    hides_keys: bool,
    names: HeaderNames,
}

impl Instrumentation {
    /// Creates the telemetry on the global providers. Install them first: what is global when this runs is what is used.
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_kafka::Instrumentation::from_globals();
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
    /// let otel = throughline_kafka::Instrumentation::builder().settle_spans(SettleSpans::Always).build();
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn builder() -> Builder<Self> {
        Builder::for_target()
    }

    /// Reads what a client is configured with: `bootstrap.servers`, `client.id` and `group.id`, as
    /// [`with_server`](Self::with_server), [`with_client_id`](Self::with_client_id) and [`group`](Self::group) set them.
    ///
    /// Of several different servers none is named, since it is not known which one is used.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut config = rdkafka::ClientConfig::new();
    /// config.set("bootstrap.servers", "localhost:9092").set("group.id", "stock");
    /// let otel = throughline_kafka::Instrumentation::from_globals().with_config(&config);
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_config(self, config: &ClientConfig) -> Self {
        let servers = config.get("bootstrap.servers").or_else(|| config.get("metadata.broker.list"));
        let server = servers.and_then(semconv::server);
        self.changed(|client, settings| {
            client.server = server.map(|(host, port)| (host.into(), port));
            client.client_id = config.get("client.id").map(Into::into);
            settings.group = config.get("group.id").map(Into::into);
        })
    }

    /// Sets `server.address` and `server.port`: the address as it was given to the client.
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_kafka::Instrumentation::from_globals().with_server("localhost", 9092);
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_server(self, host: impl Into<Arc<str>>, port: u16) -> Self {
        self.changed(|client, _| client.server = Some((host.into(), port)))
    }

    /// Sets `messaging.client.id`: the `client.id` of the client, if it has one.
    #[must_use]
    pub fn with_client_id(self, id: impl Into<Arc<str>>) -> Self {
        self.changed(|client, _| client.client_id = Some(id.into()))
    }

    /// Sets `messaging.kafka.cluster.id`.
    #[must_use]
    pub fn with_cluster_id(self, id: impl Into<Arc<str>>) -> Self {
        self.changed(|_, settings| settings.cluster_id = Some(id.into()))
    }

    /// Asks a client for `messaging.kafka.cluster.id`. Where it does not know it in time, there is none.
    ///
    /// This blocks until the client has heard from a broker, for as long as the timeout at most: call it once, when the
    /// service starts, and in an async program from `spawn_blocking`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use rdkafka::producer::{FutureProducer, Producer};
    /// # fn example(otel: throughline_kafka::Instrumentation, producer: FutureProducer) {
    /// let otel = otel.with_cluster_id_of(producer.client(), Duration::from_secs(5));
    /// # }
    /// ```
    #[must_use]
    pub fn with_cluster_id_of<C: ClientContext>(self, client: &Client<C>, timeout: impl Into<Timeout>) -> Self {
        let found = client.fetch_cluster_id(timeout);
        self.changed(|_, settings| settings.cluster_id = found.map(Into::into))
    }

    /// Sets `messaging.consumer.group.name`: the `group.id` of the consumer.
    #[must_use]
    pub fn group(self, group: impl Into<Arc<str>>) -> Self {
        self.changed(|_, settings| settings.group = Some(group.into()))
    }

    /// Says what the consumer is subscribed to, in the words of the client's `subscribe`. The only topic is on the metrics
    /// and on spans of no message, such as a pull that got nothing; of several topics, or of a pattern, none is.
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_kafka::Instrumentation::from_globals().group("stock").topics(["orders"]);
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn topics<T: Into<Arc<str>>>(self, topics: impl IntoIterator<Item = T>) -> Self {
        self.changed(|_, settings| settings.topics = topics.into_iter().map(Into::into).collect())
    }

    /// Leaves out `messaging.kafka.message.key`, for keys that are private.
    #[must_use]
    pub fn without_message_keys(self) -> Self {
        self.changed(|_, settings| settings.hides_keys = true)
    }

    /// Sets the names of the headers in which the ids of messages are looked for; the default is `message-id` and `correlation-id`.
    #[must_use]
    pub fn with_header_names(self, names: HeaderNames) -> Self {
        self.changed(|_, settings| settings.names = names)
    }

    /// Sets what the parent of a process span is, for this consumer alone.
    #[must_use]
    pub fn with_parent_mode(self, mode: ParentMode) -> Self {
        self.changed(|client, _| client.parent = Some(mode))
    }

    /// Sets how far incoming headers are trusted, for this consumer alone.
    #[must_use]
    pub fn with_trust(self, trust: Trust) -> Self {
        self.changed(|client, _| client.trust = Some(trust))
    }

    /// Returns a handle that sends with another creation context: with `Given` each record carries that one instead of a
    /// new one, and with `Kept` the headers stay as they are, for a message that is passed on as it came.
    ///
    /// Without it, propagation headers that were copied from a received message are replaced.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use rdkafka::Message;
    /// use rdkafka::message::{BorrowedHeaders, BorrowedMessage};
    /// use rdkafka::producer::{FutureProducer, FutureRecord};
    /// use throughline_core::message::CreationContext;
    /// use throughline_kafka::Instrumentation;
    ///
    /// async fn bury(otel: &Instrumentation, producer: &FutureProducer, message: &BorrowedMessage<'_>) {
    ///     let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to("orders.dead");
    ///     (record.key, record.payload) = (message.key(), message.payload());
    ///     record.headers = message.headers().map(BorrowedHeaders::detach); // whatever they are
    ///     let forward = otel.with_creation_context(CreationContext::Kept);
    ///     let sent = forward.send(producer, record, Duration::from_secs(5)).await;
    ///     # let _ = sent;
    /// }
    /// ```
    #[must_use]
    pub fn with_creation_context(&self, creation: CreationContext) -> Self {
        Self { handle: self.handle.with_creation_context(creation) }
    }

    fn changed(self, change: impl FnOnce(&mut ClientSettings, &mut Settings)) -> Self {
        Self { handle: self.handle.changed(change) }
    }
}

impl raw::Settings for Settings {
    type Prepared = RawClient;

    fn prepare(&self, engine: &Engine, client: &ClientSettings) -> RawClient {
        let system = semconv::system(client.server(), client.client_id.as_deref(), self.cluster_id.as_deref());
        let source = semconv::source(Arc::clone(&system), self.only_topic(), self.group.as_ref());
        RawClient {
            consumer: client.consumer(engine, source),
            producer: engine.producer(system),
            hides_keys: self.hides_keys,
            names: self.names,
        }
    }
}

impl Settings {
    fn only_topic(&self) -> Option<&Arc<str>> {
        match self.topics.as_slice() {
            [topic] if !topic.starts_with('^') => Some(topic),
            _ => None,
        }
    }
}

/// Leads to what processes messages.
impl Deref for Instrumentation {
    type Target = Door<RawClient>;

    fn deref(&self) -> &Door<RawClient> {
        self.handle.door()
    }
}

impl From<Engine> for Instrumentation {
    /// Makes the telemetry of raw clients from an engine, which the framework may use at the same time.
    ///
    /// # Examples
    ///
    /// ```
    /// let engine = throughline_core::telemetry::Instrumentation::from_globals();
    /// let otel = throughline_kafka::Instrumentation::from(engine.clone());
    /// # let _ = (engine, otel);
    /// ```
    fn from(engine: Engine) -> Self {
        Self { handle: Handle::new(engine) }
    }
}
