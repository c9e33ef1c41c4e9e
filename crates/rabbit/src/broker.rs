use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use throughline_core::broker::{
    Broker, BrokerErrorKind, ConnectionState, Existence, Outbound, Publish, Routes, Subscriber, Subscription,
};
use throughline_core::{BrokerError, Publisher};
use tokio::time::Instant;

use crate::address::{Addresses, server};
use crate::connection::Connection;
use crate::consumer;
use crate::link::Links;
use crate::options::RabbitOptions;
use crate::publish::{Publishing, RabbitPublisher};
use crate::requests::Requests;
use crate::semconv::{self, SYSTEM};
use crate::subscription::Queue;

/// A connection to RabbitMQ.
///
/// There are two connections behind it, one that publishes and one that consumes: while the server is in an alarm it reads nothing
/// from a connection that publishes, acknowledgements neither. Cloning is cheap, clones share both. A connection that is lost is made
/// again by itself, with growing pauses over all addresses; subscriptions declare what they need again and go on.
///
/// # Examples
///
/// ```no_run
/// use throughline_core::broker::Broker;
/// use throughline_rabbit::{Queue, Rabbit};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let rabbit = Rabbit::connect("amqp://localhost").await?;
/// let mut orders = rabbit.subscribe(&Queue::new("orders").into()).await?;
/// rabbit.publisher().publish("orders", "{}").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Rabbit {
    connection: Arc<Connection>,
}

impl Rabbit {
    /// Connects with the default options, and fails within seconds when no server answers.
    ///
    /// # Errors
    ///
    /// Fails when the address is wrong, no server answers, or the server refuses the credentials or the virtual host.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let rabbit = throughline_rabbit::Rabbit::connect("amqp://stock:secret@rabbit.example.com/shop").await?;
    /// let cluster = throughline_rabbit::Rabbit::connect(["rabbit-1", "rabbit-2"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(server: impl Into<Addresses>) -> Result<Self, BrokerError> {
        Self::connect_with(server, RabbitOptions::new()).await
    }

    /// Connects with options: name, virtual host, TLS, authentication, waits.
    ///
    /// # Errors
    ///
    /// Fails as [`connect`](Self::connect).
    pub async fn connect_with(server: impl Into<Addresses>, options: RabbitOptions) -> Result<Self, BrokerError> {
        let addresses = server.into().read()?;
        let system = Arc::new(semconv::system(self::server(&addresses), options.name.as_deref()));
        let limits = options.limits;
        let publishing = Links::open("publishing", addresses.clone(), options.clone()).await?;
        let consuming = Links::open("consuming", addresses, options).await?;
        let publishing = Publishing::new(publishing, limits);
        let routes = Routes::default();
        let requests = Requests::new(&publishing);
        Ok(Self { connection: Arc::new(Connection { system, consuming, publishing, requests, limits, routes }) })
    }

    /// Returns a publisher, for a program that is no service; handlers get theirs as an argument.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self)
    }

    /// Closes both connections, within ten seconds. An app that is served needs no call: its shutdown does.
    ///
    /// # Errors
    ///
    /// Fails when the server does not answer in time; what was not confirmed may have been stored then.
    pub async fn close(&self) -> Result<(), BrokerError> {
        self.shutdown(Instant::now() + CLOSE_WAIT).await
    }
}

/// How long [`Rabbit::close`] waits.
const CLOSE_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

#[async_trait]
impl Broker for Rabbit {
    fn transport(&self) -> Arc<dyn Publish> {
        Arc::new(RabbitPublisher::new(&self.connection))
    }

    fn routes(&self) -> Option<&Routes> {
        Some(&self.connection.routes)
    }

    /// The worse of the two.
    fn connection(&self) -> ConnectionState {
        let (publishing, consuming) = (self.connection.publishing.state(), self.connection.consuming.state());
        let is_up = |state: &ConnectionState| *state == ConnectionState::Connected;
        match (is_up(&publishing), is_up(&consuming)) {
            (_, false) => consuming,
            _ => publishing,
        }
    }

    fn check(&self, subscriptions: &[&Subscription]) -> Result<(), BrokerError> {
        let mut names = HashSet::new();
        for subscription in subscriptions {
            let queue = queue_of(subscription)?;
            queue.check()?;
            if !queue.is_generated() && !names.insert(&queue.name) {
                return Err(BrokerError::configuration(format!(
                    "two handlers subscribe to {queue} and would each see only a part of its messages: give each a queue of its own, bound to \
                     the same exchange, or merge the handlers"
                )));
            }
        }
        Ok(())
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        queue_of(subscription)?.check()?;
        consumer::open(&self.connection, subscription).await
    }

    async fn check_destinations(&self, outbound: &[Outbound<'_>]) -> Vec<Result<Existence, BrokerError>> {
        let mut results = Vec::with_capacity(outbound.len());
        for one in outbound {
            results.push(self.connection.publishing.check_destination(one).await);
        }
        results
    }

    async fn shutdown(&self, deadline: Instant) -> Result<(), BrokerError> {
        let published = self.connection.publishing.close(deadline).await;
        let consumed = self.connection.consuming.close(deadline).await;
        published.and(consumed)
    }
}

/// Returns the queue of a subscription.
fn queue_of(subscription: &Subscription) -> Result<&Queue, BrokerError> {
    subscription.native::<Queue>().filter(|_| subscription.system() == SYSTEM).ok_or_else(|| {
        BrokerError::new(
            BrokerErrorKind::Configuration,
            "configuration",
            format!(
                "the subscription to `{}` is made for {}: subscribe with `Queue`",
                subscription.destination(),
                subscription.system()
            ),
        )
    })
}

impl fmt::Debug for Rabbit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rabbit").field("state", &Broker::connection(self)).finish_non_exhaustive()
    }
}
