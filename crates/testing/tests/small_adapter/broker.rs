use std::sync::Arc;

use throughline_core::broker::{Broker, Publish, Routes, Subscriber, Subscription};
use throughline_core::{BrokerError, Publisher, async_trait};
use tokio::time::Instant;

use crate::client::{Client, Post};
use crate::connection::Connection;
use crate::publisher::Transport;
use crate::semconv::{self, SYSTEM};
use crate::subscriber::Receiver;

/// A connection to a pigeon post. A clone is the same connection.
#[derive(Clone)]
pub struct Pigeons {
    connection: Arc<Connection>,
}

impl Pigeons {
    /// Connects to a server.
    #[must_use]
    pub fn connect(post: &Arc<Post>) -> Self {
        Self { connection: Arc::new(Connection::new(Client::connect(post))) }
    }

    /// Returns a publisher for use outside any handler.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self)
    }
}

#[async_trait]
impl Broker for Pigeons {
    fn transport(&self) -> Arc<dyn Publish> {
        Arc::new(Transport(Arc::clone(&self.connection)))
    }

    fn routes(&self) -> Option<&Routes> {
        Some(&self.connection.routes)
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        if subscription.system() != SYSTEM {
            return Err(subscription.refused_by(SYSTEM, "`Subject`"));
        }
        let [pattern] = subscription.patterns() else {
            return Err(BrokerError::configuration("pigeon post takes one subject: subscribe to each of them"));
        };
        let mailbox = self.connection.client.subscribe(&pattern.to_wire(), subscription.group());
        let source = semconv::source(&self.connection.system, subscription);
        Ok(Box::new(Receiver::new(mailbox, source)))
    }

    /// A publish is confirmed when it returns, so there is nothing to wait for.
    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.connection.client.close();
        Ok(())
    }
}
