use std::any::Any;
use std::collections::HashSet;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use opentelemetry::KeyValue;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::Producer as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Statistics};
use throughline_core::BrokerError;
use throughline_core::broker::ConnectionState;
use throughline_core::message::Answer;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tracing::error;

use crate::context::Context;
use crate::receipt::RecordMetadata;
use crate::semconv::{offset_attribute, partition_attribute};
use crate::{config, lookup};

/// How long a full queue is left alone when no report comes. The client gives the room of reported messages free only
/// after it has reported all of them, so the report itself may be too early to try again.
const RECHECK: Duration = Duration::from_millis(10);

/// How long what nobody waits for any more is still sent when the last clone of a connection is dropped.
const DROP_WAIT: Duration = Duration::from_secs(10);

/// A message as the client takes it.
pub(crate) type Record<'a> = BaseRecord<'a, [u8], [u8], Arc<Report>>;

/// The client's producer, with the client's thread that takes the delivery reports.
pub(crate) struct Producer {
    /// `None` only while it is dropped.
    client: Option<ThreadedProducer<Reports>>,
    /// Whoever has it waits for room in the queue; the others wait for it, in their order.
    turn: Semaphore,
    /// How long a message waits for room: as long as it may then take to be delivered. `None` is for ever.
    message_timeout: Option<Duration>,
    /// Topics that messages named and that exist.
    known: Mutex<HashSet<String>>,
}

/// How many topics that messages named are known; others are looked up each time.
const MOST_KNOWN: usize = 1_024;

/// Says why a message is not in the queue.
pub(crate) enum Unsent<'a> {
    /// The queue is full. The message as it was.
    Full(Box<Record<'a>>),
    Failed(KafkaError),
}

impl Producer {
    /// Creates the client; it connects in the background. Blocks shortly.
    pub(crate) fn create(config: &ClientConfig) -> Result<Self, BrokerError> {
        let client = config.create_with_context(Reports::default()).map_err(|failed| config::unusable(&failed))?;
        let message_timeout = config::message_timeout(config);
        Ok(Self { client: Some(client), turn: Semaphore::new(1), message_timeout, known: Mutex::default() })
    }

    pub(crate) fn client(&self) -> Result<&ThreadedProducer<Reports>, KafkaError> {
        self.client.as_ref().ok_or(KafkaError::Canceled)
    }

    /// Puts a message into the queue if that has room and nobody else waits for it.
    pub(crate) fn send<'a>(&self, record: Record<'a>) -> Result<(), Unsent<'a>> {
        if self.turn.available_permits() == 0 { Err(Unsent::Full(Box::new(record))) } else { self.push(record) }
    }

    /// Puts a message into the queue as soon as that has room. Cancel safe: dropped, the message is not in the queue.
    pub(crate) async fn send_when_room(&self, mut record: Box<Record<'_>>) -> Result<(), KafkaError> {
        let waiting = async {
            let _turn = self.turn.acquire().await;
            loop {
                match self.push(*record) {
                    Ok(()) => return Ok(()),
                    Err(Unsent::Failed(failed)) => return Err(failed),
                    Err(Unsent::Full(same)) => record = same,
                }
                let reported = self.client()?.context().room.notified();
                let _ = timeout(RECHECK, reported).await;
            }
        };
        let Some(limit) = self.message_timeout else { return waiting.await };
        let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
        timeout(limit, waiting).await.unwrap_or(Err(full))
    }

    fn push<'a>(&self, record: Record<'a>) -> Result<(), Unsent<'a>> {
        let client = self.client().map_err(Unsent::Failed)?;
        client.send(record).map_err(|(failed, record)| match failed {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => Unsent::Full(Box::new(record)),
            failed => Unsent::Failed(failed),
        })
    }

    /// Tells whether a topic that a message names exists; `None` where nobody says. Blocks where it was not found before.
    pub(crate) fn knows(&self, topic: &str, limit: Duration) -> Option<bool> {
        if self.known().contains(topic) {
            return Some(true);
        }
        let exists = lookup::exists(self.client().ok()?.client(), topic, limit);
        let mut known = self.known();
        if exists == Some(true) && known.len() < MOST_KNOWN {
            known.insert(topic.to_owned());
        }
        exists
    }

    /// Looks a topic up again the next time.
    pub(crate) fn forget(&self, topic: &str) {
        self.known().remove(topic);
    }

    /// Tells whether a topic was found before.
    pub(crate) fn is_known(&self, topic: &str) -> bool {
        self.known().contains(topic)
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether any broker is reached.
    pub(crate) fn connection(&self) -> ConnectionState {
        match &self.client {
            Some(client) => client.context().context.connection(),
            None => ConnectionState::Closed,
        }
    }

    /// Waits until all messages are reported, and says how many are not after the limit. Blocks.
    pub(crate) fn flush(&self, limit: Duration) -> Result<(), (KafkaError, usize)> {
        let client = self.client().map_err(|failed| (failed, 0))?;
        client.flush(limit).map_err(|failed| (failed, usize::try_from(client.in_flight_count()).unwrap_or_default()))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // On a thread of its own: the client waits for its own threads. What cannot be sent in time, nobody waits for.
        if let Some(client) = self.client.take() {
            let close = move || drop(client.flush(DROP_WAIT));
            if let Err(failed) = thread::Builder::new().name("kafka close".to_owned()).spawn(close) {
                error!(error = %failed, "no thread to close the connection on, what was not confirmed is lost");
            }
        }
    }
}

