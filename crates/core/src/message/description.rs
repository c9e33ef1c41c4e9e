use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::KeyValue;

use super::{Destination, Pattern};

/// The kind of work a span stands for (`messaging.operation.type`).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OperationType {
    /// One message is made.
    Create,
    /// A handler runs.
    Process,
    /// Messages are pulled by the application.
    Receive,
    /// Messages are handed to the broker.
    Send,
    /// A delivery is acknowledged, rejected or asked for again.
    Settle,
}

impl OperationType {
    /// Returns the value of `messaging.operation.type`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::message::OperationType::Send.as_str(), "send");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Process => "process",
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Settle => "settle",
        }
    }
}

/// A system's own verbs (`messaging.operation.name`).
///
/// The three settle verbs are `None` for a system that does not settle; then there are no settle spans and metrics.
///
/// # Examples
///
/// ```
/// use throughline_core::message::Operations;
///
/// let of_a_log = Operations::DEFAULT.with_send("send").with_receive("poll");
/// assert_eq!(of_a_log.process, "process");
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Operations {
    /// Makes one message of a batch.
    pub create: &'static str,
    /// Hands messages to the broker.
    pub send: &'static str,
    /// Sends a message and waits for its reply.
    pub request: &'static str,
    /// Pulls messages.
    pub receive: &'static str,
    /// Runs a handler.
    pub process: &'static str,
    /// Settles a message that is done.
    pub ack: Option<&'static str>,
    /// Asks for another delivery.
    pub retry: Option<&'static str>,
    /// Gives a message up.
    pub reject: Option<&'static str>,
}

impl Operations {
    /// The verbs most systems share: `publish`, `receive`, `process`, and no settlement.
    pub const DEFAULT: Self = Self {
        create: "create",
        send: "publish",
        request: "request",
        receive: "receive",
        process: "process",
        ack: None,
        retry: None,
        reject: None,
    };

    /// Sets the verb that hands messages to the broker.
    #[must_use]
    pub const fn with_send(self, send: &'static str) -> Self {
        Self { send, ..self }
    }

    /// Sets the verb that pulls messages.
    #[must_use]
    pub const fn with_receive(self, receive: &'static str) -> Self {
        Self { receive, ..self }
    }

    /// Sets the verb that settles a message that is done.
    #[must_use]
    pub const fn with_ack(self, ack: &'static str) -> Self {
        Self { ack: Some(ack), ..self }
    }

    /// Sets the verb that asks for another delivery.
    #[must_use]
    pub const fn with_retry(self, retry: &'static str) -> Self {
        Self { retry: Some(retry), ..self }
    }

    /// Sets the verb that gives a message up.
    #[must_use]
    pub const fn with_reject(self, reject: &'static str) -> Self {
        Self { reject: Some(reject), ..self }
    }
}

/// One connection to a broker, for telemetry.
///
/// # Examples
///
/// ```
/// use throughline_core::message::{Operations, System};
///
/// let system = System::new("nats", Operations::DEFAULT).with_server("localhost", 4222).with_client_id("stock");
/// assert_eq!(system.name(), "nats");
/// ```
#[derive(Clone, Debug)]
pub struct System {
    name: Cow<'static, str>,
    operations: Operations,
    server: Option<(Arc<str>, Option<u16>)>,
    client_id: Option<Arc<str>>,
    attributes: Vec<KeyValue>,
}

