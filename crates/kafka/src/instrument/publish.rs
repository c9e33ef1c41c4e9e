use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{OwnedHeaders, OwnedMessage, Timestamp, ToBytes};
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use rdkafka::producer::{BaseRecord, DeliveryFuture as ClientFuture, FutureProducer, FutureRecord};
use rdkafka::util::{AsyncRuntime, IntoOpaque, Timeout};
use throughline_core::PublishError;
use throughline_core::broker::HeaderNames;
use throughline_core::message::Target;
use throughline_core::telemetry::{Outgoing, Sending};

use super::Instrumentation;
use super::callbacks::{CallbackProducer, PendingDelivery};
use super::report::{DeliveryFuture, Reported};
use crate::carrier::{HeaderInjector, last};
use crate::error;
use crate::semconv::{key_attribute, partition_attribute, tombstone_attribute};

/// How long to wait when the client's queue is full, as the client itself does.
const FULL: Duration = Duration::from_millis(100);

/// Sending.
impl Instrumentation {
    /// Sends a record and waits for its delivery report, as the client does. The span ends with the report, and
    /// has partition and offset from it.
    ///
    /// # Errors
    ///
    /// Fails as the client does.
    ///
    /// # Cancel safety
    ///
    /// As the client's: a dropped call may have sent the record. Its span is a cancelled one.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use rdkafka::producer::{FutureProducer, FutureRecord};
    /// # async fn example(otel: throughline_kafka::Instrumentation, producer: FutureProducer) {
    /// let record = FutureRecord::to("orders").key("k1").payload("{}");
    /// match otel.send(&producer, record, Duration::from_secs(5)).await {
    ///     Ok(stored) => println!("{}/{}", stored.partition, stored.offset),
    ///     Err((failed, record)) => println!("{failed}: {record:?}"),
    /// }
    /// # }
    /// ```
    pub async fn send<C, R, K, P, T>(
        &self,
        producer: &FutureProducer<C, R>,
        mut record: FutureRecord<'_, K, P>,
        queue_timeout: T,
    ) -> OwnedDeliveryResult
    where
        C: ClientContext + 'static,
        R: AsyncRuntime,
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
        T: Into<Timeout>,
    {
        let (sending, reported) = self.start_send(&Parts::of_future(&record), &mut record.headers);
        let result = producer.send(record, queue_timeout).await;
        reported.finish_owned(sending, &result);
        result
    }

