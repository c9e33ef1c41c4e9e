use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use throughline_core::broker::{BoxFuture, ConnectionState, Existence, Outbound, Publish};
use throughline_core::message::System;
use throughline_core::{BrokerError, Envelope, PublishError, Receipt};
use tokio::time::Instant;

use crate::connection::Connection;
use crate::link::Links;
use crate::options::Limits;

/// Publishes on a connection of its own: with confirms, many at a time, in order.
pub(crate) struct Publishing {
    pub(crate) links: Arc<Links>,
    pub(crate) limits: Limits,
}

/// One message as it goes to the server.
pub(crate) struct Outgoing {
    pub(crate) exchange: String,
    pub(crate) key: String,
    /// Whether it comes back when no queue takes it.
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

impl Publishing {
    pub(crate) fn new(links: Arc<Links>, limits: Limits) -> Arc<Self> {
        Arc::new(Self { links, limits })
    }

    pub(crate) fn state(&self) -> ConnectionState {
        self.links.state()
    }

    /// Waits until all that was published is confirmed or has failed, then closes the connection.
    pub(crate) async fn close(&self, deadline: Instant) -> Result<(), BrokerError> {
        self.links.close(deadline).await
    }

    /// Asks whether what an app will publish to is there: the exchange, or the queue of the default exchange.
    pub(crate) async fn check_destination(&self, outbound: &Outbound<'_>) -> Result<Existence, BrokerError> {
        let _ = outbound;
        unimplemented!()
    }

    /// Publishes one message and waits until the server has confirmed that a queue has it.
    pub(crate) async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let _ = message;
        unimplemented!()
    }
}

/// Publishes on one connection.
pub(crate) struct RabbitPublisher {
    connection: Arc<Connection>,
}

impl RabbitPublisher {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self { connection: Arc::clone(connection) }
    }
}

impl Publish for RabbitPublisher {
    fn system(&self) -> Arc<System> {
        Arc::clone(&self.connection.system)
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let _ = envelope;
        unimplemented!()
    }
}
