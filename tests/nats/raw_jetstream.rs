//! The raw door of JetStream: the client's own calls, with `throughline_nats::Instrumentation` around them.

use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::message::AckKind;
use async_nats::jetstream::{self, Context, Message as Native};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use opentelemetry::context::FutureExt;
use throughline_core::Settlement;
use throughline_core::message::CreationContext;
use throughline_core::telemetry::Instrumentation as Engine;
use throughline_nats::{Instrumentation, SubscriptionTelemetry};
use throughline_testing::conformance::{Ability, Door, DoorKind, GoldenError, Intake, Job, Message, Spec, Work};
use tokio::time::timeout;

use crate::jetstream::{JetStream, durable};
use crate::server::{self, PATIENCE};

pub(crate) struct RawJetStream {
    context: Context,
    otel: Instrumentation,
}

#[async_trait]
impl Door<JetStream> for RawJetStream {
    const KIND: DoorKind = DoorKind::Raw;

    /// The client publishes one message at a time.
    fn can(ability: Ability) -> bool {
        !matches!(ability, Ability::Fault | Ability::Limit | Ability::SendBatch)
    }

    async fn open(harness: &JetStream, engine: Engine) -> Self {
        let client = server::options().connect(&harness.url).await.expect("a connection to THROUGHLINE_NATS_URL");
        let otel = server::instrumentation(engine, &harness.url, &client);
        Self { context: jetstream::new(client), otel }
    }

    async fn send(&self, message: Message) -> Result<(), String> {
        let headers = server::headers(&message);
        let otel = server::supplied(&self.otel, &message);
        let sent = otel.publish_with_headers(&self.context, message.destination, headers, message.body).await;
        sent.map_err(|failed| failed.to_string())?.await.map(drop).map_err(|failed| failed.to_string())
    }

    async fn send_batch(&self, _messages: Vec<Message>) -> Result<(), String> {
        Err("the client has no call for several messages".to_owned())
    }

    async fn request(&self, _message: Message) -> Result<Bytes, String> {
        Err("requests are an affair of core NATS".to_owned())
    }

    async fn take(&self, harness: &JetStream, spec: &Spec, job: Job) -> Box<dyn Intake> {
        let stream = self.context.get_stream(&harness.stream).await.expect("the stream of the case");
        let config = pull::Config {
            durable_name: Some(durable(spec)),
            filter_subject: spec.destination.clone(),
            ack_wait: Duration::from_secs(2),
            ..pull::Config::default()
        };
        let consumer: PullConsumer = stream.create_consumer(config).await.expect("a consumer");
        let telemetry = self.otel.consumer(&consumer).with_parent_mode(job.mode);
        let (context, otel) = (self.context.clone(), self.otel.clone());
        Box::new(Taking { consumer, context, otel, telemetry, job })
    }
}

struct Taking {
    consumer: PullConsumer,
    context: Context,
    otel: Instrumentation,
    telemetry: SubscriptionTelemetry,
    job: Job,
}

#[async_trait]
impl Intake for Taking {
    async fn finish(self: Box<Self>) {
        if self.job.pull {
            return self.pull().await;
        }
        let mut messages = self.consumer.messages().await.expect("messages");
        let deliveries = match &self.job.work {
            Work::Settle(Settlement::Retry { .. }) => 2,
            _ => self.job.messages,
        };
        let mut taken = Vec::new();
        for _ in 0..deliveries {
            let message = timeout(PATIENCE, messages.next()).await.expect("a message in time");
            taken.push(message.expect("a message").expect("a message"));
            if !self.job.batch {
                let ambient = self.job.ambient.clone().unwrap_or_default();
                self.each(std::mem::take(&mut taken)).with_context(ambient).await;
            }
        }
        if self.job.batch {
            let ambient = self.job.ambient.clone().unwrap_or_default();
            self.job.drive(self.telemetry.process_batch(&taken, self.job.run())).with_context(ambient).await;
            acknowledge(&taken).await;
        }
    }
}

impl Taking {
    async fn pull(&self) {
        if !self.job.batch {
            let mut messages = self.consumer.messages().await.expect("messages");
            let pulled = timeout(PATIENCE, self.telemetry.next(&mut messages)).await.expect("a message in time");
            return acknowledge(&[pulled.expect("a message").expect("a message")]).await;
        }
        // A pull that is to get nothing need not wait for long.
        let (most, wait) = match self.job.messages {
            0 => (1, Duration::from_millis(100)),
            messages => (messages, PATIENCE),
        };
        let batch = self.consumer.batch().max_messages(most).expires(wait).messages();
        let fetched = self.telemetry.fetch(batch).await.expect("a batch");
        let taken: Vec<_> = timeout(PATIENCE, fetched.collect()).await.expect("the batch in time");
        let taken: Vec<Native> = taken.into_iter().map(|message| message.expect("a message")).collect();
        acknowledge(&taken).await;
    }

    async fn each(&self, taken: Vec<Native>) {
        for message in &taken {
            self.job.drive(self.telemetry.process(message, self.handle(message))).await;
        }
        if !matches!(self.job.work, Work::Settle(_)) {
            acknowledge(&taken).await;
        }
    }

    async fn handle(&self, message: &Native) -> Result<(), GoldenError> {
        let mut result = self.job.run().await;
        while self.job.work == Work::FailTwice && result.is_err() {
            result = self.job.run().await;
        }
        match &self.job.work {
            Work::Bury { to } => {
                let forward = self.otel.with_creation_context(CreationContext::Kept);
                let headers = message.headers.clone().unwrap_or_default();
                let sent = forward.publish_with_headers(&self.context, to.clone(), headers, message.payload.clone());
                sent.await.expect("a publish").await.expect("a confirmation");
            }
            Work::Publish { to } => {
                let sent = self.otel.publish(&self.context, to.clone(), "new".into()).await.expect("a publish");
                sent.await.expect("a confirmation");
            }
            _ => self.settle(message).await,
        }
        result
    }

    async fn settle(&self, message: &Native) {
        let told = match self.job.settlement() {
            None => return,
            Some(Settlement::Retry { after }) => self.telemetry.ack_with(message, AckKind::Nak(after)).await,
            Some(Settlement::Reject { .. }) => self.telemetry.ack_with(message, AckKind::Term).await,
            Some(_) => self.telemetry.ack(message).await,
        };
        told.expect("a settlement");
    }
}

async fn acknowledge(taken: &[Native]) {
    for message in taken {
        message.ack().await.expect("an acknowledgement");
    }
}