    /// Sends a record without waiting, as the client does. The span ends with the delivery report, which the
    /// [`DeliveryFuture`] yields.
    ///
    /// # Errors
    ///
    /// Fails as the client does, at once where its queue is full, and gives the record back.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::producer::{FutureProducer, FutureRecord};
    /// # async fn example(otel: throughline_kafka::Instrumentation, producer: FutureProducer) {
    /// let record = FutureRecord::to("orders").key("k1").payload("{}");
    /// if let Ok(report) = otel.send_result(&producer, record) {
    ///     println!("{:?}", report.await);
    /// }
    /// # }
    /// ```
    #[allow(clippy::result_large_err)] // The client's own type: the record comes back.
    pub fn send_result<'a, C, R, K, P>(
        &self,
        producer: &FutureProducer<C, R>,
        mut record: FutureRecord<'a, K, P>,
    ) -> Result<DeliveryFuture, (KafkaError, FutureRecord<'a, K, P>)>
    where
        C: ClientContext + 'static,
        R: AsyncRuntime,
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
    {
        let (sending, reported) = self.start_send(&Parts::of_future(&record), &mut record.headers);
        match producer.send_result(record) {
            Ok(report) => Ok(DeliveryFuture::new(report, sending, reported)),
            Err((failed, record)) => {
                reported.fail(sending, &failed);
                Err((failed, record))
            }
        }
    }

    /// Sends several records by one call and waits for their delivery reports, which are in the order of the records. The
    /// client has no such call; each record is sent as by [`FutureProducer::send`], in their order.
    ///
    /// There is a create span for each record and one send span for each topic, which ends with the last report of that
    /// topic. A record that fails is counted as failed, the others as sent.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have sent any of the records. Its send spans are cancelled ones.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use rdkafka::producer::{FutureProducer, FutureRecord};
    /// # async fn example(otel: throughline_kafka::Instrumentation, producer: FutureProducer, orders: Vec<String>) {
    /// let records = orders.iter().map(|order| FutureRecord::<str, _>::to("orders").payload(order));
    /// let results = otel.send_batch(&producer, records, Duration::from_secs(5)).await;
    /// println!("{} were not sent", results.iter().filter(|result| result.is_err()).count());
    /// # }
    /// ```
    pub async fn send_batch<'a, C, R, K, P, T>(
        &self,
        producer: &FutureProducer<C, R>,
        records: impl IntoIterator<Item = FutureRecord<'a, K, P>>,
        queue_timeout: T,
    ) -> Vec<OwnedDeliveryResult>
    where
        C: ClientContext + 'static,
        R: AsyncRuntime,
        K: ToBytes + ?Sized + 'a,
        P: ToBytes + ?Sized + 'a,
        T: Into<Timeout>,
    {
        let mut records: Vec<_> = records.into_iter().collect();
        let topics: Vec<&str> = records.iter().map(|record| record.topic).collect();
        let sendings = self.start_batches(&mut records);
        let until = Until::new(queue_timeout.into());
        let mut reports = Vec::with_capacity(records.len());
        for record in records {
            reports.push(enqueue(producer, record, until).await);
        }
        let mut results = Vec::with_capacity(reports.len());
        for report in reports {
            results.push(match report {
                Ok(report) => match report.await {
                    Ok(result) => result,
                    Err(_) => Err((KafkaError::Canceled, nothing())),
                },
                Err(failed) => Err(failed),
            });
        }
        for (topic, sending) in sendings {
            finish_batch(sending, topic, topics.iter().zip(&results).filter(|(other, _)| **other == topic));
        }
        results
    }

    /// Sends a record with a [`BaseProducer`](rdkafka::producer::BaseProducer) or
    /// [`ThreadedProducer`](rdkafka::producer::ThreadedProducer), as the client does. The producer's context is a
    /// [`ProducerTelemetry`](super::ProducerTelemetry) around the user's own; the span ends with the delivery report, also
    /// of a record that is purged or whose producer is dropped.
    ///
    /// # Errors
    ///
    /// Fails as the client does, and gives the record back.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use rdkafka::ClientConfig;
    /// use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
    /// use throughline_kafka::{Instrumentation, ProducerTelemetry};
    /// # fn example(otel: Instrumentation, config: ClientConfig) -> Result<(), rdkafka::error::KafkaError> {
    /// let context = ProducerTelemetry::new(DefaultProducerContext);
    /// let producer: ThreadedProducer<_> = config.create_with_context(context)?;
    /// otel.send_base(&producer, BaseRecord::to("orders").key("k1").payload("{}")).map_err(|(failed, _)| failed)?;
    /// # Ok(())
    /// # }
    /// ```
    #[allow(clippy::result_large_err, clippy::type_complexity)] // The client's own type: the record comes back.
    pub fn send_base<'a, S, K, P>(
        &self,
        producer: &S,
        mut record: BaseRecord<'a, K, P, S::Opaque>,
    ) -> Result<(), (KafkaError, BaseRecord<'a, K, P, S::Opaque>)>
    where
        S: CallbackProducer,
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
    {
        let (sending, reported) = self.start_send(&Parts::of_base(&record), &mut record.headers);
        let pending = |opaque| Box::new(PendingDelivery::new(sending, reported, opaque));
        producer
            .enqueue(with_opaque(record, pending))
            .map_err(|(failed, record)| (failed.clone(), with_opaque(record, |pending| pending.take_back(&failed))))
    }

    /// Starts the span of a record and writes the context into its headers.
    fn start_send(&self, parts: &Parts<'_>, headers: &mut Option<OwnedHeaders>) -> (Sending, Reported) {
        let mut own = headers.take().unwrap_or_default();
        let identity = Identity::of(&own, &self.reader().names);
        let mut carrier = HeaderInjector::new(&mut own);
        let message = self.outgoing(parts, &identity, &mut carrier);
        let sending = self.reader().producer.send(&Target::new(parts.topic), message);
        *headers = written(own);
        (sending, Reported::new(parts.topic, parts.partition.is_some()))
    }

    /// Starts the spans of several records, in one batch for each topic.
    fn start_batches<'a, K, P>(&self, records: &mut [FutureRecord<'a, K, P>]) -> Vec<(&'a str, Sending)>
    where
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
    {
        let mut headers: Vec<_> = records.iter_mut().map(|record| record.headers.take().unwrap_or_default()).collect();
        let identities: Vec<_> = headers.iter().map(|headers| Identity::of(headers, &self.reader().names)).collect();
        let parts: Vec<_> = records.iter().map(Parts::of_future).collect();
        let mut topics: Vec<&str> = Vec::new();
        for part in &parts {
            if !topics.contains(&part.topic) {
                topics.push(part.topic);
            }
        }
        let mut sendings = Vec::with_capacity(topics.len());
        for topic in topics {
            let mut carriers: Vec<_> = headers.iter_mut().map(HeaderInjector::new).collect();
            let all = parts.iter().zip(&identities).zip(&mut carriers).filter(|((part, _), _)| part.topic == topic);
            let messages = all.map(|((part, identity), carrier)| self.outgoing(part, identity, carrier)).collect();
            sendings.push((topic, self.reader().producer.send_batch(&Target::new(topic), messages)));
        }
        for (record, headers) in records.iter_mut().zip(headers) {
            record.headers = written(headers);
        }
        sendings
    }

    fn outgoing<'a>(
        &self,
        parts: &Parts<'_>,
        identity: &'a Identity,
        carrier: &'a mut HeaderInjector<'_>,
    ) -> Outgoing<'a> {
        Outgoing::new(carrier)
            .with_id(identity.id.as_deref())
            .with_correlation_id(identity.correlation_id.as_deref())
            .with_body_size(parts.payload.map_or(0, <[u8]>::len))
            .with_attributes(parts.attributes(!self.reader().hides_keys))
            .with_creation(self.handle.creation().clone())
    }
}

