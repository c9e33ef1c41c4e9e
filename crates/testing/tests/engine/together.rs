//! A broker that is told of several messages by one operation.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{BatchSettled, BoxFuture, Broker, Publish, Received, Settle, Subscriber, Subscription};
use throughline_core::extract::Batch;
use throughline_core::message::Source;
use throughline_core::telemetry::SettleSpans;
use throughline_core::{App, BrokerError, Settlement, serve};
use throughline_memory::{Channel, Memory};
use throughline_testing::{Capture, attribute};
use tokio::time::Instant;

/// The in-memory broker, with one acknowledgement for all messages of a batch.
#[derive(Clone, Default)]
struct Multiple {
    memory: Memory,
    /// How many messages each of its operations was for.
    operations: Arc<Mutex<Vec<usize>>>,
}

struct MultipleSubscriber {
    inner: Box<dyn Subscriber>,
    broker: Multiple,
    settle: Option<Arc<dyn Settle>>,
}

struct Acknowledges {
    inner: Arc<dyn Settle>,
    operations: Arc<Mutex<Vec<usize>>>,
}

#[async_trait]
impl Broker for Multiple {
    fn transport(&self) -> Arc<dyn Publish> {
        self.memory.transport()
    }

    async fn subscribe(&self, subscription: &Subscription) -> Result<Box<dyn Subscriber>, BrokerError> {
        let inner = self.memory.subscribe(subscription).await?;
        Ok(Box::new(MultipleSubscriber { inner, broker: self.clone(), settle: None }))
    }

    async fn shutdown(&self, _deadline: Instant) -> Result<(), BrokerError> {
        self.memory.shutdown().await
    }
}

#[async_trait]
impl Subscriber for MultipleSubscriber {
    fn source(&self) -> Arc<Source> {
        self.inner.source()
    }

    fn redelivers(&self) -> bool {
        true
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        let mut received = self.inner.receive().await?;
        let (tag, inner) = (received.tag, received.take_settle().expect("it is to be settled"));
        let operations = Arc::clone(&self.broker.operations);
        let settle = self.settle.get_or_insert_with(|| Arc::new(Acknowledges { inner, operations }));
        Ok(received.with_settle(Arc::clone(settle), tag))
    }
}

#[async_trait]
impl Settle for Acknowledges {
    fn settle<'a>(
        &'a self,
        message: &'a Received,
        settlement: &'a Settlement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.operations.lock().unwrap().push(1);
        self.inner.settle(message, settlement)
    }

    async fn settle_batch(&self, messages: &[&Received], settlement: &Settlement) -> BatchSettled {
        self.operations.lock().unwrap().push(messages.len());
        for message in messages {
            self.inner.settle(message, settlement).await.unwrap();
        }
        BatchSettled::Together(Ok(()))
    }
}

/// SPAN-33: what is one operation is one span and one duration; what differs is told of by itself.
#[tokio::test]
async fn messages_that_are_acknowledged_together_are_one_operation() {
    async fn handle(batch: Batch<String>) {
        for message in batch {
            if message.body() == "bad" {
                message.settle(Settlement::reject("bad"));
            }
        }
    }
    let (broker, capture) = (Multiple::default(), Capture::new());
    let engine = capture.instrumentation().settle_spans(SettleSpans::Always).build();
    let batches = Channel::new("orders").batch(4, Duration::from_secs(5));
    let app: App = App::new().telemetry(engine).subscribe(batches, handle);
    let running = serve(broker.clone(), app).start().await.unwrap();
    let publisher = broker.memory.publisher().without_telemetry();
    publisher.publish_batch("orders", ["a", "bad", "b", "c"]).await.unwrap();
    broker.memory.idle().await;
    running.shutdown().await.unwrap();

    assert_eq!(*broker.operations.lock().unwrap(), [3, 1]);
    let tree = capture.tree();
    let acks = tree.find_all("ack orders");
    assert_eq!(acks.len(), 1);
    assert_eq!(attribute(acks[0], "messaging.batch.message_count"), Some(&3.into()));
    assert_eq!(tree.find_all("nack orders").len(), 1);
}
