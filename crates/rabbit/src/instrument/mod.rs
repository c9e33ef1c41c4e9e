mod confirm;
mod message;
mod process;
mod publish;
mod settle;
mod subscription;

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use throughline_core::broker::Pattern;
use throughline_core::message::{CreationContext, Source, System};
use throughline_core::raw::{self, ClientSettings, Door, Handle};
use throughline_core::telemetry::{Builder, Instrumentation as Engine, ParentMode, Producer, Trust};

pub use self::confirm::PublisherConfirm;
pub use self::message::ClientMessage;
use self::message::Subscribed;
pub use self::subscription::SubscriptionTelemetry;
use crate::Queue;
use crate::delivery::ReadFrom;
use crate::semconv::{self, DIRECT_REPLY, WILDCARDS, target_name};

/// The telemetry of a service that keeps its own client: the calls of `lapin`, with spans, baggage and metrics around them.
///
/// Each call has the client's name, argument order and return type, and takes the channel or the message first. What is published
/// carries the current context; a future that processes a message runs in the context of that message. Channels, topology and recovery
/// stay the user's.
///
/// [`process`](Door::process) and what goes with it are those of [`Door`], to which this leads.
///
/// Everything is optional but worth it: [`with_server`](Self::with_server) says what the client does not tell by itself,
/// [`with_template`](Self::with_template) and [`with_computed_keys`](Self::with_computed_keys) keep computed routing keys out of span
/// names, and [`subscription`](Self::subscription) names the queue, which a message does not.
///
/// # Examples
///
/// ```no_run
/// use futures_util::StreamExt;
/// use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions};
/// use lapin::types::FieldTable;
/// use lapin::{BasicProperties, Channel};
/// use throughline_rabbit::{Instrumentation, Queue};
/// # async fn handle(_message: &lapin::message::Delivery) {}
/// # async fn example(channel: Channel) -> lapin::Result<()> {
///
/// let otel = Instrumentation::from_globals().with_server("localhost", 5672);
/// let orders = otel.subscription(Queue::new("orders")); // names spans and metrics
/// let options = BasicPublishOptions::default();
/// otel.basic_publish(&channel, "".into(), "orders".into(), options, b"{}", BasicProperties::default()).await?.await?;
///
/// let options = BasicConsumeOptions::default();
/// let mut messages = channel.basic_consume("orders".into(), "".into(), options, FieldTable::default()).await?;
/// while let Some(message) = messages.next().await {
///     let message = message?;
///     let settled = orders.process(&message, async {
///         handle(&message).await;
///         orders.basic_ack(&channel, message.delivery_tag, BasicAckOptions::default()).await
///     });
///     settled.await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Instrumentation {
    handle: Handle<Settings>,
}

/// What a user says about the client.
#[derive(Clone, Debug, Default)]
struct Settings {
    queue: Option<Queue>,
    /// Of routing keys that are published with.
    templates: Vec<Pattern>,
}

/// What is prepared for one client: how its messages are read, and what it publishes with.
pub struct RawClient {
    engine: Engine,
    client: ClientSettings,
    system: Arc<System>,
    producer: Producer,
    templates: Vec<Pattern>,
    /// Held while the client takes a message.
    publishing: Mutex<()>,
    /// The messages of the queue that is known, or of whatever queue.
    messages: SubscriptionTelemetry,
    /// Whether they are those of a queue that is known.
    is_queue_known: bool,
    replies: SubscriptionTelemetry,
    generated: SubscriptionTelemetry,
}

impl Instrumentation {
    /// Creates the telemetry on the global providers. Install them first: what is global when this runs is what is used.
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_rabbit::Instrumentation::from_globals();
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
    /// let otel = throughline_rabbit::Instrumentation::builder().settle_spans(SettleSpans::Always).build();
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn builder() -> Builder<Self> {
        Builder::for_target()
    }

    /// Sets `server.address` and `server.port`: the address as it was given to the client, which does not tell it.
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_rabbit::Instrumentation::from_globals().with_server("localhost", 5672);
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_server(self, host: impl Into<Arc<str>>, port: u16) -> Self {
        self.changed(|client, _| client.server = Some((host.into(), port)))
    }

    /// Sets `messaging.client.id`: the name of the connection, if it has one.
    #[must_use]
    pub fn with_client_id(self, id: impl Into<Arc<str>>) -> Self {
        self.changed(|client, _| client.client_id = Some(id.into()))
    }

    /// Says from which queue all messages come, for a service that consumes from one. See [`subscription`](Self::subscription) where there
    /// are several.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_rabbit::{Exchange, Instrumentation, Queue};
    /// let stock = Queue::new("stock").bind(Exchange::topic("orders"), "placed.*");
    /// let otel = Instrumentation::from_globals().with_queue(stock);
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_queue(self, queue: Queue) -> Self {
        self.changed(|_, settings| settings.queue = Some(queue))
    }

