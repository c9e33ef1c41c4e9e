//! The raw door of Kafka: the client's own calls, with `throughline_kafka::Instrumentation` around them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::Either;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::SpanContext;
use rdkafka::Message as _;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use throughline_core::message::CreationContext;
use throughline_core::telemetry::Instrumentation as Engine;
use throughline_kafka::Instrumentation;
use throughline_testing::conformance::{
    Ability, Door, DoorKind, GoldenError, Intake, Job, Message, Spec, Work, rows_left_out,
};
use tokio::time::timeout;

use crate::harness::{self, Topics};
use crate::server::PATIENCE;

pub(crate) struct RawKafka {
    producer: FutureProducer,
    otel: Instrumentation,
}

type Record<'a> = FutureRecord<'a, [u8], [u8]>;

#[async_trait]
impl Door<Topics> for RawKafka {
    const KIND: DoorKind = DoorKind::Raw;

    /// The client polls one message at a time, and settles by moving its position.
    fn can(ability: Ability) -> bool {
        !matches!(ability, Ability::Fault | Ability::Limit | Ability::PullBatch | Ability::Reject)
    }

    async fn open(harness: &Topics, engine: Engine) -> Self {
        let config = harness::config(&harness.url);
        let otel = Instrumentation::from(engine).with_config(&config).with_cluster_id(harness.cluster_id.as_str());
        Self { producer: config.create().expect("a producer"), otel }
    }

    async fn send(&self, message: Message) -> Result<(), String> {
        let otel = match &message.supplied {
            Some(context) => self.otel.with_creation_context(CreationContext::Given(context.clone())),
            None => self.otel.clone(),
        };
        let sent = otel.send(&self.producer, record(&message, headers(&message)), PATIENCE).await;
        sent.map(drop).map_err(|(failed, _)| failed.to_string())
    }

    /// A context of the caller's is in the headers of its message, and kept there.
    async fn send_batch(&self, messages: Vec<Message>) -> Result<(), String> {
        let otel = self.otel.with_creation_context(CreationContext::Kept);
        let records = messages.iter().map(|message| {
            let headers = headers(message);
            let headers = message.supplied.iter().fold(headers, |headers, supplied| {
                headers.insert(Header { key: "traceparent", value: Some(&traceparent(supplied)) })
            });
            record(message, headers)
        });
        let results = otel.send_batch(&self.producer, records, PATIENCE).await;
        results.into_iter().try_for_each(|result| result.map(drop).map_err(|(failed, _)| failed.to_string()))
    }

    async fn request(&self, _message: Message) -> Result<Bytes, String> {
        Err("Kafka has no requests".to_owned())
    }

    async fn take(&self, harness: &Topics, spec: &Spec, job: Job) -> Box<dyn Intake> {
        let mut config = harness::config(&harness.url);
        config.set("group.id", harness::group(spec)).set("auto.offset.reset", "earliest");
        config.set("enable.auto.commit", "false");
        let consumer: StreamConsumer = config.create().expect("a consumer");
        consumer.subscribe(&[&spec.destination]).expect("a subscription");
        let otel = self.otel.clone().group(harness::group(spec)).topics([spec.destination.as_str()]);
        let otel = otel.with_parent_mode(job.mode);
        Box::new(Taking { consumer, producer: self.producer.clone(), otel, job })
    }
}

fn record(message: &Message, headers: OwnedHeaders) -> Record<'_> {
    Record { headers: Some(headers), ..Record::to(&message.destination).payload(&message.body) }
}

fn headers(message: &Message) -> OwnedHeaders {
    let ids = [("message-id", &message.id), ("correlation-id", &message.correlation_id)];
    let set = ids.into_iter().filter_map(|(key, id)| Some((key, id.as_deref()?)));
    set.fold(OwnedHeaders::new(), |headers, (key, id)| headers.insert(Header { key, value: Some(id) }))
}

fn traceparent(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
}

struct Taking {
    consumer: StreamConsumer,
    producer: FutureProducer,
    otel: Instrumentation,
    job: Job,
}

#[async_trait]
impl Intake for Taking {
    async fn finish(self: Box<Self>) {
        if self.job.pull {
            let pulled = timeout(PATIENCE, self.otel.recv(&self.consumer)).await.expect("a message in time");
            return self.commit(&pulled.expect("a message"));
        }
        let mut taken = Vec::new();
        for _ in 0..self.job.messages {
            let message = timeout(PATIENCE, self.consumer.recv()).await.expect("a message in time");
            taken.push(message.expect("a message"));
        }
        // Between topics there is no order.
        taken.sort_by_key(|message| (message.topic().to_owned(), message.offset()));
        let ambient = self.job.ambient.clone().unwrap_or_default();
        let done = if self.job.batch { Either::Left(self.batch(&taken)) } else { Either::Right(self.each(&taken)) };
        done.with_context(ambient).await;
    }
}

impl Taking {
    async fn batch(&self, taken: &[BorrowedMessage<'_>]) {
        self.job.drive(self.otel.process_batch(taken, self.job.run())).await;
        taken.iter().for_each(|message| self.commit(message));
    }

    async fn each(&self, taken: &[BorrowedMessage<'_>]) {
        for message in taken {
            self.job.drive(self.otel.process(message, self.handle(message))).await;
            if !matches!(self.job.work, Work::Settle(_)) {
                self.commit(message);
            }
        }
    }

    async fn handle(&self, message: &BorrowedMessage<'_>) -> Result<(), GoldenError> {
        let mut result = self.job.run().await;
        while self.job.work == Work::FailTwice && result.is_err() {
            result = self.job.run().await;
        }
        match &self.job.work {
            Work::Bury { to } => {
                let forward = self.otel.with_creation_context(CreationContext::Kept);
                let mut record = Record::to(to);
                (record.key, record.payload) = (message.key(), message.payload());
                record.headers = message.headers().map(BorrowedHeaders::detach);
                forward.send(&self.producer, record, PATIENCE).await.expect("a delivery report");
            }
            Work::Publish { to } => {
                let record = Record::to(to).payload(b"new");
                self.otel.send(&self.producer, record, PATIENCE).await.expect("a delivery report");
            }
            Work::Settle(_) => {
                let told = self.otel.commit_message(&self.consumer, message, CommitMode::Sync);
                told.expect("a commit");
            }
            _ => {}
        }
        result
    }

    /// Commits without telemetry.
    fn commit(&self, message: &BorrowedMessage<'_>) {
        self.consumer.commit_message(message, CommitMode::Sync).expect("a commit");
    }
}

mod golden {
    use super::{RawKafka, Topics};
    throughline_testing::conformance_golden!(Topics, RawKafka, ignore = "needs Kafka: cargo xtask test --broker kafka");
}

#[test]
fn what_the_client_has_no_call_for_is_left_out_of_the_raw_door() {
    let left_out = rows_left_out::<Topics, RawKafka>();
    let requests = ["GOLD-N-03", "GOLD-N-04", "SPAN-36"];
    let batch_pulls = ["GOLD-J-02", "SPAN-31"];
    let refusals = ["GOLD-J-03 nak", "GOLD-J-03 term"];
    let of_the_framework = ["GOLD-X-06", "SPAN-30", "STAT-14 receive", "STAT-14 settle"];
    let expected = [&requests[..], &batch_pulls, &refusals, &of_the_framework].concat();
    assert_eq!(BTreeSet::from_iter(left_out), BTreeSet::from_iter(expected));
}
