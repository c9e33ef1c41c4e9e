mod fetched;
mod message;
mod outlet;
mod process;
mod publish;
mod settle;
mod stored;
mod subscription;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use async_nats::Client;
use throughline_core::broker::{HeaderNames, Pattern};
use throughline_core::message::{CreationContext, Source};
use throughline_core::raw::{self, ClientSettings, Door, Handle};
use throughline_core::telemetry::{Builder, Consumer, Instrumentation as Engine, ParentMode, Trust};

pub use self::fetched::{Fetched, Pulled};
pub use self::message::ClientMessage;
use self::message::Subscribed;
use self::outlet::{Bound, Outlet};
pub use self::publish::ClientPublisher;
pub use self::stored::PublishAckFuture;
pub use self::subscription::SubscriptionTelemetry;
use crate::altered::Altered;
use crate::protocol::{CONTROL_LINE, Line};
use crate::semconv::{self, Systems, WILDCARDS};

/// The telemetry of a service that keeps its own client: the calls of `async-nats`, with spans, baggage and metrics
/// around them.
///
/// Each call has the client's name, argument order and return type, and takes the client (or the JetStream context)
/// first. What is published carries the current context; a future that processes a message runs in the context of that
/// message.
///
/// [`process`](Door::process) and what goes with it are those of [`Door`], to which this leads.
///
/// Everything is optional but worth it: [`with_server`](Self::with_server) and [`with_client`](Self::with_client) say
/// what the client does not tell by itself, [`with_template`](Self::with_template) keeps computed subjects out of span
/// names, and [`subscription`](Self::subscription) does the same for wildcard subscriptions.
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
/// let orders = otel.subscription(throughline_nats::Subject::new("orders")); // names spans and metrics
/// let mut messages = client.subscribe("orders").await?;
/// otel.publish(&client, "orders", "{}".into()).await?;
/// while let Some(message) = messages.next().await {
///     orders.process(&message, handle(&message)).await;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Instrumentation {
    handle: Handle<Settings>,
}

/// What a user says about the connection and its subjects.
#[derive(Clone, Debug, Default)]
struct Settings {
    inbox_prefix: Option<Arc<str>>,
    templates: Vec<Pattern>,
    records_position: bool,
    max_control_line: Option<usize>,
    names: HeaderNames,
}

/// What is prepared for one client: how its messages are read, and what is published with.
pub struct RawClient {
    engine: Engine,
    client: ClientSettings,
    settings: Settings,
    systems: Systems,
    /// Tells the forwards of this service from those of others.
    number: u64,
    altered: Altered,
    /// The connection of [`Instrumentation::with_client`].
    given: Option<Arc<Outlet>>,
    /// The first client that published, where none was given.
    bound: OnceLock<Bound>,
    core: SubscriptionTelemetry,
    stream: SubscriptionTelemetry,
}

impl Instrumentation {
    /// Creates the telemetry on the global providers. Install them first: what is global when this runs is what is
    /// used.
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

    /// Sets `server.address` and `server.port`: the address as it was given to the client, which does not tell it.
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_nats::Instrumentation::from_globals().with_server("localhost", 4222);
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn with_server(self, host: impl Into<Arc<str>>, port: u16) -> Self {
        self.changed(|client, _| client.server = Some((host.into(), port)))
    }

