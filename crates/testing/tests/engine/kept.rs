//! What is held is kept: a broker that delivers again after a while is told of a batch that is still being collected (SPAN-34).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{BoxFuture, Broker, BrokerError, Publish, Received, Settle, Subscriber, Subscription};
use throughline_core::extract::{Batch, State};
use throughline_core::message::Source;
use throughline_core::{App, Settlement, serve};
use throughline_memory::{Channel, Memory};
use tokio::sync::mpsc;
use tokio::time::Instant;

const HEARTBEAT: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_millis(10_500);

/// The in-memory broker, as one that wants to hear of what is held.
#[derive(Clone)]
struct Impatient {
    memory: Memory,
    told: Arc<AtomicUsize>,
}

struct ImpatientSubscriber {
    inner: Box<dyn Subscriber>,
    told: Arc<AtomicUsize>,
}

struct Counted {
    settle: Arc<dyn Settle>,
    told: Arc<AtomicUsize>,
}

#[async_trait]
impl Broker for Impatient {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        let inner = self.memory.subscribe(subscription).await?;
        Ok(Box::new(ImpatientSubscriber { inner, told: Arc::clone(&self.told) }))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.memory.shutdown().await
    }
}

#[async_trait]
impl Subscriber for ImpatientSubscriber {
    fn source(&self) -> Arc<Source> {
        self.inner.source()
    }

    fn redelivers(&self) -> bool {
        true
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        let mut received = self.inner.receive().await?;
        let tag = received.tag;
        Ok(match received.take_settle() {
            Some(settle) => received.with_settle(Arc::new(Counted { settle, told: Arc::clone(&self.told) }), tag),
            None => received,
        })
    }
}

#[async_trait]
impl Settle for Counted {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.settle.settle(message, settlement)
    }

    fn heartbeat(&self) -> Option<Duration> {
        Some(HEARTBEAT)
    }

    async fn extend(&self, _message: &Received) -> Result<(), BrokerError> {
        self.told.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_kept_while_it_is_collected() {
    type Sizes = mpsc::UnboundedSender<usize>;
    async fn handle(orders: Batch<String>, State(sizes): State<Sizes>) {
        sizes.send(orders.len()).unwrap();
    }
    let (sizes, mut seen) = mpsc::unbounded_channel();
    let broker = Impatient { memory: Memory::new(), told: Arc::default() };
    let (memory, told) = (broker.memory.clone(), Arc::clone(&broker.told));
    let app = App::new().without_telemetry().subscribe(Channel::new("orders").batch(100, WAIT), handle);
    let running = serve(broker, app.with_state(sizes)).start().await.unwrap();
    let publisher = memory.publisher().without_telemetry();
    publisher.publish_batch("orders", ["1", "2"]).await.unwrap();

    assert_eq!(seen.recv().await, Some(2));
    assert_eq!(told.load(Ordering::SeqCst), 20, "each message at each of the ten heartbeats before the batch is due");

    publisher.publish("orders", "3").await.unwrap();
    assert_eq!(seen.recv().await, Some(1));
    assert_eq!(told.load(Ordering::SeqCst), 30, "the next batch begins anew");
    running.shutdown().await.unwrap();
}
