mod callbacks;
mod commit;
mod message;
mod process;
mod publish;
mod pull;
mod report;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};
use rdkafka::util::Timeout;
use throughline_core::message::{Source, System};
use throughline_core::telemetry::{
    Builder, Consumer, CreationContext, Instrumentation as Engine, ParentMode, Producer, Trust,
};

pub use self::callbacks::{CallbackProducer, PendingDelivery, ProducerTelemetry};
pub use self::report::DeliveryFuture;
use crate::semconv;

/// Is the telemetry of a service that keeps its own client: the calls of `rdkafka`, with spans, baggage and metrics around
/// them.
///
/// Each call has the client's name, argument order and return type, and takes the producer or consumer first. What is sent
/// carries the current context; a future that processes a message runs in the context of that message. Contexts, callbacks
/// and settings of the client stay the user's.
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
#[derive(Clone)]
pub struct Instrumentation {
    shared: Arc<Shared>,
    creation: CreationContext,
}

/// What all handles made of one configuration share.
struct Shared {
    engine: Engine,
    settings: Settings,
    producer: Producer,
    consumer: Consumer,
}

/// What a user says about the client.
#[derive(Clone, Debug)]
struct Settings {
    server: Option<(Arc<str>, u16)>,
    client_id: Option<Arc<str>>,
    cluster_id: Option<Arc<str>>,
    group: Option<Arc<str>>,
    topics: Vec<Arc<str>>,
    records_keys: bool,
    parent: Option<ParentMode>,
    trust: Option<Trust>,
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
    /// Of several different servers none is named, since it is not known which one is used (ATTR-C-17).
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
        self.changed(|settings| {
            settings.server = server.map(|(host, port)| (host.into(), port));
            settings.client_id = config.get("client.id").map(Into::into);
            settings.group = config.get("group.id").map(Into::into);
        })
    }

    /// Sets `server.address` and `server.port`: the address as it was given to the client (ATTR-C-17).
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_kafka::Instrumentation::from_globals().with_server("localhost", 9092);
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_server(self, host: impl Into<Arc<str>>, port: u16) -> Self {
        self.changed(|settings| settings.server = Some((host.into(), port)))
    }

    /// Sets `messaging.client.id`: the `client.id` of the client, if it has one (ATTR-K-08).
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_kafka::Instrumentation::from_globals().with_client_id("stock-1");
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_client_id(self, id: impl Into<Arc<str>>) -> Self {
        self.changed(|settings| settings.client_id = Some(id.into()))
    }

    /// Sets `messaging.kafka.cluster.id` (ATTR-K-07).
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_kafka::Instrumentation::from_globals().with_cluster_id("4L6g3nShT-eMCtK--X86sw");
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_cluster_id(self, id: impl Into<Arc<str>>) -> Self {
        self.changed(|settings| settings.cluster_id = Some(id.into()))
    }

    /// Asks a client for `messaging.kafka.cluster.id` (ATTR-K-07). Where it does not know it in time, there is none.
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
        self.changed(|settings| settings.cluster_id = found.map(Into::into))
    }

    /// Sets `messaging.consumer.group.name`: the `group.id` of the consumer (ATTR-K-03).
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_kafka::Instrumentation::from_globals().group("stock");
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn group(self, group: impl Into<Arc<str>>) -> Self {
        self.changed(|settings| settings.group = Some(group.into()))
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
        self.changed(|settings| settings.topics = topics.into_iter().map(Into::into).collect())
    }

    /// Leaves out `messaging.kafka.message.key`, for keys that are private (ATTR-C-23).
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_kafka::Instrumentation::from_globals().without_message_keys();
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn without_message_keys(self) -> Self {
        self.changed(|settings| settings.records_keys = false)
    }

    /// Sets what the parent of a process span is, for this consumer alone (LINK-10).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::ParentMode;
    /// let otel = throughline_kafka::Instrumentation::from_globals().with_parent_mode(ParentMode::LinkOnly);
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_parent_mode(self, mode: ParentMode) -> Self {
        self.changed(|settings| settings.parent = Some(mode))
    }

    /// Sets how far incoming headers are trusted, for this consumer alone (PROP-22).
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::telemetry::Trust;
    /// let public = throughline_kafka::Instrumentation::from_globals().with_trust(Trust::Ignore);
    /// # let _ = public;
    /// ```
    #[must_use]
    pub fn with_trust(self, trust: Trust) -> Self {
        self.changed(|settings| settings.trust = Some(trust))
    }

    /// Returns a handle that sends with another creation context: with `Given` each record carries that one instead of a
    /// new one (SPAN-25), and with `Kept` the headers stay as they are, for a message that is passed on as it came
    /// (SPAN-37).
    ///
    /// Without it, propagation headers that were copied from a received message are replaced (PROP-05).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use rdkafka::Message;
    /// use rdkafka::message::{BorrowedHeaders, BorrowedMessage};
    /// use rdkafka::producer::{FutureProducer, FutureRecord};
    /// use throughline_core::telemetry::CreationContext;
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
        Self { shared: Arc::clone(&self.shared), creation }
    }

    fn changed(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.shared.settings.clone();
        change(&mut settings);
        Self { shared: Arc::new(Shared::new(self.shared.engine.clone(), settings)), creation: self.creation }
    }

    fn consumer(&self) -> &Consumer {
        &self.shared.consumer
    }

    fn records_keys(&self) -> bool {
        self.shared.settings.records_keys
    }
}

impl Shared {
    fn new(engine: Engine, settings: Settings) -> Self {
        let system = settings.system();
        let mut consumer = engine.consumer(settings.source(&system).into());
        if let Some(mode) = settings.parent {
            consumer = consumer.with_parent_mode(mode);
        }
        if let Some(trust) = settings.trust {
            consumer = consumer.with_trust(trust);
        }
        Self { producer: engine.producer(system), consumer, engine, settings }
    }
}

impl Settings {
    fn system(&self) -> Arc<System> {
        let server = self.server.as_ref().map(|(host, port)| (host.as_ref(), *port));
        semconv::system(server, self.client_id.as_deref(), self.cluster_id.as_deref())
    }

    fn only_topic(&self) -> Option<&str> {
        match self.topics.as_slice() {
            [topic] if !topic.starts_with('^') => Some(topic),
            _ => None,
        }
    }

    fn source(&self, system: &Arc<System>) -> Source {
        let source = Source::new(Arc::clone(system));
        // Topics are few and have names of their own, so a pattern is not their template.
        let source = match self.only_topic() {
            Some(topic) => source.with_destination(topic),
            None => source,
        };
        match &self.group {
            Some(group) => source.with_group(Arc::clone(group)),
            None => source,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server: None,
            client_id: None,
            cluster_id: None,
            group: None,
            topics: Vec::new(),
            records_keys: true,
            parent: None,
            trust: None,
        }
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
