use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use throughline_core::broker::{BatchPolicy, Broker, Subscription};
use throughline_core::message::{OperationType, Operations};

use super::Capabilities;

/// What connects the suite to one broker. An adapter's test crate implements it and runs the suite with
/// [`conformance_behaviour!`](crate::conformance_behaviour) and [`conformance_golden!`](crate::conformance_golden).
///
/// Its functions panic where something is wrong with the broker or the connection: a test that cannot run is a failure.
///
/// # Examples
///
/// ```
/// use async_trait::async_trait;
/// use throughline_core::broker::Subscription;
/// use throughline_core::message::Operations;
/// use throughline_memory::{Channel, Memory};
/// use throughline_testing::conformance::{Capabilities, Harness, Names, Spec};
///
/// struct InMemory(Memory);
///
/// #[async_trait]
/// impl Harness for InMemory {
///     type Broker = Memory;
///     const CAPABILITIES: Capabilities = Capabilities { persistence: false, ..Capabilities::all(1 << 20) };
///
///     async fn start(_id: &str) -> Self {
///         Self(Memory::new())
///     }
///
///     async fn connect(&self) -> Memory {
///         self.0.clone()
///     }
///
///     fn subscription(&self, spec: &Spec) -> Subscription {
///         let mut channel = Channel::new(spec.destination.as_str());
///         if let Some(group) = &spec.group {
///             channel = channel.group(group.as_str());
///         }
///         match spec.batch {
///             Some(policy) => channel.batch(policy.max_messages, policy.max_wait).into(),
///             None => channel.into(),
///         }
///     }
///
///     fn names(&self) -> Names {
///         Names::new("in_memory", Operations::DEFAULT.with_ack("ack"))
///     }
/// }
/// # fn main() {}
/// ```
#[async_trait]
pub trait Harness: Send + Sync + Sized + 'static {
    /// The adapter's connection.
    type Broker: Broker + Clone;

    /// What the broker can do.
    const CAPABILITIES: Capabilities;

    /// A destination of each test whose messages the broker divides by their keys, where it handles and shares a destination by such
    /// parts. Elsewhere any will do, which is the default.
    const DIVIDED: &'static str = "orders";

    /// Prepares the broker for one test. Every destination of the test is called `{id}.` and something; the id has no dot.
    async fn start(id: &str) -> Self;

    /// Opens a connection of its own; the suite may shut it down.
    async fn connect(&self) -> Self::Broker;

    /// Builds the adapter's typed subscription.
    fn subscription(&self, spec: &Spec) -> Subscription;

    /// Returns what telemetry calls things.
    fn names(&self) -> Names;

    /// Returns the attributes of every receive, process and settle span of a subscription beyond those of [`Names`]: group,
    /// subscription. Metrics carry them too. The default has none.
    fn consumer_attributes(&self, spec: &Spec) -> Vec<KeyValue> {
        let _ = spec;
        Vec::new()
    }

    /// Returns the attributes that an operation on a single message has beyond those of the rows, whatever their values are: its place
    /// in a log. A send has them once the broker has confirmed it. Of a batch that is received or processed, those of the destination
    /// are on the span as long as it is one destination, for the suite's destinations have one partition; the others are on the links.
    /// The default has none.
    fn message_attributes(&self, operation: OperationType) -> &'static [&'static str] {
        let _ = operation;
        &[]
    }

    /// Returns the attributes beyond its name that the destination gives to every create, send and request span from the start, whatever
    /// their values are: a routing key. The default has none.
    fn destination_attributes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns a pattern for all destinations that have one more word than `destination`, and one of them. The default is that of
    /// NATS: `orders.*` and `orders.42`.
    fn wildcard(&self, destination: &str) -> Wildcard {
        Wildcard { pattern: format!("{destination}.*"), name: format!("{destination}.42") }
    }

    /// Returns how telemetry names a destination, or a pattern, when a message of it is received: on brokers that add to what was
    /// published to, such as the queue a message lay in. The default is the same name.
    fn arrives_as(&self, destination: &str) -> String {
        destination.to_owned()
    }

    /// Returns a message that the broker refuses to take, if there is one.
    fn refusal(&self) -> Option<Refusal> {
        None
    }

    /// Returns how long the broker waits for a settlement before it delivers again, if it does; short, for a test waits for it.
    fn redelivery_wait(&self) -> Option<Duration> {
        None
    }

    /// Ends all subscriptions of a connection from the broker's side and returns whether that can be done here.
    async fn end_subscriptions(&self, broker: &Self::Broker) -> bool {
        let _ = broker;
        false
    }

    /// Removes what the test left at the broker; not called for a test that failed.
    async fn stop(self) {}
}

