use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use throughline_core::PublishError;

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
    /// Publishes one message and waits until the server has confirmed that a queue has it.
    pub(crate) async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let _ = message;
        unimplemented!()
    }
}
