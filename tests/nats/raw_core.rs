//! The raw door of core NATS: the client's own calls, with `throughline_nats::Instrumentation` around them.

use async_nats::{Client, Message as Native};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::Either;
use opentelemetry::context::FutureExt;
use throughline_core::message::CreationContext;
use throughline_core::telemetry::Instrumentation as Engine;
use throughline_nats::{Instrumentation, Subject, SubscriptionTelemetry};
use throughline_testing::conformance::{Ability, Door, DoorKind, GoldenError, Intake, Job, Message, Spec, Work};
use tokio::time::timeout;

use crate::core_nats::CoreNats;
use crate::server::{self, PATIENCE};

pub(crate) struct RawCore {
    client: Client,
    otel: Instrumentation,
}

#[async_trait]
impl Door<CoreNats> for RawCore {
    const KIND: DoorKind = DoorKind::Raw;

    /// The client publishes and pulls one message at a time, and core NATS settles nothing.
    fn can(ability: Ability) -> bool {
        !matches!(ability, Ability::Fault | Ability::Limit | Ability::PullBatch | Ability::SendBatch | Ability::Settle)
    }

    async fn open(harness: &CoreNats, engine: Engine) -> Self {
        let client = server::options().connect(&harness.url).await.expect("a connection to THROUGHLINE_NATS_URL");
        let otel = server::instrumentation(engine, &harness.url, &client);
        Self { client, otel }
    }

    async fn send(&self, message: Message) -> Result<(), String> {
        let headers = server::headers(&message);
        let otel = server::supplied(&self.otel, &message);
        let sent = otel.publish_with_headers(&self.client, message.destination, headers, message.body).await;
        sent.map_err(|failed| failed.to_string())?;
        self.client.flush().await.map_err(|failed| failed.to_string())
    }

    async fn send_batch(&self, _messages: Vec<Message>) -> Result<(), String> {
        Err("the client has no call for several messages".to_owned())
    }

    async fn request(&self, message: Message) -> Result<Bytes, String> {
        let reply = self.otel.request(&self.client, message.destination, message.body).await;
        reply.map(|reply| reply.payload).map_err(|failed| failed.to_string())
    }

    async fn take(&self, _harness: &CoreNats, spec: &Spec, job: Job) -> Box<dyn Intake> {
        let subject = Subject::new(spec.destination.as_str());
        let (messages, described) = match &spec.group {
            Some(group) => {
                let messages = self.client.queue_subscribe(spec.destination.clone(), group.clone()).await;
                (messages, subject.queue_group(group.as_str()))
            }
            None => (self.client.subscribe(spec.destination.clone()).await, subject),
        };
        server::round_trip(&self.client).await;
        let telemetry = self.otel.subscription(described).with_parent_mode(job.mode);
        let (client, otel) = (self.client.clone(), self.otel.clone());
        Box::new(Taking { messages: messages.expect("a subscription"), client, otel, telemetry, job })
    }
}

struct Taking {
    messages: async_nats::Subscriber,
    client: Client,
    otel: Instrumentation,
    telemetry: SubscriptionTelemetry,
    job: Job,
}

#[async_trait]
impl Intake for Taking {
    async fn finish(mut self: Box<Self>) {
        if self.job.pull {
            let pulled = timeout(PATIENCE, self.telemetry.next(&mut self.messages)).await;
            pulled.expect("a message in time").expect("a message");
            return;
        }
        let mut taken = Vec::new();
        for _ in 0..self.job.messages {
            let message = timeout(PATIENCE, self.messages.next()).await.expect("a message in time");
            taken.push(message.expect("a message"));
        }
        let ambient = self.job.ambient.clone().unwrap_or_default();
        let done = if self.job.batch { Either::Left(self.batch(&taken)) } else { Either::Right(self.each(&taken)) };
        done.with_context(ambient).await;
    }
}

impl Taking {
    async fn batch(&self, taken: &[Native]) {
        self.job.drive(self.telemetry.process_batch(taken, self.job.run())).await;
    }

    async fn each(&self, taken: &[Native]) {
        for message in taken {
            self.job.drive(self.telemetry.process(message, self.handle(message))).await;
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
                let sent = forward.publish_with_headers(&self.client, to.clone(), headers, message.payload.clone());
                sent.await.expect("a publish");
            }
            Work::Publish { to } => self.otel.publish(&self.client, to.clone(), "new".into()).await.expect("a publish"),
            Work::Reply => {
                let inbox = message.reply.clone().expect("a request");
                self.otel.publish(&self.client, inbox, "a reply".into()).await.expect("a publish");
            }
            _ => {}
        }
        result
    }
}