    /// Shows every routing key of an exchange that matches the pattern by the pattern when it is published with: `publish
    /// orders:placed.{country}` in place of a span name for each country. The empty exchange is the default one, whose keys are names of
    /// queues. The first pattern that matches counts; a key that matches none is shown as it is.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lapin::options::BasicPublishOptions;
    /// use lapin::{BasicProperties, Channel};
    /// # async fn example(channel: Channel, country: &str) -> lapin::Result<()> {
    /// let otel = throughline_rabbit::Instrumentation::from_globals().with_template("orders", "placed.{country}");
    /// let (key, options) = (format!("placed.{country}"), BasicPublishOptions::default());
    /// // The span is `publish orders:placed.{country}`.
    /// otel.basic_publish(&channel, "orders".into(), key.into(), options, b"{}", BasicProperties::default()).await?.await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_template(self, exchange: &str, routing_key: &str) -> Self {
        let shown = target_name(exchange, routing_key).into_owned();
        self.templated(exchange, routing_key, shown)
    }

    /// Shows an exchange alone, whatever routing key is published with: do so where keys are computed and follow no pattern. Templates that
    /// were set before for the exchange come first.
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_rabbit::Instrumentation::from_globals().with_computed_keys("orders"); // `publish orders`
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_computed_keys(self, exchange: &str) -> Self {
        self.templated(exchange, "#", target_name(exchange, "").into_owned())
    }

    fn templated(self, exchange: &str, routing_key: &str, shown: String) -> Self {
        let pattern = Pattern::new(routing_key, WILDCARDS).shown_as(shown);
        let pattern = if exchange.is_empty() { pattern } else { pattern.within(exchange) };
        self.changed(|_, settings| settings.templates.push(pattern))
    }

    /// Sets what the parent of a process span is, where a subscription does not say it itself.
    #[must_use]
    pub fn with_parent_mode(self, mode: ParentMode) -> Self {
        self.changed(|client, _| client.parent = Some(mode))
    }

    /// Sets how far incoming headers are trusted, where a subscription does not say it itself.
    #[must_use]
    pub fn with_trust(self, trust: Trust) -> Self {
        self.changed(|client, _| client.trust = Some(trust))
    }

    /// Returns a handle whose messages have their creation context from elsewhere: a given one is written in place of a new one, and with
    /// `Kept` the propagation headers stay as they are, for a message that is passed on as it came. Headers that the server wrote
    /// (`x-death`, `x-delivery-count` and so on) and those by which somebody else told it further routing keys (`CC`, `BCC`) are left out
    /// of such a message. Its properties stay the caller's: a server refuses the user id of somebody else.
    ///
    /// Without it, propagation headers that were copied from a received message are replaced.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lapin::Channel;
    /// use lapin::message::Delivery;
    /// use lapin::options::BasicPublishOptions;
    /// use throughline_core::message::CreationContext;
    /// use throughline_rabbit::Instrumentation;
    ///
    /// async fn bury(otel: &Instrumentation, channel: &Channel, message: &Delivery) -> lapin::Result<()> {
    ///     let forward = otel.with_creation_context(CreationContext::Kept);
    ///     let (options, properties) = (BasicPublishOptions::default(), message.properties.clone());
    ///     forward.basic_publish(channel, "".into(), "orders.dead".into(), options, &message.data, properties).await?.await?;
    ///     Ok(())
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
        let system = Arc::new(semconv::system(client.server(), client.client_id.as_deref()));
        let telemetry = |source| of_unknown_queue(engine, client, source);
        // What was subscribed to is not known: no key is known to be one of a few.
        let unknown = Source::new(Arc::clone(&system)).with_patterns([]);
        let replies = Source::new(Arc::clone(&system)).with_template(DIRECT_REPLY).temporary();
        let mut generated = Source::new(Arc::clone(&system));
        generated.anonymous = true;
        let mut prepared = RawClient {
            producer: engine.producer(Arc::clone(&system)),
            messages: telemetry(unknown),
            is_queue_known: self.queue.is_some(),
            replies: telemetry(replies),
            generated: telemetry(generated),
            templates: self.templates.clone(),
            publishing: Mutex::default(),
            engine: engine.clone(),
            client: client.clone(),
            system,
        };
        if let Some(queue) = &self.queue {
            prepared.messages = prepared.telemetry(queue);
        }
        prepared
    }
}

impl RawClient {
    /// Prepares what reads the messages of a queue.
    fn telemetry(&self, queue: &Queue) -> SubscriptionTelemetry {
        if queue.name.starts_with(DIRECT_REPLY) {
            return self.replies.clone();
        }
        let source = queue.source(&self.system, &queue.name);
        let from = ReadFrom {
            queue: Arc::clone(&queue.name),
            counts: queue.is_quorum(),
            most_deliveries: queue.most_deliveries(),
            is_stream: queue.is_stream(),
        };
        SubscriptionTelemetry::new(Subscribed::new(self.client.consumer(&self.engine, source), from))
    }
}

fn of_unknown_queue(engine: &Engine, client: &ClientSettings, source: Source) -> SubscriptionTelemetry {
    // A count is believed where the server may have made it.
    let from = ReadFrom { queue: "".into(), counts: true, most_deliveries: None, is_stream: false };
    SubscriptionTelemetry::new(Subscribed::new(client.consumer(engine, source), from))
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
    /// let otel = throughline_rabbit::Instrumentation::from(engine.clone());
    /// # let _ = (engine, otel);
    /// ```
    fn from(engine: Engine) -> Self {
        Self { handle: Handle::new(engine) }
    }
}