/// What a span shows of a record on its way out.
struct Parts<'a> {
    topic: &'a str,
    /// Where the caller fixed it.
    partition: Option<i32>,
    key: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn of_future<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(record: &FutureRecord<'a, K, P>) -> Self {
        Self::new(record.topic, record.partition, record.key, record.payload)
    }

    fn of_base<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(record: &BaseRecord<'a, K, P, impl IntoOpaque>) -> Self {
        Self::new(record.topic, record.partition, record.key, record.payload)
    }

    fn new<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
        topic: &'a str,
        partition: Option<i32>,
        key: Option<&'a K>,
        payload: Option<&'a P>,
    ) -> Self {
        let (key, payload) = (key.map(ToBytes::to_bytes), payload.map(ToBytes::to_bytes));
        // Below zero it says that the client is to choose.
        Self { topic, partition: partition.filter(|partition| *partition >= 0), key, payload }
    }

    // ATTR-K-02, -04, -06.
    fn attributes(&self, records_keys: bool) -> Vec<KeyValue> {
        let partition = self.partition.map(partition_attribute);
        let key = self.key.filter(|_| records_keys).and_then(key_attribute);
        let tombstone = self.payload.is_none().then(tombstone_attribute);
        partition.into_iter().chain(key).chain(tombstone).collect()
    }
}

/// The ids in a record's headers.
struct Identity {
    id: Option<String>,
    correlation_id: Option<String>,
}

impl Identity {
    fn of(headers: &OwnedHeaders, names: &HeaderNames) -> Self {
        let header = |name| last(headers.as_borrowed(), name).map(str::to_owned);
        Self { id: header(names.message_id), correlation_id: header(names.correlation_id) }
    }
}

fn written(headers: OwnedHeaders) -> Option<OwnedHeaders> {
    (rdkafka::message::Headers::count(&headers) > 0).then_some(headers)
}

fn with_opaque<'a, K: ToBytes + ?Sized, P: ToBytes + ?Sized, D: IntoOpaque, E: IntoOpaque>(
    record: BaseRecord<'a, K, P, D>,
    change: impl FnOnce(D) -> E,
) -> BaseRecord<'a, K, P, E> {
    BaseRecord {
        topic: record.topic,
        partition: record.partition,
        payload: record.payload,
        key: record.key,
        timestamp: record.timestamp,
        headers: record.headers,
        delivery_opaque: change(record.delivery_opaque),
    }
}

/// Until when the client's queue may be full.
#[derive(Clone, Copy)]
enum Until {
    Forever,
    Then(Instant),
}

impl Until {
    fn new(timeout: Timeout) -> Self {
        match timeout {
            Timeout::Never => Self::Forever,
            Timeout::After(wait) => Instant::now().checked_add(wait).map_or(Self::Forever, Self::Then),
        }
    }

    fn is_over(self) -> bool {
        matches!(self, Self::Then(end) if Instant::now() >= end)
    }
}

/// Hands a record to the client, whose queue may be full for a while.
async fn enqueue<C, R, K, P>(
    producer: &FutureProducer<C, R>,
    mut record: FutureRecord<'_, K, P>,
    until: Until,
) -> Result<ClientFuture, (KafkaError, OwnedMessage)>
where
    C: ClientContext + 'static,
    R: AsyncRuntime,
    K: ToBytes + ?Sized,
    P: ToBytes + ?Sized,
{
    loop {
        match producer.send_result(record) {
            Ok(report) => return Ok(report),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) if !until.is_over() => {
                record = same;
                R::delay_for(FULL).await;
            }
            Err((failed, record)) => return Err((failed, owned(record))),
        }
    }
}

/// What the client returns of a record that it did not take.
fn owned<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(record: FutureRecord<'_, K, P>) -> OwnedMessage {
    let timestamp = record.timestamp.map_or(Timestamp::NotAvailable, Timestamp::CreateTime);
    OwnedMessage::new(
        record.payload.map(|payload| payload.to_bytes().to_vec()),
        record.key.map(|key| key.to_bytes().to_vec()),
        record.topic.to_owned(),
        timestamp,
        record.partition.unwrap_or(-1),
        0,
        record.headers,
    )
}

/// A record of which nothing is left: its producer is gone without a report, which its own reference to it excludes.
fn nothing() -> OwnedMessage {
    OwnedMessage::new(None, None, String::new(), Timestamp::NotAvailable, -1, 0, None)
}

fn finish_batch<'a>(
    sending: Sending,
    topic: &str,
    results: impl Iterator<Item = (&'a &'a str, &'a OwnedDeliveryResult)>,
) {
    let mut total = 0;
    let failed = results.inspect(|_| total += 1).filter_map(|(_, result)| result.as_ref().err());
    let errors: Vec<PublishError> = failed.map(|(failed, _)| error::publish(failed, topic)).collect();
    sending.finish_batch(total, &errors.iter().collect::<Vec<_>>());
}
