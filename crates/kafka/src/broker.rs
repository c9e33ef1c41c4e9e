use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::config::ClientConfig;
use throughline_core::broker::{
    Broker, ConnectionState, Existence, HeaderNames, Outbound, Publish, Routes, Subscriber, Subscription,
};
use throughline_core::{BrokerError, Publisher};

use crate::alone::Alone;
use crate::connection::{Connection, servers};
use crate::publisher::KafkaPublisher;
use crate::{admin, subscriber, thread};

/// How long a [`shutdown`](Kafka::shutdown) waits until what was published is confirmed. Longer than any `linger.ms`.
const FLUSH_WAIT: Duration = Duration::from_secs(10);

/// A connection to the brokers of a Kafka cluster.
///
/// Cloning is cheap, clones share the connection: one producer, and a consumer for each subscription. Reconnecting is the
/// client's, it tries for ever. When the last clone is dropped, what nobody waits for any more is still sent, in the
/// background for a few seconds; a program that ends waits for it with [`shutdown`](Broker::shutdown), which
/// [`serve`](throughline_core::serve()) calls at its end.
///
/// # Publishing
///
/// A publish returns when all replicas in sync have stored the message, and the receipt's native part says where
/// ([`RecordMetadata`](crate::RecordMetadata)). The client sends again by itself until `message.timeout.ms` (300 s) is
/// over. While its queue is full (`queue.buffering.max.messages`, 100,000), a publish waits for room, as long again at
/// most; dropped while it waits, it has sent nothing. Dropped later, the message may be stored.
///
/// | property | default | reason |
/// | --- | --- | --- |
/// | `enable.idempotence` | `true` | a message that is sent again is stored once and in its order |
/// | `acks` | `all` | comes with it |
/// | `linger.ms` | `0` | who awaits each message would pay the wait every time |
/// | `topic.metadata.propagation.max.ms` | `5000` | how long a topic that does not exist is waited for |
///
/// All others are the client's own. Compression (`compression.type`) is off unless it is set.
///
/// # Subscriptions of one group
///
/// Two subscriptions of one app with the same group and different topics are two members of that group, each of which gets
/// the partitions of its own topics. That is allowed, though each start and stop of one makes the other rebalance too;
/// with the same topics they are refused, as each handler would see only a part of the messages.
///
/// # Examples
///
/// ```no_run
/// use throughline_kafka::Kafka;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let kafka = Kafka::connect("localhost:9092").await?;
/// kafka.publisher().publish("orders.placed", "{}").key("42").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Kafka {
    connection: Arc<Connection>,
}

