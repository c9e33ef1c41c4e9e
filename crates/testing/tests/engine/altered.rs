//! The in-memory broker as another one.

use std::sync::Arc;

use async_trait::async_trait;
use throughline_core::BrokerError;
use throughline_core::broker::{Broker, Publish, Received, Settle, Subscriber, Subscription};
use throughline_core::message::Source;
use throughline_memory::Memory;
use tokio::time::Instant;

/// The in-memory broker, with something done to each message that it hands out.
pub(crate) struct Altered<F> {
    memory: Memory,
    alter: F,
}

struct AlteredSubscriber<F> {
    inner: Box<dyn Subscriber>,
    alter: F,
}

impl<F: Fn(Received) -> Received + Clone + Send + Sync + 'static> Altered<F> {
    pub(crate) fn new(memory: &Memory, alter: F) -> Self {
        Self { memory: memory.clone(), alter }
    }
}

/// Puts something around what settles a message.
pub(crate) fn settled_by<S: Settle>(mut received: Received, around: impl FnOnce(Arc<dyn Settle>) -> S) -> Received {
    let tag = received.tag;
    match received.take_settle() {
        Some(settle) => received.with_settle(Arc::new(around(settle)), tag),
        None => received,
    }
}

#[async_trait]
impl<F: Fn(Received) -> Received + Clone + Send + Sync + 'static> Broker for Altered<F> {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        let inner = self.memory.subscribe(subscription).await?;
        Ok(Box::new(AlteredSubscriber { inner, alter: self.alter.clone() }))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.memory.shutdown().await
    }
}

#[async_trait]
impl<F: Fn(Received) -> Received + Send + Sync + 'static> Subscriber for AlteredSubscriber<F> {
    fn source(&self) -> Arc<Source> {
        self.inner.source()
    }

    fn redelivers(&self) -> bool {
        true
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        self.inner.receive().await.map(&self.alter)
    }
}