    /// Reads from the client what it tells: the number the server assigned, as `messaging.client.id`, and its inbox
    /// prefix.
    ///
    /// Publishing finds this out by itself; processing sees no client and goes without it unless it is said here. Use
    /// one instrumentation for each client: copies are cheap. The number is read once, it can change when the client
    /// reconnects.
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
        self.changed(|said, settings| {
            settings.inbox_prefix = Some(semconv::inbox_prefix(client).into());
            said.client_id = said.client_id.take().or_else(|| outlet::number(client));
        })
    }

    /// Sets `messaging.client.id`: the name in the client's options, which the client does not tell.
    #[must_use]
    pub fn with_client_id(self, id: impl Into<Arc<str>>) -> Self {
        self.changed(|client, _| client.client_id = Some(id.into()))
    }

    /// Shows every subject that matches the pattern by the pattern when it is published to: `publish orders.{id}`
    /// instead of a span name for each order. Do so for every subject that is computed. The first pattern
    /// that matches counts.
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
        self.changed(|_, settings| settings.templates.push(Pattern::new(pattern, WILDCARDS)))
    }

    /// Sets how long a line of the protocol may be, where `max_control_line` of the server is not its default of 4,096 bytes. A
    /// subject that is longer is an error before it is sent, since the server would close the connection.
    #[must_use]
    pub fn with_max_control_line(self, bytes: usize) -> Self {
        self.changed(|_, settings| settings.max_control_line = Some(bytes))
    }

    /// Sets the names of the headers, of which the correlation id is looked for in messages; the default is `correlation-id`.
    #[must_use]
    pub fn with_header_names(self, names: HeaderNames) -> Self {
        self.changed(|_, settings| settings.names = names)
    }

    /// Records `messaging.nats.stream` and `messaging.nats.sequence` of messages from streams. Off by default: the
    /// conventions do not have these names yet.
    ///
    /// # Examples
    ///
    /// ```
    /// let otel = throughline_nats::Instrumentation::from_globals().record_stream_position();
    /// # let _ = otel;
    /// ```
    #[must_use]
    pub fn record_stream_position(self) -> Self {
        self.changed(|_, settings| settings.records_position = true)
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

    /// Returns a handle whose messages have their creation context from elsewhere: a given one is written instead of a
    /// new one, and with `Kept` the propagation headers stay as they are, for a message that is passed on as it came. Headers by which
    /// somebody else told the server what to do with it (`Nats-Rollup`, `Nats-Expected-*`, `Nats-TTL`
    /// and whatever else begins with `Nats-`) are left out of such a message. Its id gets an addition, so that a stream that has the
    /// original stores it all the same; the telemetry of its consumers has the id without.
    ///
    /// Without it, propagation headers that were copied from a received message are replaced.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use throughline_core::message::CreationContext;
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
        Self { handle: self.handle.with_creation_context(creation) }
    }

    fn changed(self, change: impl FnOnce(&mut ClientSettings, &mut Settings)) -> Self {
        Self { handle: self.handle.changed(change) }
    }
}

impl raw::Settings for Settings {
    type Prepared = RawClient;

    fn prepare(&self, engine: &Engine, client: &ClientSettings) -> RawClient {
        let systems = Systems::new(client.server(), client.client_id.as_deref());
        let telemetry = |source| telemetry(engine, client, source, self);
        let given =
            self.inbox_prefix.as_ref().map(|prefix| Arc::new(Outlet::new(engine, &systems, Arc::clone(prefix), self)));
        // What was subscribed to is not known: a subject that no template matches is not known to be one of a few.
        let unknown = |system| Source::new(Arc::clone(system)).with_patterns(self.templates.iter().cloned());
        let known = |system| match self.templates.as_slice() {
            // The only template need not be what was subscribed to.
            [_] => {
                let mut source = unknown(system);
                (source.destination, source.template) = (None, None);
                source
            }
            _ => unknown(system),
        };
        RawClient {
            core: telemetry(known(&systems.core)),
            stream: telemetry(known(&systems.jetstream)),
            given,
            bound: OnceLock::new(),
            number: fastrand::u64(..),
            altered: Altered::default(),
            systems,
            engine: engine.clone(),
            client: client.clone(),
            settings: self.clone(),
        }
    }
}

impl RawClient {
    /// Says what the server takes on one line.
    fn line(&self) -> Line {
        Line::new(self.settings.max_control_line.unwrap_or(CONTROL_LINE))
    }

    fn inbox_prefix(&self) -> &str {
        self.settings.inbox_prefix.as_deref().unwrap_or(semconv::DEFAULT_INBOX)
    }

    fn consumer(&self, source: Source) -> Consumer {
        self.client.consumer(&self.engine, source)
    }

    fn telemetry(&self, source: Source) -> SubscriptionTelemetry {
        telemetry(&self.engine, &self.client, source, &self.settings)
    }
}

fn telemetry(engine: &Engine, client: &ClientSettings, source: Source, settings: &Settings) -> SubscriptionTelemetry {
    let names_consumer = source.subscription.is_none();
    let consumer = client.consumer(engine, source);
    let (records_position, correlation_id) = (settings.records_position, settings.names.correlation_id);
    SubscriptionTelemetry::new(Subscribed::new(consumer, names_consumer, records_position, correlation_id))
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
    /// let otel = throughline_nats::Instrumentation::from(engine.clone());
    /// # let _ = (engine, otel);
    /// ```
    fn from(engine: Engine) -> Self {
        Self { handle: Handle::new(engine) }
    }
}