/// Takes the delivery reports, on the client's thread.
#[derive(Default)]
pub(crate) struct Reports {
    pub(crate) context: Context,
    /// Told of each report, since that makes room in the queue.
    room: Notify,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        self.context.note_brokers(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = Arc<Report>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, report: Arc<Report>) {
        let result = match delivered {
            Ok(message) => Ok(RecordMetadata {
                partition: message.partition(),
                offset: message.offset(),
                timestamp: message.timestamp(),
            }),
            // Of a message, the client reports a code and nothing else.
            Err((failed, _)) => Err(failed.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        // It wakes up a task of any runtime; if that panicked, this thread would end, and no message be reported any more.
        let told = catch_unwind(AssertUnwindSafe(|| {
            report.set(result);
            self.room.notify_one();
        }));
        if told.is_err() {
            error!("what waits for a delivery report panicked when it was woken up; other messages go on");
        }
    }
}

/// What the client will report of one message, and then the answer in its receipt. Wait for it only while the producer
/// lives, which reports every message.
pub(crate) struct Report {
    result: OnceLock<Result<RecordMetadata, RDKafkaErrorCode>>,
    waker: AtomicWaker,
    /// Whether the partition was known before, so that the span has it already.
    is_partition_known: bool,
}

impl Report {
    pub(crate) fn new(is_partition_known: bool) -> Arc<Self> {
        Arc::new(Self { result: OnceLock::new(), waker: AtomicWaker::new(), is_partition_known })
    }

    fn set(&self, result: Result<RecordMetadata, RDKafkaErrorCode>) {
        // The client reports a message once.
        let _ = self.result.set(result);
        self.waker.wake();
    }

    /// Waits for the report. Only one task may wait. Cancel safe: dropped, the message is delivered all the same.
    pub(crate) async fn wait(&self) -> Result<RecordMetadata, RDKafkaErrorCode> {
        poll_fn(|task| {
            if self.result.get().is_none() {
                self.waker.register(task.waker());
            }
            // It may have come before the waker was there.
            self.result.get().map_or(Poll::Pending, |result| Poll::Ready(*result))
        })
        .await
    }
}

/// Says what telemetry did not know before.
// ATTR-K-02, ATTR-K-05.
impl Answer for Report {
    fn native(&self) -> &dyn Any {
        match self.result.get() {
            Some(Ok(place)) => place,
            _ => &(),
        }
    }

    fn attributes(&self, attributes: &mut Vec<KeyValue>) {
        let Some(Ok(place)) = self.result.get() else { return };
        if !self.is_partition_known {
            attributes.push(partition_attribute(place.partition));
        }
        if place.offset >= 0 {
            attributes.push(offset_attribute(place.offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use rdkafka::Timestamp;
    use rdkafka::producer::PurgeConfig;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use throughline_core::Receipt;

    use super::*;

    /// How long a test waits for anything before it fails.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Connects to a broker that the client itself plays.
    fn producer(properties: &[(&str, &str)]) -> Producer {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", "1").set("linger.ms", "0");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let producer = Producer::create(&config).unwrap();
        producer.client().unwrap().client().mock_cluster().unwrap().create_topic("orders", 1, 1).unwrap();
        producer
    }

    /// Makes the broker answer only after a time that no test waits for.
    fn make_slow(producer: &Producer) {
        producer
            .client()
            .unwrap()
            .client()
            .mock_cluster()
            .unwrap()
            .broker_round_trip_time(1, Duration::from_secs(600))
            .unwrap();
    }

    fn record(report: &Arc<Report>) -> Record<'static> {
        BaseRecord::with_opaque_to("orders", Arc::clone(report)).payload(b"x".as_slice()).key(b"".as_slice())
    }

    fn send(producer: &Producer) -> Arc<Report> {
        let report = Report::new(false);
        assert!(producer.send(record(&report)).is_ok());
        report
    }

    #[test]
    fn the_receipt_has_what_was_not_known_before() {
        let place = RecordMetadata { partition: 3, offset: 12, timestamp: Timestamp::NotAvailable };
        let attributes = |is_partition_known| {
            let report = Report::new(is_partition_known);
            report.set(Ok(place));
            let receipt = Receipt::from_answer(report);
            assert_eq!(receipt.native::<RecordMetadata>(), Some(&place));
            receipt.attributes().iter().map(|one| format!("{}={}", one.key, one.value)).collect::<Vec<_>>()
        };
        let (partition, offset) = ("messaging.destination.partition.id=3", "messaging.kafka.offset=12");
        assert_eq!(attributes(false), [partition, offset], "ATTR-K-02, ATTR-K-05");
        assert_eq!(attributes(true), [offset], "ATTR-K-02");
    }

    #[tokio::test]
    async fn each_message_is_reported() {
        let producer = producer(&[]);
        let offsets = [send(&producer), send(&producer), send(&producer)];
        for (expected, reported) in offsets.into_iter().enumerate() {
            let place = timeout(PATIENCE, reported.wait()).await.unwrap().unwrap();
            assert_eq!((place.partition, place.offset), (0, expected as i64));
        }
    }

    #[tokio::test]
    async fn a_refused_message_is_reported_with_the_reason() {
        let producer = producer(&[]);
        let mock = producer.client().unwrap().client().mock_cluster().unwrap();
        let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        mock.request_errors(RDKafkaApiKey::Produce, &[refusal]);
        let failed = timeout(PATIENCE, send(&producer).wait()).await.unwrap().unwrap_err();
        assert_eq!(failed, RDKafkaErrorCode::TopicAuthorizationFailed);
    }

    #[tokio::test]
    async fn a_flush_says_how_many_messages_are_not_confirmed() {
        let producer = producer(&[]);
        make_slow(&producer);
        let _sent = [send(&producer), send(&producer), send(&producer)];
        let (failed, messages) = producer.flush(Duration::from_millis(1)).unwrap_err();
        assert_eq!((failed.rdkafka_error_code(), messages), (Some(RDKafkaErrorCode::OperationTimedOut), 3));
    }

    #[tokio::test]
    async fn a_queue_that_stays_full_is_an_error_after_the_time_of_a_message() {
        let mut producer = producer(&[("queue.buffering.max.messages", "1")]);
        make_slow(&producer);
        let _first = send(&producer);
        producer.message_timeout = Some(Duration::from_millis(1));
        let failed = producer.send_when_room(Box::new(record(&Report::new(false)))).await.unwrap_err();
        assert_eq!(failed.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_waits_for_room() {
        let producer = producer(&[("queue.buffering.max.messages", "1")]);
        make_slow(&producer);
        let first = send(&producer);
        let report = Report::new(false);
        let Err(Unsent::Full(second)) = producer.send(record(&report)) else { panic!("there is no room") };
        let mut waiting = Box::pin(producer.send_when_room(second));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(matches!(producer.send(record(&report)), Err(Unsent::Full(_))));

        // What is given up makes room.
        producer.client().unwrap().purge(PurgeConfig::default().queue().inflight());
        let given_up = timeout(PATIENCE, first.wait()).await.unwrap();
        assert!(given_up.is_err());
        timeout(PATIENCE, waiting).await.unwrap().unwrap();
    }
}
