//! What is held is kept: a broker that delivers again after a while is told of a batch that is still being collected (SPAN-34).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::broker::{BoxFuture, Received, Settle};
use throughline_core::extract::{Batch, State};
use throughline_core::{App, BrokerError, Settlement, serve};
use throughline_memory::{Channel, Memory};
use tokio::sync::mpsc;

use crate::altered::{Altered, settled_by};

const HEARTBEAT: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_millis(10_500);

/// Tells the broker that what is held is still wanted, and counts that.
struct Counted {
    settle: Arc<dyn Settle>,
    told: Arc<AtomicUsize>,
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
    let (memory, told) = (Memory::new(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&told);
    let broker = Altered::new(&memory, move |received| {
        settled_by(received, |settle| Counted { settle, told: Arc::clone(&counter) })
    });
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
