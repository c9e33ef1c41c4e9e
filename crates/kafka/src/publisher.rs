use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use throughline_core::broker::{BoxFuture, Publish, PublishErrorKind};
use throughline_core::message::System;
use throughline_core::{Destination, Envelope, PublishError, Receipt};

use crate::alone::Alone;
use crate::connection::Connection;
use crate::destination::Purpose;
use crate::error;
use crate::names::is_topic;
use crate::outgoing::{record, report_of};
use crate::producer::{Report, Unsent};
use crate::properties::RecordProperties;
use crate::semconv::{key_attribute, partition_attribute, tombstone_attribute};
use crate::thread;

/// How long it is looked whether a topic exists that a message asks for.
const LOOK_UP_WAIT: Duration = Duration::from_secs(2);

/// Publishes on one connection.
pub(crate) struct KafkaPublisher {
    pub(crate) connection: Arc<Connection>,
}

impl KafkaPublisher {
    /// Puts a message into the client's queue, from which it is sent in the background; `None` when there is no room.
    fn start_now(&self, envelope: &Envelope) -> Result<Option<Arc<Report>>, PublishError> {
        let report = report_of(envelope);
        match self.connection.producer.send(record(envelope, &report, &self.connection.names)?) {
            Ok(()) => Ok(Some(report)),
            Err(Unsent::Full(_)) => Ok(None),
            Err(Unsent::Failed(failed)) => Err(error::publish(&failed, envelope.destination().name())),
        }
    }

    /// Puts a message into the client's queue when that has room.
    async fn start(&self, envelope: &Envelope) -> Result<Arc<Report>, PublishError> {
        if let Some(started) = self.start_now(envelope)? {
            return Ok(started);
        }
        let report = report_of(envelope);
        let waiting =
            self.connection.producer.send_when_room(Box::new(record(envelope, &report, &self.connection.names)?));
        match waiting.await {
            Ok(()) => Ok(report),
            Err(failed) => Err(error::publish(&failed, envelope.destination().name())),
        }
    }

    async fn start_and_confirm(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        let report = self.start(&envelope).await?;
        self.confirm(report, envelope).await
    }

    /// Waits until a message is stored. What was refused with others is sent once more, alone, and that answer is taken.
    async fn confirm(&self, report: Arc<Report>, envelope: Envelope) -> Result<Receipt, PublishError> {
        match (report.wait().await, &self.connection.alone) {
            (Ok(_), _) => Ok(Receipt::from_answer(report)),
            // In a box: it is rare, and as large as the rest.
            (Err(code), Some(alone)) if error::is_of_request(code) => {
                Box::pin(confirm_alone(alone, &envelope, code)).await
            }
            (Err(code), _) => Err(failed(code, &envelope)),
        }
    }

    /// Publishes to a topic that a message named. It is looked up first: one that does not exist the client would wait for, and the
    /// partition of that message with it.
    async fn publish_asked(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        let name = envelope.destination().name().to_owned();
        if !is_topic(&name) {
            return Err(error::invalid_topic(&name));
        }
        if !self.connection.producer.is_known(&name) {
            let (producer, topic) = (Arc::clone(&self.connection.producer), name.clone());
            let exists = thread::run("kafka look-up", move || Ok(producer.knows(&topic, LOOK_UP_WAIT))).await;
            // Where nobody answers, the publish finds out.
            if let Ok(Some(false)) = exists {
                let unknown = KafkaError::MessageProduction(RDKafkaErrorCode::UnknownTopicOrPartition);
                return Err(error::publish(&unknown, &name));
            }
        }
        let published = self.start_and_confirm(envelope).await;
        if published.as_ref().is_err_and(|failed| failed.kind() == PublishErrorKind::NotFound) {
            self.connection.producer.forget(&name);
        }
        published
    }
}

#[async_trait]
impl Publish for KafkaPublisher {
    fn system(&self) -> Arc<System> {
        Arc::clone(&self.connection.system)
    }

    fn check(&self, destination: &Destination) -> Result<(), PublishError> {
        if is_topic(destination.name()) { Ok(()) } else { Err(error::invalid_topic(destination.name())) }
    }

