use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{Broker, BrokerErrorKind, ConnectionState, Publish, Routes, Subscriber, Subscription};
use throughline_core::message::System;
use throughline_core::{BrokerError, Delivery, Publisher};
use tokio::time::{Instant, timeout};

use crate::publisher::Transport;
use crate::semconv;
use crate::server::{Ledger, Message, Server, SettledMessage};
use crate::subscriber::Receiver;

/// A broker inside the process. A clone is the same broker, so that several services of a test can share it.
///
/// It also starts an app written for a real broker: it takes that broker's subscriptions with their patterns, group (or the name
/// under which the broker would keep their position) and batch, and refuses what it cannot imitate.
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
        Self::with_ledger(Ledger::default())
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
        Self::with_ledger(Ledger::recording())
    }

    fn with_ledger(ledger: Ledger) -> Self {
        Self { server: Arc::new(Server::new(ledger)), system: Arc::new(semconv::system()), routes: Routes::default() }
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

    /// Returns what was settled so far, in order; nothing unless the broker is a [`recording`](Self::recording) one.
    #[must_use]
    pub fn settled(&self) -> Vec<SettledMessage> {
        self.server.ledger().settled().unwrap_or_default()
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
        let ledger = self.server.ledger();
        if ledger.settled().is_none() {
            return Err(BrokerError::configuration(
                "nothing is recorded: create the broker with `Memory::recording()`",
            ));
        }
        let in_time = timeout(deadline, ledger.settled_count(count)).await.is_ok();
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
        Arc::new(Transport::new(Arc::clone(&self.server), Arc::clone(&self.system)))
    }

    fn routes(&self) -> Option<&Routes> {
        Some(&self.routes)
    }

    fn connection(&self) -> ConnectionState {
        ConnectionState::Connected
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        refuse_what_cannot_be_imitated(subscription)?;
        let source = Arc::new(semconv::source(&self.system, subscription));
        let (queue, member) = self.server.join(subscription);
        Ok(Box::new(Receiver::new(Arc::clone(&self.server), queue, member, source)))
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
