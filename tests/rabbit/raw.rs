//! The raw door of RabbitMQ: the client's own calls, with `throughline_rabbit::Instrumentation` around them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::Either;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Consumer};
use opentelemetry::context::FutureExt;
use throughline_core::message::CreationContext;
use throughline_core::telemetry::Instrumentation as Engine;
use throughline_rabbit::{Instrumentation, Queue, SubscriptionTelemetry};
use throughline_testing::conformance::{
    Ability, Door, DoorKind, GoldenError, Intake, Job, Message, Spec, Work, rows_left_out,
};
use tokio::time::timeout;

use crate::harness::Queues;
use crate::server::{self, CLIENT, PATIENCE, Plain};

pub(crate) struct RawRabbit {
    plain: Plain,
    otel: Instrumentation,
}

#[async_trait]
impl Door<Queues> for RawRabbit {
    const KIND: DoorKind = DoorKind::Raw;

    /// The client publishes and receives one message at a time, knows no requests, and its nack has no delay: what is no
    /// acknowledgement stands in rows of its own.
    fn can(ability: Ability) -> bool {
        use Ability::{Fault, Limit, PullBatch, Reject, Request, SendBatch};
        !matches!(ability, Fault | Limit | PullBatch | Reject | Request | SendBatch)
    }

    async fn open(harness: &Queues, engine: Engine) -> Self {
        let plain = Plain::connect(&harness.url).await;
        plain.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let (host, port) = server::host_and_port(&harness.url);
        let otel = Instrumentation::from(engine).with_server(host, port).with_client_id(CLIENT);
        Self { plain, otel }
    }

    async fn send(&self, message: Message) -> Result<(), String> {
        let otel = match &message.supplied {
            Some(context) => self.otel.with_creation_context(CreationContext::Given(context.clone())),
            None => self.otel.clone(),
        };
        let mut properties = BasicProperties::default();
        if let Some(id) = &message.id {
            properties = properties.with_message_id(id.as_str().into());
        }
        if let Some(id) = &message.correlation_id {
            properties = properties.with_correlation_id(id.as_str().into());
        }
        publish(&otel, &self.plain.channel, &message.destination, &message.body, properties).await
    }

    async fn send_batch(&self, _messages: Vec<Message>) -> Result<(), String> {
        Err("the client has no call for several messages".to_owned())
    }

    async fn request(&self, _message: Message) -> Result<Bytes, String> {
        Err("the client has no call for a request".to_owned())
    }

    async fn take(&self, _harness: &Queues, spec: &Spec, job: Job) -> Box<dyn Intake> {
        let queue = spec.destination.as_str();
        let channel = self.plain.channel.clone();
        let consumer =
            channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let consumer = consumer.await.expect("a consumer");
        let telemetry = self.otel.subscription(Queue::new(queue)).with_parent_mode(job.mode);
        Box::new(Taking { consumer, channel, otel: self.otel.clone(), telemetry, job })
    }
}

/// Publishes to a queue and waits for the confirmation.
async fn publish(
    otel: &Instrumentation,
    channel: &Channel,
    queue: &str,
    body: &[u8],
    properties: BasicProperties,
) -> Result<(), String> {
    // Server 4.0.5 sends a mandatory direct reply back although it has delivered it.
    let mandatory = !queue.starts_with("amq.rabbitmq.reply-to");
    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let sent = otel.basic_publish(channel, "".into(), queue.into(), options, body, properties).await;
    match sent.map_err(|failed| failed.to_string())?.await {
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(refused) => Err(format!("{refused:?}")),
        Err(failed) => Err(failed.to_string()),
    }
}

struct Taking {
    consumer: Consumer,
    channel: Channel,
    otel: Instrumentation,
    telemetry: SubscriptionTelemetry,
    job: Job,
}

#[async_trait]
impl Intake for Taking {
    async fn finish(mut self: Box<Self>) {
        if self.job.pull {
            let pulled = timeout(PATIENCE, self.telemetry.next(&mut self.consumer)).await.expect("a message in time");
            return self.acknowledge(&pulled.expect("a message").expect("a message")).await;
        }
        let mut taken = Vec::new();
        for _ in 0..self.job.messages {
            let message = timeout(PATIENCE, self.consumer.next()).await.expect("a message in time");
            taken.push(message.expect("a message").expect("a message"));
        }
        let ambient = self.job.ambient.clone().unwrap_or_default();
        let done = if self.job.batch { Either::Left(self.batch(&taken)) } else { Either::Right(self.each(&taken)) };
        done.with_context(ambient).await;
    }
}

impl Taking {
    async fn batch(&self, taken: &[Delivery]) {
        self.job.drive(self.telemetry.process_batch(taken, self.job.run())).await;
        for message in taken {
            self.acknowledge(message).await;
        }
    }

    async fn each(&self, taken: &[Delivery]) {
        for message in taken {
            self.job.drive(self.telemetry.process(message, self.handle(message))).await;
            if !matches!(self.job.work, Work::Settle(_)) {
                self.acknowledge(message).await;
            }
        }
    }

    async fn handle(&self, message: &Delivery) -> Result<(), GoldenError> {
        let mut result = self.job.run().await;
        while self.job.work == Work::FailTwice && result.is_err() {
            result = self.job.run().await;
        }
        match &self.job.work {
            Work::Bury { to } => {
                let forward = self.otel.with_creation_context(CreationContext::Kept);
                self.publish(&forward, to, &message.data, message.properties.clone()).await;
            }
            Work::Publish { to } => self.publish(&self.otel, to, b"new", BasicProperties::default()).await,
            Work::Reply => {
                let properties = &message.properties;
                let inbox = properties.reply_to().clone().expect("a request");
                let id = properties.correlation_id().clone().expect("a request");
                let properties = BasicProperties::default().with_correlation_id(id);
                self.publish(&self.otel, inbox.as_str(), b"a reply", properties).await;
            }
            Work::Settle(_) => {
                let told = self.telemetry.ack(message, BasicAckOptions::default()).await;
                assert!(told.expect("an acknowledgement"), "it is the first");
            }
            _ => {}
        }
        result
    }

    async fn publish(&self, otel: &Instrumentation, to: &str, body: &[u8], properties: BasicProperties) {
        publish(otel, &self.channel, to, body, properties).await.expect("a confirmation");
    }

    /// Acknowledges without telemetry.
    async fn acknowledge(&self, message: &Delivery) {
        let told = self.channel.basic_ack(message.delivery_tag, BasicAckOptions::default());
        told.await.expect("an acknowledgement");
    }
}

mod golden {
    use super::{Queues, RawRabbit};
    throughline_testing::conformance_golden!(
        Queues,
        RawRabbit,
        ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"
    );
}

#[test]
fn what_the_client_has_no_call_for_is_left_out_of_the_raw_door() {
    let left_out = rows_left_out::<Queues, RawRabbit>();
    let batches = ["GOLD-K-02", "GOLD-K-03", "GOLD-J-02", "SPAN-26", "SPAN-31", "METR-13"];
    let patterns = ["ATTR-C-04", "GOLD-N-02", "GOLD-J-01"];
    let requests = ["GOLD-N-04", "SPAN-36"];
    let refusals = ["GOLD-J-03 nak", "GOLD-J-03 term"];
    let of_the_framework = ["GOLD-X-06", "SPAN-30", "STAT-14 receive", "STAT-14 settle"];
    let expected = [&batches[..], &patterns, &requests, &refusals, &of_the_framework].concat();
    assert_eq!(BTreeSet::from_iter(left_out), BTreeSet::from_iter(expected));
}
