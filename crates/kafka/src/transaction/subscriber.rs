use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use throughline_core::BrokerError;
use throughline_core::broker::{Publish, Received, Reception, RetryRoute, Subscriber};
use throughline_core::message::Source;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::client::Client;
use super::ids::TakenId;
use super::publisher::{Singly, TransactionPublisher};
use super::settings;
use super::settle::UnitHandle;
use super::units::{Step, Units};
use crate::connection::Connection;
use crate::consumer::ConsumerHandle;
use crate::error;
use crate::publisher::KafkaPublisher;
use crate::subscription::Topic;
use crate::thread;

/// How often it is looked whether another member gets a message that waits for its next attempt.
const WITHDRAWAL_CHECK: Duration = Duration::from_millis(50);

/// Starts a subscription that settles in transactions.
pub(crate) async fn subscribe(
    connection: &Connection,
    topic: Topic,
    id: Arc<str>,
    source: Arc<Source>,
) -> Result<Box<dyn Subscriber>, BrokerError> {
    let config = settings::producer(&connection.config, &topic, &id)?;
    let taken = connection.transactional_ids.take(&id)?;
    let abandoned = Abandoned::default();
    let flag = Arc::clone(&abandoned.0);
    // Before the consumer: what an earlier process left open holds offsets back.
    let client = thread::run("kafka transactions", move || Client::start(&config, id, flag)).await?;
    let producer = Arc::clone(&client.producer);
    let retry = topic.retry_route().map(|route| Arc::new(route) as Arc<dyn RetryRoute>);
    let consumer = ConsumerHandle::start(connection, topic).await?;
    abandoned.keep();
    let units = Arc::new(Units::new(client, Arc::clone(consumer.shared())));
    let inner = KafkaPublisher { connection: Arc::new(Connection { producer, alone: None, ..connection.clone() }) };
    let publisher = Arc::new(TransactionPublisher { inner, units: Arc::clone(&units), singly: Singly::default() });
    Ok(Box::new(TransactionSubscriber { source, consumer, retry, units, publisher, _id: taken }))
}

/// Tells a start that nobody waits for it any more, unless it is kept.
#[derive(Default)]
struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    fn keep(mut self) {
        self.0 = Arc::default();
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Hands out the messages of one transaction, and those of the next one when it has ended.
struct TransactionSubscriber {
    source: Arc<Source>,
    consumer: ConsumerHandle,
    retry: Option<Arc<dyn RetryRoute>>,
    units: Arc<Units>,
    publisher: Arc<TransactionPublisher>,
    _id: TakenId,
}

impl TransactionSubscriber {
    /// Takes along what is here after partitions moved, so that the messages of those that left are given up at once.
    fn follow_moves(&mut self) -> Result<(), BrokerError> {
        if !self.units.has_moved() {
            return Ok(());
        }
        while let Some(received) = self.consumer.try_receive() {
            self.units.push(received?);
        }
        self.units.drop_withdrawn();
        Ok(())
    }

    fn step(&mut self) -> Result<Step, BrokerError> {
        self.follow_moves()?;
        match self.next_of_units()? {
            Step::Empty => {}
            step => return Ok(step),
        }
        match self.consumer.try_receive() {
            Some(received) => {
                self.units.push(received?);
                self.next_of_units()
            }
            None => Ok(Step::Empty),
        }
    }

    fn next_of_units(&self) -> Result<Step, BrokerError> {
        self.units.step(|| Arc::new(UnitHandle::new(Arc::clone(&self.units))))
    }
}

#[async_trait]
impl Subscriber for TransactionSubscriber {
    fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    fn redelivers(&self) -> bool {
        true
    }

    fn retry_route(&self) -> Option<Arc<dyn RetryRoute>> {
        self.retry.clone()
    }

    fn transport(&self) -> Option<Arc<dyn Publish>> {
        Some(Arc::clone(&self.publisher) as _)
    }

    fn prepare(&mut self, reception: Reception) {
        self.consumer.prepare(&reception);
    }

    async fn receive(&mut self) -> Result<Received, BrokerError> {
        loop {
            match self.step()? {
                Step::Ready(received) => return Ok(received),
                Step::TakeBack => self.units.perform(Units::take_back).await?,
                Step::Unit => self.units.ended.notified().await,
                Step::Due(due) => sleep_until(due.min(Instant::now() + WITHDRAWAL_CHECK)).await,
                Step::Empty => tokio::select! {
                    received = self.consumer.receive() => self.units.push(received?),
                    () = self.units.ended.notified() => {}
                },
            }
        }
    }

    fn try_receive(&mut self) -> Option<Result<Received, BrokerError>> {
        match self.step() {
            Ok(Step::Ready(received)) => Some(Ok(received)),
            Ok(_) => None,
            Err(failed) => Some(Err(failed)),
        }
    }

    async fn close(&mut self, _deadline: Instant) {
        self.units.close();
        self.consumer.close();
    }

    async fn finish(&mut self, deadline: Instant) -> Result<(), BrokerError> {
        // What an aborted handler published, or what is still being committed. Half of the time is left to leave the group.
        let now = Instant::now();
        let half = now + deadline.saturating_duration_since(now) / 2;
        let aborted = match timeout_at(half, self.units.perform(Units::take_back)).await {
            Ok(aborted) => aborted,
            Err(_) => {
                self.units.client.give_up();
                Err(error::not_aborted(&self.units.client.id))
            }
        };
        let finished = self.consumer.finish(deadline).await;
        aborted.and(finished)
    }
}