impl System {
    /// Creates a description from the value of `messaging.system` and the system's verbs.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::message::{Operations, System};
    /// assert_eq!(System::new("in_memory", Operations::DEFAULT).name(), "in_memory");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>, operations: Operations) -> Self {
        Self { name: name.into(), operations, server: None, client_id: None, attributes: Vec::new() }
    }

    /// Sets `server.address` and `server.port`: the host exactly as the user configured it.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::message::{Operations, System};
    /// let system = System::new("nats", Operations::DEFAULT).with_server("localhost", 4222);
    /// assert_eq!(system.server(), Some(("localhost", Some(4222))));
    /// ```
    #[must_use]
    pub fn with_server(mut self, address: impl Into<Arc<str>>, port: impl Into<Option<u16>>) -> Self {
        self.server = Some((address.into(), port.into()));
        self
    }

    /// Sets `messaging.client.id`.
    #[must_use]
    pub fn with_client_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// Sets server and client as far as they are known, as [`with_server`](Self::with_server) and
    /// [`with_client_id`](Self::with_client_id) do.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::message::{Operations, System};
    /// let system = System::new("nats", Operations::DEFAULT).with_connection(None, Some("stock"));
    /// assert_eq!((system.server(), system.client_id()), (None, Some("stock")));
    /// ```
    #[must_use]
    pub fn with_connection(mut self, server: Option<(&str, u16)>, client_id: Option<&str>) -> Self {
        self.server = server.map(|(address, port)| (address.into(), Some(port)));
        self.client_id = client_id.map(Into::into);
        self
    }

    /// Replaces the verbs, for what does the same in other words.
    #[must_use]
    pub const fn with_operations(mut self, operations: Operations) -> Self {
        self.operations = operations;
        self
    }

    /// Adds an attribute that every span of this connection carries, such as a cluster id; create spans leave it out.
    #[must_use]
    pub fn with_attribute(mut self, attribute: KeyValue) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// Returns the value of `messaging.system`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the system's verbs.
    #[must_use]
    pub const fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Returns the configured host and port.
    #[must_use]
    pub fn server(&self) -> Option<(&str, Option<u16>)> {
        self.server.as_ref().map(|(address, port)| (address.as_ref(), *port))
    }

    /// Returns the client id.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// Returns the further attributes of this connection.
    #[must_use]
    pub fn attributes(&self) -> &[KeyValue] {
        &self.attributes
    }
}

/// Where a subscription reads from, for telemetry: what is the same for all its messages.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use throughline_core::message::{Operations, Source, System};
///
/// let system = Arc::new(System::new("nats", Operations::DEFAULT));
/// let source = Source::new(system).with_destination("orders.*").with_template("orders.*").with_group("stock");
/// assert_eq!(source.template.as_deref(), Some("orders.*"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Source {
    /// The connection.
    pub system: Arc<System>,
    /// What was subscribed to: a name, or the pattern.
    pub destination: Option<Arc<str>>,
    /// The low-cardinality pattern, when the subscription is one.
    pub template: Option<Arc<str>>,
    /// What of the messages' names is known to be one of a few; `None` where all of them are, such as topics.
    pub patterns: Option<Arc<[Pattern]>>,
    /// What stands as the template for a message that none of the patterns takes; `None` shows it by its operation alone.
    pub others: Option<Arc<str>>,
    /// `messaging.consumer.group.name`.
    pub group: Option<Arc<str>>,
    /// `messaging.destination.subscription.name`, such as a JetStream consumer.
    pub subscription: Option<Arc<str>>,
    /// Whether the destination exists only for this connection (`messaging.destination.temporary`).
    pub temporary: bool,
    /// Whether the destination has a generated name (`messaging.destination.anonymous`).
    pub anonymous: bool,
}

impl Source {
    /// Creates a description that says no more than the connection.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use throughline_core::message::{Operations, Source, System};
    /// let source = Source::new(Arc::new(System::new("nats", Operations::DEFAULT)));
    /// assert!(source.group.is_none());
    /// ```
    #[must_use]
    pub const fn new(system: Arc<System>) -> Self {
        Self {
            system,
            destination: None,
            template: None,
            patterns: None,
            others: None,
            group: None,
            subscription: None,
            temporary: false,
            anonymous: false,
        }
    }

    /// Sets what was subscribed to.
    #[must_use]
    pub fn with_destination(mut self, destination: impl Into<Arc<str>>) -> Self {
        self.destination = Some(destination.into());
        self
    }

    /// Sets the low-cardinality pattern.
    #[must_use]
    pub fn with_template(mut self, template: impl Into<Arc<str>>) -> Self {
        self.template = Some(template.into());
        self
    }

