use std::borrow::Cow;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use throughline_core::broker::{Publish, PublishError};
use throughline_core::message::{Destination, Envelope, Receipt, System, Target};

use crate::broker::Connection;
use crate::destination::Route;
use crate::error;
use crate::producer::{Record, Report, Reported, Unsent};
use crate::receipt::RecordMetadata;
use crate::semconv::{
    CORRELATION_ID, MESSAGE_ID, REPLY_TO, key_attribute, offset_attribute, partition_attribute, tombstone_attribute,
};

/// The header of the media type; Kafka has no place of its own for it.
const CONTENT_TYPE: &str = "content-type";

/// The longest name of a topic.
const MAX_TOPIC: usize = 249;

/// Publishes on one connection.
pub(crate) struct KafkaPublisher {
    pub(crate) connection: Arc<Connection>,
}

impl KafkaPublisher {
    /// Puts a message into the client's queue, from which it is sent in the background; `None` when there is no room.
    fn start_now(&self, envelope: &Envelope) -> Result<Option<Reported>, PublishError> {
        let report = Report::new();
        match self.connection.producer.send(record(envelope, &report)?) {
            Ok(()) => Ok(Some(Reported(report))),
            Err(Unsent::Full(_)) => Ok(None),
            Err(Unsent::Failed(failed)) => Err(error::publish(&failed, envelope.destination().name())),
        }
    }

    /// Puts a message into the client's queue when that has room.
    async fn start(&self, envelope: &Envelope) -> Result<Reported, PublishError> {
        if let Some(started) = self.start_now(envelope)? {
            return Ok(started);
        }
        let report = Report::new();
        let waiting = self.connection.producer.send_when_room(Box::new(record(envelope, &report)?));
        match waiting.await {
            Ok(()) => Ok(Reported(report)),
            Err(failed) => Err(error::publish(&failed, envelope.destination().name())),
        }
    }

    async fn start_and_confirm(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        let reported = self.start(&envelope).await?;
        receipt(reported.await, envelope.destination())
    }
}

#[async_trait]
impl Publish for KafkaPublisher {
    fn system(&self) -> Arc<System> {
        Arc::clone(&self.connection.system)
    }

    fn target<'a>(&self, destination: &'a Destination) -> Target<'a> {
        let partition = Route::of(destination).partition;
        Target {
            template: destination.template().map(Cow::Borrowed),
            attributes: partition.map(partition_attribute).into_iter().collect(),
            ..Target::new(destination.name())
        }
    }

    fn attributes(&self, envelope: &Envelope, attributes: &mut Vec<KeyValue>) {
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
    /// Written out instead of `async fn`: a message that the client takes at once is in its queue before there is a future.
    fn publish<'a, 'f>(
        &'a self,
        envelope: Envelope,
    ) -> Pin<Box<dyn Future<Output = Result<Receipt, PublishError>> + Send + 'f>>
    where
        'a: 'f,
    {
        match self.start_now(&envelope) {
            Ok(Some(reported)) => {
                let destination = envelope.destination().clone();
                // The transport is borrowed until then, and with it the producer that reports.
                Box::pin(async move { receipt(reported.await, &destination) })
            }
            Ok(None) => Box::pin(self.start_and_confirm(envelope)),
            Err(failed) => Box::pin(ready(Err(failed))),
        }
    }

    /// Puts all messages into the client's queue, in their order, before it waits for the first report.
    async fn publish_batch(&self, messages: Vec<Envelope>) -> Vec<Result<Receipt, PublishError>> {
        let mut started = Vec::with_capacity(messages.len());
        for envelope in messages {
            let reported = self.start(&envelope).await;
            started.push((reported, envelope.destination().clone()));
        }
        let mut results = Vec::with_capacity(started.len());
        for (reported, destination) in started {
            results.push(match reported {
                Ok(reported) => receipt(reported.await, &destination),
                Err(failed) => Err(failed),
            });
        }
        results
    }
}

/// Makes the client's form of a message, which lends all but the headers.
fn record<'a>(envelope: &'a Envelope, report: &Arc<Report>) -> Result<Record<'a>, PublishError> {
    let topic = envelope.destination().name();
    if !is_topic(topic) {
        return Err(error::invalid_topic(topic));
    }
    let route = Route::of(envelope.destination());
    if route.partition.is_some_and(|partition| partition < 0) {
        // To the client, -1 says that there is no partition.
        return Err(error::publish(&KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition), topic));
    }
    let record = Record {
        topic,
        partition: route.partition,
        payload: envelope.has_payload().then(|| envelope.payload().as_ref()),
        key: envelope.key().map(AsRef::as_ref),
        timestamp: route.timestamp,
        headers: headers(envelope),
        delivery_opaque: Arc::clone(report),
    };
    Ok(record)
}

/// Tells what the brokers take as the name of a topic. A wrong one would be a topic that is long waited for.
fn is_topic(name: &str) -> bool {
    let is_sign = |sign: u8| sign.is_ascii_alphanumeric() || matches!(sign, b'.' | b'_' | b'-');
    (1..=MAX_TOPIC).contains(&name.len()) && name.bytes().all(is_sign) && name != "." && name != ".."
}

/// Writes the headers and, in place of headers of those names, what Kafka has no other place for (ATTR-K-09).
fn headers(envelope: &Envelope) -> Option<OwnedHeaders> {
    let own = [
        (MESSAGE_ID, envelope.id()),
        (CORRELATION_ID, envelope.correlation_id()),
        (CONTENT_TYPE, envelope.content_type()),
        (REPLY_TO, envelope.reply_to().map(Destination::name)),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let count = envelope.headers().len() + own.clone().count();
    if count == 0 {
        return None;
    }
    let is_replaced = |key: &str| own.clone().any(|(name, _)| key.eq_ignore_ascii_case(name));
    let given =
        envelope.headers().iter().filter(|(key, _)| !is_replaced(key)).map(|(key, value)| (key, value.as_ref()));
    let all = given.chain(own.clone().map(|(name, value)| (name, value.as_bytes())));
    let native = OwnedHeaders::new_with_capacity(count);
    Some(all.fold(native, |native, (key, value)| native.insert(Header { key, value: Some(value) })))
}

/// Says where the message is, with what telemetry did not know before (ATTR-K-02, ATTR-K-05).
fn receipt(reported: Result<RecordMetadata, KafkaError>, destination: &Destination) -> Result<Receipt, PublishError> {
    let place = reported.map_err(|failed| error::publish(&failed, destination.name()))?;
    let mut receipt = Receipt::new().with_native(place);
    if Route::of(destination).partition.is_none() {
        receipt = receipt.with_attribute(partition_attribute(place.partition));
    }
    if place.offset >= 0 {
        receipt = receipt.with_attribute(offset_attribute(place.offset));
    }
    Ok(receipt)
}
