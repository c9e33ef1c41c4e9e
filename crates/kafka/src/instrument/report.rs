use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rdkafka::error::KafkaError;
use rdkafka::producer::DeliveryFuture as ClientFuture;
use rdkafka::producer::future_producer::OwnedDeliveryResult;
use throughline_core::telemetry::Sending;

use crate::error;
use crate::semconv::{offset_attribute, partition_attribute};

/// The delivery report of a record that is to come, as the client's own type of this name: await it.
///
/// Its span ends with the report. Where it is dropped instead, the span ends there without an error: the client sends the
/// record, and nobody asked what became of it.
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
#[must_use = "dropped at once, the span ends before the delivery report"]
pub struct DeliveryFuture {
    report: ClientFuture,
    under_way: Option<(Sending, Reported)>,
}

impl DeliveryFuture {
    pub(super) const fn new(report: ClientFuture, sending: Sending, reported: Reported) -> Self {
        Self { report, under_way: Some((sending, reported)) }
    }
}

impl Future for DeliveryFuture {
    type Output = <ClientFuture as Future>::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let report = ready!(Pin::new(&mut self.report).poll(context));
        if let Some((sending, reported)) = self.under_way.take() {
            match &report {
                Ok(result) => reported.finish_owned(sending, result),
                Err(_) => reported.fail(sending, &KafkaError::Canceled),
            }
        }
        Poll::Ready(report)
    }
}

impl Drop for DeliveryFuture {
    fn drop(&mut self) {
        if let Some((sending, _)) = self.under_way.take() {
            sending.finish(Vec::new(), None);
        }
    }
}

impl fmt::Debug for DeliveryFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryFuture").field("is_done", &self.under_way.is_none()).finish_non_exhaustive()
    }
}

/// What ends the span of a record when its delivery report is there.
pub(super) struct Reported {
    topic: Arc<str>,
    /// Whether the span has its partition already.
    // GEN-06.
    is_placed: bool,
}

impl Reported {
    pub(super) fn new(topic: &str, is_placed: bool) -> Self {
        Self { topic: topic.into(), is_placed }
    }

    pub(super) fn finish_owned(&self, sending: Sending, result: &OwnedDeliveryResult) {
        match result {
            Ok(stored) => self.succeed(sending, stored.partition, stored.offset),
            Err((failed, _)) => self.fail(sending, failed),
        }
    }

    /// Where the broker is to confirm nothing, there is no offset.
    // ATTR-K-02, -05.
    pub(super) fn succeed(&self, sending: Sending, partition: i32, offset: i64) {
        let partition = (!self.is_placed && partition >= 0).then(|| partition_attribute(partition));
        let offset = (offset >= 0).then(|| offset_attribute(offset));
        sending.finish(partition.into_iter().chain(offset).collect(), None);
    }

    pub(super) fn fail(&self, sending: Sending, failed: &KafkaError) {
        sending.finish(Vec::new(), Some(&error::publish(failed, &self.topic)));
    }
}
