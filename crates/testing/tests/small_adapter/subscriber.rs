use std::sync::Arc;

use throughline_core::broker::{Received, Reception, Settle, Subscriber};
use throughline_core::message::Source;
use throughline_core::{BrokerError, async_trait};
use tokio::time::Instant;

use crate::client::{Mailbox, Message};
use crate::delivery::{Settler, from_client};
use crate::error;

/// Receives the messages of one subscription.
pub(crate) struct Receiver {
    mailbox: Mailbox,
    source: Arc<Source>,
    settle: Arc<dyn Settle>,
}

impl Receiver {
    pub(crate) fn new(mailbox: Mailbox, source: Source) -> Self {
        Self { mailbox, source: Arc::new(source), settle: Arc::new(Settler) }
    }

    fn received(&self, message: Message) -> Received {
        let number = message.number;
        Received::new(from_client(message)).with_settle(Arc::clone(&self.settle), number)
    }
}

#[async_trait]
impl Subscriber for Receiver {
    fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    fn redelivers(&self) -> bool {
        true
    }

    /// Holds ready as many messages as are handled at the same time; requests may be more than others.
    fn prepare(&mut self, reception: Reception) {
        self.mailbox.set_prefetch(reception.messages_at_once().max(reception.requests_at_once()));
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        match self.mailbox.next().await {
            Some(message) => Ok(self.received(message)),
            None => Err(error::ended(self.source.destination.as_deref().unwrap_or_default())),
        }
    }

    fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        let message = self.mailbox.try_next()?;
        Some(Ok(self.received(message)))
    }

    async fn close(&mut self, _deadline: Instant) {
        self.mailbox.give_back();
    }
}
