use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use throughline_core::BrokerError;
use throughline_core::broker::{BrokerErrorKind, Received, Reception};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::burst::Burst;
use super::hand_out::HandOver;
use super::orders::{Orders, Task};
use super::poller::Poller;
use super::settings;
use super::shared::Shared;
use crate::connection::Connection;
use crate::delivery::Reading;
use crate::subscription::Topic;
use crate::{error, thread};

/// The name of the thread that polls.
const THREAD: &str = "throughline-kafka";

/// How long a start waits for the group to give this member its share. The start goes on without it then: another member may take
/// as long as its own rebalance.
const ASSIGNMENT_WAIT: Duration = Duration::from_secs(30);

/// The consumer of one subscription: the thread that polls, and the way its messages come.
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
        let orders = Arc::new(Orders::new(shared.settings.most_held(1)));
        // Unbounded, as the thread itself bounds how many messages of a partition are held.
        let (sender, messages) = mpsc::unbounded_channel();
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let reading = Reading {
            records_keys: connection.records_keys,
            replies: Arc::clone(&shared.settings.replies),
            names: connection.names,
        };
        let poller = Poller::new(Arc::clone(&shared), Arc::clone(&orders), sender.clone(), reading.clone());
        let run = move || {
            let ran = catch_unwind(AssertUnwindSafe(|| poller.run(&config, ready)));
            let result = ran.unwrap_or_else(|_| {
                // Who receives hears of it, as who waits for the end does.
                let _ = sender.send(Err(thread::panicked(THREAD)));
                Err(thread::panicked(THREAD))
            });
            // Who asked may be gone.
            let _ = end.send(result);
        };
        let spawned = std::thread::Builder::new().name(THREAD.to_owned()).spawn(run);
        spawned.map_err(|failed| thread::not_started(THREAD).with_source(failed))?;
        let handle = Self { shared, orders, messages, rest: Burst::new(reading), ended: Some(ended) };
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

    pub(crate) fn prepare(&self, reception: &Reception) {
        self.orders.hold(self.shared.settings.most_held(reception.messages_at_once()));
        self.shared.observe(Arc::clone(reception.observer()));
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

    /// Commits what is settled and leaves the group, by the deadline.
    pub(crate) async fn finish(&mut self, deadline: Instant) -> Result<(), BrokerError> {
        self.orders.end_by(deadline.into_std());
        let Some(ended) = self.ended.take() else { return Ok(()) };
        match timeout_at(deadline, ended).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ended_early()),
            Err(_) => Err(BrokerError::new(
                BrokerErrorKind::Timeout,
                error::TIMEOUT,
                "the last offsets were not committed in time: their messages come again; look whether the broker can be reached",
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