/// What a test wants to consume; [`Harness::subscription`] turns it into the adapter's own type.
///
/// # Examples
///
/// ```
/// let spec = throughline_testing::conformance::Spec::new("t1.orders", "t1-1").with_group("stock");
/// assert_eq!(spec.group.as_deref(), Some("stock"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Spec {
    /// The destination, or the pattern from [`Harness::wildcard`].
    pub destination: String,
    /// A name without dots that no other subscription has, for brokers that want one.
    pub key: String,
    /// The group.
    pub group: Option<String>,
    /// When batches are handed over.
    pub batch: Option<BatchPolicy>,
}

impl Spec {
    /// Creates a subscription of its own to one destination.
    ///
    /// # Examples
    ///
    /// ```
    /// let spec = throughline_testing::conformance::Spec::new("t1.orders", "t1-1");
    /// assert!(spec.group.is_none() && spec.batch.is_none());
    /// ```
    #[must_use]
    pub fn new(destination: impl Into<String>, key: impl Into<String>) -> Self {
        Self { destination: destination.into(), key: key.into(), group: None, batch: None }
    }

    /// Sets the group.
    #[must_use]
    pub fn with_group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Lets it hand over batches.
    #[must_use]
    pub const fn with_batch(mut self, policy: BatchPolicy) -> Self {
        self.batch = Some(policy);
        self
    }
}

/// What the telemetry of a broker calls things, as the checklist has it and not as the adapter does.
///
/// # Examples
///
/// ```
/// use throughline_core::message::Operations;
/// use throughline_testing::conformance::Names;
///
/// let nats = Names { server: Some(("127.0.0.1".to_owned(), 4222)), ..Names::new("nats", Operations::DEFAULT) };
/// assert_eq!(nats.operations.send, "publish");
/// ```
#[derive(Clone, Debug)]
pub struct Names {
    /// `messaging.system`.
    pub system: &'static str,
    /// The verbs of section 2.2.
    pub operations: Operations,
    /// `server.address` and `server.port`.
    pub server: Option<(String, u16)>,
    /// `messaging.client.id`, on all spans but those of creating.
    pub client_id: Option<String>,
    /// What else all spans of a connection carry but those of creating: an id of the cluster. Metrics do not.
    pub connection: Vec<KeyValue>,
    /// What inboxes of requests are called in telemetry.
    pub inbox: &'static str,
    /// Whether a subscription by a pattern is called by that pattern. Else a message is called by its destination, where those are
    /// few and have names of their own.
    pub patterns_are_templates: bool,
    /// Whether the client gives each request a correlation id, which its message then has and its reply too.
    pub correlates_requests: bool,
}

impl Names {
    /// Creates the names of a broker without a server or a client id.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::message::Operations;
    /// let names = throughline_testing::conformance::Names::new("in_memory", Operations::DEFAULT);
    /// assert!(names.server.is_none());
    /// ```
    #[must_use]
    pub const fn new(system: &'static str, operations: Operations) -> Self {
        Self {
            system,
            operations,
            server: None,
            client_id: None,
            connection: Vec::new(),
            inbox: "_INBOX",
            patterns_are_templates: true,
            correlates_requests: false,
        }
    }
}

/// A pattern and a destination that it takes.
///
/// # Examples
///
/// ```
/// use throughline_testing::conformance::Wildcard;
/// let amqp = Wildcard { pattern: "orders.#".to_owned(), name: "orders.42".to_owned() };
/// assert_eq!(amqp.name, "orders.42");
/// ```
#[derive(Clone, Debug)]
pub struct Wildcard {
    /// The pattern, which is also the template where [`Names`] say so.
    pub pattern: String,
    /// A destination that matches it.
    pub name: String,
}

/// A message that the broker refuses.
///
/// # Examples
///
/// ```
/// use throughline_testing::conformance::Refusal;
/// let too_large = Refusal { destination: None, body: 2 << 20, error_type: "max_payload_exceeded" };
/// assert_eq!(too_large.error_type, "max_payload_exceeded");
/// ```
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The destination, where that is the reason; it is not expected on the span then.
    pub destination: Option<String>,
    /// The size of the body.
    pub body: usize,
    /// The expected `error.type`.
    pub error_type: &'static str,
}
