use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{
    Broker, BrokerErrorKind, ConnectionState, Publish, PublishErrorKind, Routes, Subscriber, Subscription,
};
use throughline_core::message::System;
use throughline_core::{BrokerError, Delivery, Publisher};
use tokio::time::{Instant, timeout};

use crate::publisher::Transport;
use crate::semconv;
use crate::server::{Connection, Message, OpenMessage, PublishFault, Server, SettledMessage};
use crate::subscriber::Receiver;

/// A connection to a broker inside the process. A clone is the same connection, so that several services of a test can share it;
/// [`connect`](Self::connect) opens another one to the same broker.
///
/// It also starts an app written for a real broker: it takes that broker's subscriptions with their patterns, group (or the name
/// under which the broker would keep their position), batch, and what happens to a message that is tried again: whether the broker
/// delivers it again, and the retry topics where it waits. It refuses what it cannot imitate.
///
/// Shutting it down, as [`serve`](throughline_core::serve()) does at its end, leaves it usable for the other clones.
///
/// # Examples
///
/// ```
/// use throughline_core::Envelope;
/// use throughline_core::broker::{Broker, Subscriber};
/// use throughline_memory::{Channel, Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Memory::new();
/// let mut orders = memory.subscribe(&Channel::new("orders.*").into()).await?;
/// memory.clone().transport().publish(Envelope::new("orders.placed", "{}")).await?;
/// assert_eq!(orders.receive().await?.delivery.destination(), "orders.placed");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Memory {
    server: Arc<Server>,
    connection: Arc<Connection>,
    system: Arc<System>,
    routes: Routes,
}