    /// Sets what was subscribed to, where the names of the messages are not known to be few.
    ///
    /// A message is then shown by the pattern it matches first: by its name where that is exact, else by the pattern as the template. One
    /// that matches none is shown by its operation alone, and its name is an attribute of its spans.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::broker::{Pattern, Wildcards};
    /// # use throughline_core::message::{Operations, Source, System};
    /// # let system = Arc::new(System::new("nats", Operations::DEFAULT));
    /// let signs = Wildcards::new('.', "*", ">");
    /// let orders = Source::new(Arc::clone(&system)).with_patterns([Pattern::new("orders.*", signs)]);
    /// assert_eq!(orders.template.as_deref(), Some("orders.*"));
    /// let both = Source::new(system).with_patterns([Pattern::new("orders.*", signs), Pattern::exact("bills")]);
    /// assert_eq!((both.destination, both.template), (None, None));
    /// ```
    #[must_use]
    pub fn with_patterns(mut self, patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let patterns: Arc<[Pattern]> = patterns.into_iter().collect();
        if let [only] = patterns.as_ref() {
            self.destination = Some(only.shown().into());
            self.template = only.is_wildcard().then(|| only.shown().into());
        }
        self.patterns = Some(patterns);
        self
    }

    /// Sets what stands as the template for messages that none of the patterns takes, where there may be such: bindings that others
    /// have made. The patterns then count although the source has a destination, which is that of what stands for no message.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use throughline_core::broker::Pattern;
    /// # use throughline_core::message::{Operations, Source, System};
    /// # let system = Arc::new(System::new("example", Operations::DEFAULT));
    /// let placed = Pattern::exact("placed").within("orders").shown_as("orders:placed:stock");
    /// let source = Source::new(system).with_patterns([placed]).with_others("stock").with_destination("stock");
    /// assert_eq!(source.others.as_deref(), Some("stock"));
    /// ```
    #[must_use]
    pub fn with_others(mut self, template: impl Into<Arc<str>>) -> Self {
        self.others = Some(template.into());
        self
    }

    /// Sets the consumer group.
    #[must_use]
    pub fn with_group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Sets the name of the subscription.
    #[must_use]
    pub fn with_subscription(mut self, name: impl Into<Arc<str>>) -> Self {
        self.subscription = Some(name.into());
        self
    }

    /// Says that the destination exists only for this connection and has a generated name, as an inbox does.
    #[must_use]
    pub const fn temporary(mut self) -> Self {
        (self.temporary, self.anonymous) = (true, true);
        self
    }
}

/// Where a message goes, for telemetry.
///
/// # Examples
///
/// ```
/// use throughline_core::message::Target;
///
/// let inbox = Target::new("_INBOX.a.b").with_template("_INBOX").temporary();
/// assert_eq!(inbox.name, "_INBOX.a.b");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target<'a> {
    /// `messaging.destination.name`.
    pub name: Cow<'a, str>,
    /// `messaging.destination.template`, when one is known.
    pub template: Option<Cow<'a, str>>,
    /// `messaging.destination.temporary`.
    pub temporary: bool,
    /// `messaging.destination.anonymous`.
    pub anonymous: bool,
    /// Further attributes of the destination, such as a routing key.
    pub attributes: Vec<KeyValue>,
}

impl<'a> Target<'a> {
    /// Describes a destination by its name alone.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(throughline_core::message::Target::new("orders").name, "orders");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Cow<'a, str>>) -> Self {
        Self { name: name.into(), template: None, temporary: false, anonymous: false, attributes: Vec::new() }
    }

    /// Describes a destination by what it says about itself: its name, its template, and whether it is temporary.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::{Destination, message::Target};
    /// let computed = Destination::new("orders.42").with_template("orders.{id}");
    /// assert_eq!(Target::of(&computed).template.as_deref(), Some("orders.{id}"));
    /// ```
    #[must_use]
    pub fn of(destination: &'a Destination) -> Self {
        let (template, temporary) = (destination.template().map(Cow::Borrowed), destination.is_temporary());
        Self { template, temporary, anonymous: temporary, ..Self::new(destination.name()) }
    }

    /// Sets the template.
    #[must_use]
    pub fn with_template(mut self, template: impl Into<Cow<'a, str>>) -> Self {
        self.template = Some(template.into());
        self
    }

    /// Says that the destination exists only for a connection and has a generated name, as an inbox does.
    #[must_use]
    pub const fn temporary(mut self) -> Self {
        (self.temporary, self.anonymous) = (true, true);
        self
    }

    /// Adds an attribute of the destination, such as a routing key.
    #[must_use]
    pub fn with_attribute(mut self, attribute: KeyValue) -> Self {
        self.attributes.push(attribute);
        self
    }
}
