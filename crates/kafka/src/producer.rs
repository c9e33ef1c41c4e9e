use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::Producer as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};
use throughline_core::broker::BrokerError;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tracing::error;

use crate::config;
use crate::context::Context;
use crate::receipt::RecordMetadata;

/// How long a full queue is left alone when no report comes. The client gives the room of reported messages free only
/// after it has reported all of them, so the report itself may be too early to try again.
const RECHECK: Duration = Duration::from_millis(10);

/// How long what nobody waits for any more is still sent when the last clone of a connection is dropped.
const DROP_WAIT: Duration = Duration::from_secs(5);

/// Is a message as the client takes it.
pub(crate) type Record<'a> = BaseRecord<'a, [u8], [u8], Arc<Report>>;

/// Is the client's producer, with the client's thread that takes the delivery reports.
pub(crate) struct Producer {
    /// `None` only while it is dropped.
    client: Option<ThreadedProducer<Reports>>,
    /// Whoever has it waits for room in the queue; the others wait for it, in their order.
    turn: Semaphore,
    /// How long a message waits for room: as long as it may then take to be delivered. `None` is for ever.
    message_timeout: Option<Duration>,
}

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
        Ok(Self { client: Some(client), turn: Semaphore::new(1), message_timeout: config::message_timeout(config) })
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

    fn stats_raw(&self, statistics: &[u8]) {
        self.context.stats_raw(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = Arc<Report>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, report: Arc<Report>) {
        report.set(match delivered {
            Ok(message) => Ok(RecordMetadata {
                partition: message.partition(),
                offset: message.offset(),
                timestamp: message.timestamp(),
            }),
            Err((failed, _)) => Err(failed.clone()),
        });
        self.room.notify_one();
    }
}

/// Is what the client will report of one message. Await it only while the producer lives, which reports every message.
pub(crate) struct Report {
    state: Mutex<State>,
}

enum State {
    Awaited(Option<Waker>),
    Here(Result<RecordMetadata, KafkaError>),
}

impl Report {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Awaited(None)) })
    }

    fn set(&self, result: Result<RecordMetadata, KafkaError>) {
        let before =
            std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Here(result));
        if let State::Awaited(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// Waits for a report. Cancel safe: dropped, the message is delivered all the same.
pub(crate) struct Reported(pub(crate) Arc<Report>);

impl Future for Reported {
    type Output = Result<RecordMetadata, KafkaError>;

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match &mut *self.0.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Here(result) => Poll::Ready(result.clone()),
            State::Awaited(Some(waker)) => {
                waker.clone_from(task.waker());
                Poll::Pending
            }
            State::Awaited(waker) => {
                *waker = Some(task.waker().clone());
                Poll::Pending
            }
        }
    }
}