impl Memory {
    /// Creates a broker without subscriptions.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// throughline_memory::Memory::new().idle().await;
    /// # }
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::of_kind(false)
    }

    /// Creates a broker that remembers every settlement, for tests; its memory grows with each.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_memory::Memory::recording().settled().is_empty());
    /// ```
    #[must_use]
    pub fn recording() -> Self {
        Self::of_kind(true)
    }

    fn of_kind(recording: bool) -> Self {
        Self {
            server: Arc::new(Server::new(recording)),
            connection: Arc::new(Connection::new(recording)),
            system: Arc::new(semconv::system()),
            routes: Routes::default(),
        }
    }

    /// Opens another connection to the same broker, as another service has one: what a test makes fail on one of them, the other does
    /// not see.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let memory = throughline_memory::Memory::new();
    /// let of_another_service = memory.connect();
    /// memory.disconnect();
    /// assert!(memory.publisher().publish("orders", "1").await.is_err());
    /// assert!(of_another_service.publisher().publish("orders", "1").await.is_ok());
    /// # }
    /// ```
    #[must_use]
    pub fn connect(&self) -> Self {
        let connection = Connection::new(self.server.ledger().is_recording());
        Self { connection: Arc::new(connection), routes: Routes::default(), ..self.clone() }
    }

    /// Replaces what telemetry says about the system, for tests that imitate another one. Other clones are not changed.
    #[must_use]
    pub fn with_system(mut self, system: System) -> Self {
        self.system = Arc::new(system);
        self
    }

    /// Ends nothing, as there is no connection; it is there so that a program reads the same on each broker.
    ///
    /// # Errors
    ///
    /// Never fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), throughline_core::BrokerError> {
    /// let broker = throughline_memory::Memory::new();
    /// broker.shutdown().await
    /// # }
    /// ```
    pub async fn shutdown(&self) -> Result<(), BrokerError> {
        Broker::shutdown(self, tokio::time::Instant::now() + Duration::from_secs(10)).await
    }

    /// Returns a publisher for use outside any handler; its telemetry goes to the global providers until it is given others.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self)
    }

    /// Hands a ready-made delivery to all matching subscriptions and returns how many subscriptions and groups these are.
    ///
    /// Use it to test what reads a real broker's own message data: attach that data to the delivery. A delivery without a time of
    /// sending gets none; of a batch, each message is delivered by itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use throughline_core::Delivery;
    /// use throughline_core::broker::{Broker, Subscriber};
    /// use throughline_core::message::Native;
    /// use throughline_memory::{Channel, Memory};
    ///
    /// struct Offset(i64);
    /// impl Native for Offset {}
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let memory = Memory::new();
    /// let mut orders = memory.subscribe(&Channel::new("orders").into()).await?;
    /// memory.deliver(Delivery::new("orders", "{}").with_native(Arc::new(Offset(12))));
    /// let received = orders.receive().await?;
    /// assert_eq!(received.delivery.native::<Offset>().map(|offset| offset.0), Some(12));
    /// # Ok(())
    /// # }
    /// ```
    pub fn deliver(&self, delivery: Delivery) -> usize {
        let each = delivery.messages().iter();
        each.map(|message| self.server.deliver(Message::Delivery(message.clone()))).sum()
    }

    /// Ends all subscriptions by itself, as a server does that goes away for good: what waits for a message gets an error.
    ///
    /// What was not handed out stays for the next subscription of the same group. New subscriptions are possible.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Broker, BrokerErrorKind, Subscriber};
    /// use throughline_memory::{Channel, Memory};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let memory = Memory::new();
    /// let mut orders = memory.subscribe(&Channel::new("orders").into()).await?;
    /// memory.stop();
    /// assert_eq!(orders.receive().await.unwrap_err().kind(), BrokerErrorKind::Ended);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Makes the next publish to a destination fail, with an error of that kind: the broker does not take the message. Each call makes one
    /// more fail, in the order of the calls; replies, dead letters and messages that are forwarded are publishes, too.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::PublishErrorKind;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let memory = throughline_memory::Memory::new();
    /// memory.fail_next_publish("stock.reserved", PublishErrorKind::TooLarge);
    /// let error = memory.publisher().publish("stock.reserved", "{}").await.unwrap_err();
    /// assert_eq!(error.kind(), PublishErrorKind::TooLarge);
    /// assert!(memory.publisher().publish("stock.reserved", "{}").await.is_ok());
    /// # }
    /// ```
    pub fn fail_next_publish(&self, destination: impl Into<Arc<str>>, kind: PublishErrorKind) {
        self.connection.fail_publish(destination.into(), PublishFault::Fails(kind));
    }

    /// Loses the confirmation of the next publish to a destination: the broker has the message, and the publisher gets
    /// [`Timeout`](PublishErrorKind::Timeout). It is how messages come twice.
    ///
    /// # Examples
    ///
    /// ```
    /// # use throughline_core::broker::{Broker, Subscriber};
    /// # use throughline_memory::{Channel, Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let memory = Memory::new();
    /// # let mut orders = memory.subscribe(&Channel::new("orders").into()).await?;
    /// memory.lose_next_confirmation("orders");
    /// assert!(memory.publisher().publish("orders", "{}").await.unwrap_err().is_timeout());
    /// assert_eq!(orders.receive().await?.delivery.destination(), "orders");
    /// # Ok(())
    /// # }
    /// ```
    pub fn lose_next_confirmation(&self, destination: impl Into<Arc<str>>) {
        self.connection.fail_publish(destination.into(), PublishFault::Unconfirmed);
    }

    /// Makes the next settlement of a message from a destination fail, with an error of that kind: the broker does not hear of it and
    /// delivers the message again. Each call makes one more fail.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::Settlement;
    /// use throughline_core::broker::{Broker, BrokerErrorKind, Subscriber};
    /// # use throughline_memory::{Channel, Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let memory = Memory::new();
    /// # let mut orders = memory.subscribe(&Channel::new("orders").into()).await?;
    /// memory.fail_next_settlement("orders", BrokerErrorKind::Timeout);
    /// memory.publisher().publish("orders", "{}").await?;
    /// assert!(orders.receive().await?.settle(&Settlement::Ack).await.is_err());
    /// assert_eq!(orders.receive().await?.delivery.attempt(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fail_next_settlement(&self, destination: impl Into<Arc<str>>, kind: BrokerErrorKind) {
        self.connection.fail_settlement(destination.into(), kind);
    }

    /// Loses the connection until [`reconnect`](Self::reconnect), as when a server is started again: subscriptions wait, publishes and
    /// settlements fail with `Disconnected`, and a message that is not settled meanwhile comes again. What others publish waits in the
    /// broker. Health says that the subscriptions are degraded.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::PublishErrorKind;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let memory = throughline_memory::Memory::new();
    /// memory.disconnect();
    /// let error = memory.publisher().publish("orders", "{}").await.unwrap_err();
    /// assert_eq!(error.kind(), PublishErrorKind::Disconnected);
    /// memory.reconnect();
    /// assert!(memory.publisher().publish("orders", "{}").await.is_ok());
    /// # }
    /// ```
    pub fn disconnect(&self) {
        self.lose(false);
    }

    /// Loses the connection as [`disconnect`](Self::disconnect) does, and the client gives it up: subscriptions end with
    /// [`Disconnected`](BrokerErrorKind::Disconnected), and with them the app.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Broker, BrokerErrorKind, Subscriber};
    /// # use throughline_memory::{Channel, Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let memory = Memory::new();
    /// # let mut orders = memory.subscribe(&Channel::new("orders").into()).await?;
    /// memory.disconnect_for_good();
    /// assert_eq!(orders.receive().await.unwrap_err().kind(), BrokerErrorKind::Disconnected);
    /// # Ok(())
    /// # }
    /// ```
    pub fn disconnect_for_good(&self) {
        self.lose(true);
    }

    fn lose(&self, for_good: bool) {
        self.connection.lose(for_good);
        self.server.wake();
    }

    /// Brings a lost connection back; subscriptions that waited go on.
    pub fn reconnect(&self) {
        self.connection.restore();
    }

    /// Waits until no message is queued, being handled or waiting for its next delivery.
    ///
    /// A message that a group left behind counts: nothing is idle while it waits for someone.
    ///
    /// # Examples
    ///
    /// ```
    /// use throughline_core::broker::{Broker, Subscriber};
    /// use throughline_core::{Envelope, Settlement};
    /// use throughline_memory::{Channel, Memory};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let memory = Memory::new();
    /// let mut orders = memory.subscribe(&Channel::new("orders").into()).await?;
    /// memory.transport().publish(Envelope::new("orders", "{}")).await?;
    /// tokio::spawn(async move {
    ///     if let Ok(mut received) = orders.receive().await {
    ///         received.settle(&Settlement::Ack).await.ok();
    ///     }
    /// });
    /// memory.idle().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// A dropped call changes nothing.
    pub async fn idle(&self) {
        self.server.ledger().idle().await;
    }

    /// Returns the messages of this connection's subscriptions that are not done, with where they are and why they failed; none unless the broker is a
    /// [`recording`](Self::recording) one.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(throughline_memory::Memory::recording().open().is_empty());
    /// ```
    #[must_use]
    pub fn open(&self) -> Vec<OpenMessage> {
        self.connection.open()
    }

    /// Tells whether the connection is lost, see [`disconnect`](Self::disconnect).
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.connection.is_lost()
    }

    /// Returns what was settled so far on this connection, in order; nothing unless the broker is a [`recording`](Self::recording) one.
    #[must_use]
    pub fn settled(&self) -> Vec<SettledMessage> {
        self.connection.settled().unwrap_or_default()
    }

    /// Waits until at least `count` messages are settled, and returns all that are.
    ///
    /// # Errors
    ///
    /// Fails with [`Timeout`](BrokerErrorKind::Timeout) when `deadline` passes first, and with
    /// [`Configuration`](BrokerErrorKind::Configuration) when the broker is not a [`recording`](Self::recording) one.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use throughline_core::broker::BrokerErrorKind;
    /// use throughline_memory::Memory;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let memory = Memory::recording();
    /// let error = memory.settled_within(1, Duration::from_millis(1)).await.unwrap_err();
    /// assert_eq!(error.kind(), BrokerErrorKind::Timeout);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// A dropped call changes nothing.
    pub async fn settled_within(&self, count: usize, deadline: Duration) -> Result<Vec<SettledMessage>, BrokerError> {
        if self.connection.settled().is_none() {
            return Err(BrokerError::configuration(
                "nothing is recorded: create the broker with `Memory::recording()`",
            ));
        }
        let in_time = timeout(deadline, self.connection.settled_count(count)).await.is_ok();
        let settled = self.settled();
        if in_time {
            return Ok(settled);
        }
        let message = format!("{} of {count} messages were settled within {deadline:?}", settled.len());
        Err(BrokerError::new(BrokerErrorKind::Timeout, "timeout", message))
    }
}

