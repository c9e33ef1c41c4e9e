use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use throughline_core::broker::{BrokerError, BrokerErrorKind, Observe, Received};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

use super::burst::Burst;
use super::orders::{FINISH_WAIT, Orders, Task};
use super::poller::{HandOver, Poller};
use super::shared::Shared;
use super::{report, settings};
use crate::broker::Connection;
use crate::error;
use crate::subscription::Topic;

/// How long a start waits for the group to give this member its share. The start goes on without it then: another member may take
/// as long as its own rebalance.
const ASSIGNMENT_WAIT: Duration = Duration::from_secs(30);

/// Is the consumer of one subscription: the thread that polls, and the way its messages come.
pub(crate) struct ConsumerHandle {
    shared: Arc<Shared>,
    orders: Arc<Orders>,
    messages: mpsc::UnboundedReceiver<HandOver>,
    /// The rest of what was handed over last.
    rest: Burst,
    ended: Option<oneshot::Receiver<Result<(), BrokerError>>>,
}

impl ConsumerHandle {
    /// Starts the thread and returns when the group has given this member its partitions.
    pub(crate) async fn start(connection: &Connection, topic: Topic) -> Result<Self, BrokerError> {
        let config: ClientConfig = settings::client_config(&connection.config, &topic)?;
        let shared = Arc::new(Shared::new(topic));
        let orders = Arc::new(Orders::new());
        // Unbounded, as the thread itself bounds how many messages of a partition are held.
        let (sender, messages) = mpsc::unbounded_channel();
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let poller = Poller::new(Arc::clone(&shared), Arc::clone(&orders), sender, connection.records_keys);
        let run = move || {
            // Who asked may be gone.
            let _ = end.send(poller.run(&config, ready));
        };
        std::thread::Builder::new().name("throughline-kafka".to_owned()).spawn(run).map_err(|failed| {
            BrokerError::new(BrokerErrorKind::Other, error::OTHER, "no thread to poll Kafka could be started")
                .with_source(failed)
        })?;
        let handle = Self { shared, orders, messages, rest: Burst::new(connection.records_keys), ended: Some(ended) };
        match timeout(ASSIGNMENT_WAIT, is_ready).await {
            Ok(Ok(started)) => started?,
            Ok(Err(_)) => return Err(ended_early()),
            Err(_) => warn!("the group has not assigned any partition yet; messages come when it does"),
        }
        Ok(handle)
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn observe(&self, observer: Arc<dyn Observe>) {
        report::measure_lag(&self.shared, &*observer);
        self.shared.set_observer(observer);
    }

    /// Waits for the next message. One that was withdrawn meanwhile is known to be so before its handler begins. Cancel safe.
    pub(crate) async fn receive(&mut self) -> Result<Received, BrokerError> {
        loop {
            if let Some(received) = self.rest.next() {
                return Ok(received);
            }
            self.rest = self.messages.recv().await.unwrap_or_else(|| Err(ended_early()))?;
        }
    }

    pub(crate) fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        loop {
            if let Some(received) = self.rest.next() {
                return Some(Ok(received));
            }
            match self.messages.try_recv().ok()? {
                Ok(burst) => self.rest = burst,
                Err(ended) => return Some(Err(ended)),
            }
        }
    }

    /// Takes no more messages and gives up those that nobody received.
    pub(crate) fn close(&mut self) {
        self.orders.set(Task::Stay);
        self.messages.close();
        while self.try_receive().is_some() {}
    }

    /// Commits what is settled and leaves the group.
    pub(crate) async fn finish(&mut self) -> Result<(), BrokerError> {
        self.orders.set(Task::End);
        let Some(ended) = self.ended.take() else { return Ok(()) };
        match timeout(FINISH_WAIT, ended).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ended_early()),
            Err(_) => Err(BrokerError::new(
                BrokerErrorKind::Timeout,
                error::TIMEOUT,
                "the last offsets were not committed within 10 s: their messages come again; look whether the broker can be reached",
            )),
        }
    }
}

impl Drop for ConsumerHandle {
    fn drop(&mut self) {
        self.orders.set(Task::End);
    }
}

fn ended_early() -> BrokerError {
    BrokerError::new(BrokerErrorKind::Ended, error::OTHER, "the consumer ended; the log says why")
}