    fn attributes(&self, envelope: &Envelope, attributes: &mut Vec<KeyValue>) {
        attributes.extend(RecordProperties::of(envelope).partition.map(partition_attribute));
        if self.connection.records_keys {
            attributes.extend(envelope.key().and_then(|key| key_attribute(key)));
        }
        if !envelope.has_payload() {
            attributes.push(tombstone_attribute());
        }
    }

    /// Returns when the brokers have confirmed the message. Cancel safe in this sense: a call dropped while the client's
    /// queue is full has sent nothing, after that the message is on its way and may be stored.
    ///
    /// A message that the client takes at once is in its queue before there is a future.
    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        if Purpose::of(envelope.destination()).is_asked {
            return Box::pin(self.publish_asked(envelope));
        }
        match self.start_now(&envelope) {
            // The transport is borrowed until then, and with it the producer that reports.
            Ok(Some(report)) => Box::pin(self.confirm(report, envelope)),
            Ok(None) => Box::pin(self.start_and_confirm(envelope)),
            Err(failed) => Box::pin(ready(Err(failed))),
        }
    }

    /// Puts all messages into the client's queue, in their order, before it waits for the first report.
    async fn publish_batch(&self, messages: Vec<Envelope>) -> Vec<Result<Receipt, PublishError>> {
        let mut started = Vec::with_capacity(messages.len());
        for envelope in messages {
            let report = match self.start_now(&envelope) {
                Ok(None) => self.start(&envelope).await,
                Ok(Some(report)) => Ok(report),
                Err(failed) => Err(failed),
            };
            started.push((report, envelope));
        }
        // From the last on: when that is reported, most of the others are, and the task is woken once and not for each.
        let mut results = Vec::with_capacity(started.len());
        let mut again = Vec::new();
        while let Some((report, envelope)) = started.pop() {
            results.push(match report {
                Ok(report) => match report.wait().await {
                    Ok(_) => Ok(Receipt::from_answer(report)),
                    Err(code) => {
                        let failed = failed(code, &envelope);
                        again.push(Refused { index: started.len(), envelope, code });
                        Err(failed)
                    }
                },
                Err(failed) => Err(failed),
            });
        }
        results.reverse();
        if let Some(alone) = &self.connection.alone {
            again.retain(|refused| error::is_of_request(refused.code));
            again.reverse();
            publish_again(alone, again, &mut results).await;
        }
        results
    }
}

/// A message of a batch that was refused, perhaps for another one.
struct Refused {
    index: usize,
    envelope: Envelope,
    code: RDKafkaErrorCode,
}

/// Publishes messages of a batch alone, in their order, and puts the answers in the place of the earlier ones.
async fn publish_again(alone: &Alone, refused: Vec<Refused>, results: &mut [Result<Receipt, PublishError>]) {
    let mut started = Vec::with_capacity(refused.len());
    for one in refused {
        started.push((alone.start(&one.envelope, one.code).await, one));
    }
    for (report, one) in started {
        let answer = match report {
            Ok(report) => receipt_alone(alone, report, &one.envelope, one.code).await,
            Err(failed) => Err(failed),
        };
        if let Some(result) = results.get_mut(one.index) {
            *result = answer;
        }
    }
}

/// Publishes a message alone that was refused with others.
async fn confirm_alone(alone: &Alone, envelope: &Envelope, refused: RDKafkaErrorCode) -> Result<Receipt, PublishError> {
    receipt_alone(alone, alone.start(envelope, refused).await?, envelope, refused).await
}

async fn receipt_alone(
    alone: &Alone,
    report: Arc<Report>,
    envelope: &Envelope,
    refused: RDKafkaErrorCode,
) -> Result<Receipt, PublishError> {
    match report.wait().await {
        Ok(_) => {
            alone.note_taken(envelope.destination().name(), refused);
            Ok(Receipt::from_answer(report))
        }
        Err(code) => Err(failed(code, envelope)),
    }
}

fn failed(code: RDKafkaErrorCode, envelope: &Envelope) -> PublishError {
    error::publish(&KafkaError::MessageProduction(code), envelope.destination().name())
}