#[async_trait]
impl Broker for Memory {
    fn transport(&self) -> Arc<dyn Publish> {
        Arc::new(Transport::new(Arc::clone(&self.server), Arc::clone(&self.connection), Arc::clone(&self.system)))
    }

    fn routes(&self) -> Option<&Routes> {
        Some(&self.routes)
    }

    fn connection(&self) -> ConnectionState {
        self.connection.state()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        refuse_what_cannot_be_imitated(subscription)?;
        if self.connection.is_lost() {
            return Err(self.connection.lost());
        }
        let source = semconv::source(&self.system, subscription);
        Ok(Box::new(Receiver::join(&self.server, &self.connection, subscription, source)))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        Ok(())
    }
}

fn refuse_what_cannot_be_imitated(subscription: &Subscription) -> Result<(), BrokerError> {
    if subscription.patterns().iter().any(|pattern| pattern.as_str().is_empty()) {
        return Err(BrokerError::configuration("a subscription has an empty name: say what to consume"));
    }
    if subscription.needs().is_empty() {
        return Ok(());
    }
    let message = format!(
        "the in-memory broker cannot imitate {} that the subscription to `{}` needs: run this test on the real broker ({})",
        subscription.needs().join(" and "),
        subscription.destination(),
        subscription.system(),
    );
    Err(BrokerError::new(BrokerErrorKind::Unsupported, "unsupported", message))
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("system", &self.system.name()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