impl Kafka {
    /// Connects with the client's default properties and fails within seconds when no broker answers.
    ///
    /// The address is `host` or `host:port`, or several of them with commas between. The port is 9092 when none is given.
    ///
    /// # Errors
    ///
    /// Fails when no broker answers within 5 seconds, or the one that does refuses the connection.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let kafka = throughline_kafka::Kafka::connect("localhost:9092").await?;
    /// let cluster = throughline_kafka::Kafka::connect("one:9092,two:9092").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(bootstrap_servers: impl Into<String>) -> Result<Self, BrokerError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap_servers);
        Self::connect_with(config).await
    }

    /// Connects with properties of the client's: TLS, credentials, name, timeouts and all else. They count for the
    /// producer and for the consumers of subscriptions; each takes those that are its own.
    ///
    /// The client's log goes to `tracing` under the target `rdkafka`.
    ///
    /// # Errors
    ///
    /// Fails as [`connect`](Self::connect), and when a property does not exist, has a wrong value, or would break what
    /// this adapter promises; the error names it. Those are: `delivery.report.only.error`, `transactional.id`, `acks`
    /// other than `all` while the producer is idempotent, `linger.ms` over 5000; `enable.auto.commit`, `enable.auto.offset.store`,
    /// `offset.store.*`, `enable.partition.eof`; and what a subscription has a method for: `auto.offset.reset`,
    /// `group.id`, `group.instance.id`, `isolation.level`, `partition.assignment.strategy`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::ClientConfig;
    /// use throughline_kafka::Kafka;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut config = ClientConfig::new();
    /// config.set("bootstrap.servers", "kafka.example.com:9093").set("client.id", "stock");
    /// config.set("security.protocol", "sasl_ssl").set("sasl.mechanism", "PLAIN");
    /// config.set("sasl.username", "stock").set("sasl.password", "secret").set("compression.type", "lz4");
    /// let kafka = Kafka::connect_with(config).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_with(config: ClientConfig) -> Result<Self, BrokerError> {
        let connection = thread::run("kafka connect", move || Connection::open(config)).await?;
        Ok(Self { connection: Arc::new(connection) })
    }

    /// Leaves `messaging.kafka.message.key` away from telemetry, where keys may be personal data. Messages
    /// keep their keys.
    #[must_use]
    pub fn without_message_keys(mut self) -> Self {
        Arc::make_mut(&mut self.connection).records_keys = false;
        self
    }

    /// Sets the names of the headers in which ids, reply address and media type travel, for all that publishes and consumes on this
    /// connection.
    ///
    /// # Errors
    ///
    /// Fails when a name cannot be used; see [`HeaderNames::check`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use throughline_core::broker::HeaderNames;
    /// use throughline_kafka::Kafka;
    ///
    /// # async fn example() -> Result<(), throughline_core::BrokerError> {
    /// let kafka = Kafka::connect("localhost:9092").await?.with_header_names(HeaderNames::faststream())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_header_names(mut self, names: HeaderNames) -> Result<Self, BrokerError> {
        names.check()?;
        let connection = Arc::make_mut(&mut self.connection);
        connection.names = names;
        connection.alone = Some(Arc::new(Alone::new(&connection.config, names)));
        Ok(self)
    }

    /// Flushes what was published and closes the connection, within ten seconds. An app that is served needs no call: its shutdown does
    /// that.
    ///
    /// # Errors
    ///
    /// Fails when the flush is not confirmed in time: what was published last may not have been sent.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), throughline_core::BrokerError> {
    /// let broker = throughline_kafka::Kafka::connect("localhost:9092").await?;
    /// broker.shutdown().await
    /// # }
    /// ```
    pub async fn shutdown(&self) -> Result<(), BrokerError> {
        Broker::shutdown(self, tokio::time::Instant::now() + FLUSH_WAIT).await
    }

    /// Returns what publishes on this connection, for code outside of handlers.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self)
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the properties: some are secrets.
        f.debug_struct("Kafka").field("servers", &servers(&self.connection.config)).finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for Kafka {
    fn transport(&self) -> Arc<dyn Publish> {
        Arc::new(KafkaPublisher { connection: Arc::clone(&self.connection) })
    }

    /// That of the producer, which is there for each connection. One broker of several that is away is not enough to be disconnected.
    fn connection(&self) -> ConnectionState {
        self.connection.producer.connection()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        subscriber::subscribe(&self.connection, subscription).await
    }

    fn routes(&self) -> Option<&Routes> {
        Some(&self.connection.routes)
    }

    async fn check_destinations(&self, outbound: &[Outbound<'_>]) -> Vec<Result<Existence, BrokerError>> {
        admin::check(&self.connection, outbound).await
    }

    async fn shutdown(&self, deadline: tokio::time::Instant) -> Result<(), BrokerError> {
        let connection = Arc::clone(&self.connection);
        thread::run("kafka flush", move || connection.flush(deadline.into_std())).await
    }
}

#[cfg(test)]
mod tests {
    use throughline_core::Envelope;
    use throughline_core::broker::{BrokerErrorKind, OutboundUse, Pattern};

    use super::*;
    use crate::{RecordProperties, Topic};

    /// Connects to brokers that the client itself plays.
    async fn connect() -> Kafka {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", "1").set("client.id", "stock");
        Kafka::connect_with(config).await.unwrap()
    }

    fn shown(kafka: &Kafka, envelope: &Envelope) -> Vec<String> {
        let transport = kafka.transport();
        let mut attributes = transport.target(envelope.destination()).attributes;
        transport.attributes(envelope, &mut attributes);
        attributes.iter().map(|attribute| format!("{}={}", attribute.key, attribute.value)).collect()
    }

    #[tokio::test]
    async fn a_connection_is_described_once() {
        let kafka = connect().await;
        let system = kafka.transport().system();
        assert_eq!((system.name(), system.client_id()), ("kafka", Some("stock")), "ATTR-K-08");
        assert_eq!(system.attributes().len(), 1, "ATTR-K-07");
    }

    #[tokio::test]
    async fn a_send_span_shows_what_the_caller_said() {
        let kafka = connect().await;
        let partition = "messaging.destination.partition.id=3";
        let (key, tombstone) = ("messaging.kafka.message.key=42", "messaging.kafka.message.tombstone=true");
        let plain = Envelope::new("users", "");
        assert_eq!(shown(&kafka, &plain), [""; 0], "ATTR-K-02, ATTR-K-04, ATTR-K-06");
        let placed = RecordProperties::new().partition(3);
        let deleted = plain.with_native(placed).with_key("42").without_payload();
        assert_eq!(shown(&kafka, &deleted), [partition, key, tombstone], "ATTR-K-02, ATTR-K-04, ATTR-K-06");
        let binary = deleted.clone().with_key(vec![0xff]);
        assert_eq!(shown(&kafka, &binary), [partition, tombstone], "ATTR-K-04");
        assert_eq!(shown(&kafka.without_message_keys(), &deleted), [partition, tombstone], "ATTR-C-23");
    }

    #[tokio::test]
    async fn a_subscription_for_another_broker_is_refused() {
        let other = Subscription::new("nats", Pattern::exact("orders"));
        let error = connect().await.subscribe(&other).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), BrokerErrorKind::Configuration);
    }

    #[tokio::test]
    async fn a_rebalance_that_may_outlast_the_poll_interval_is_refused_at_the_start() {
        let topic = Topic::new("orders").group("stock").property("max.poll.interval.ms", "60000");
        let topic = topic.rebalance_timeout(Duration::from_secs(60));
        let error = connect().await.subscribe(&topic.into()).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), BrokerErrorKind::Configuration);
        assert!(error.to_string().contains("rebalance_timeout"), "{error}");
    }

    /// The brokers that the client plays know no topic and tell nobody their settings.
    #[tokio::test]
    async fn brokers_that_do_not_say_whether_they_create_topics_are_no_fault() {
        let orders = Topic::new("orders").group("stock").into();
        let dead = "orders.dead".into();
        let outbound = [Outbound::new(&orders, &dead, OutboundUse::DeadLetter)];
        let results = connect().await.check_destinations(&outbound).await;
        let [Ok(Existence::Unknown(error))] = &results[..] else { panic!("unknown: {results:?}") };
        assert!(error.to_string().contains("`orders.dead` does not exist"), "{error}");
    }

    #[tokio::test]
    async fn a_connection_that_is_idle_is_shut_down() {
        connect().await.shutdown().await.unwrap();
    }
}
