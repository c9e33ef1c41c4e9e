//! The raw door of the suite: the client's own calls, with the adapter's telemetry around them.

#![allow(clippy::expect_used, reason = "what cannot be done is a failure of the test")]

use std::time::Duration;

use opentelemetry::context::FutureExt as _;
use throughline_core::message::CreationContext;
use throughline_core::telemetry::Instrumentation as Engine;
use throughline_core::{Bytes, Settlement, async_trait};
use throughline_testing::conformance::{Ability, Door, DoorKind, GoldenError, Intake, Job, Message, Spec, Work};
use tokio::time::timeout;

use crate::client::{Client, Mailbox, Message as Native};
use crate::harness::PigeonPost;
use crate::{Instrumentation, Subject};

const PATIENCE: Duration = Duration::from_secs(10);

/// What a user with a client of their own has.
pub(crate) struct RawDoor {
    client: Client,
    otel: Instrumentation,
}

#[async_trait]
impl Door<PigeonPost> for RawDoor {
    const KIND: DoorKind = DoorKind::Raw;

    /// The client publishes and pulls one message at a time.
    fn can(ability: Ability) -> bool {
        !matches!(ability, Ability::Fault | Ability::Limit | Ability::PullBatch | Ability::SendBatch)
    }

    async fn open(harness: &PigeonPost, engine: Engine) -> Self {
        let client = Client::connect(&harness.0);
        let otel = Instrumentation::from(engine).with_client(&client);
        Self { client, otel }
    }

    async fn send(&self, message: Message) -> Result<(), String> {
        let otel = match &message.supplied {
            Some(context) => self.otel.with_creation_context(CreationContext::Given(context.clone())),
            None => self.otel.clone(),
        };
        otel.publish(&self.client, native(message)).map(drop).map_err(|failed| failed.to_string())
    }

    async fn send_batch(&self, _messages: Vec<Message>) -> Result<(), String> {
        Err("the client has no call for several messages".to_owned())
    }

    async fn request(&self, message: Message) -> Result<Bytes, String> {
        let answer = self.otel.request(&self.client, native(message), PATIENCE).await;
        answer.map(|answer| answer.payload).map_err(|failed| failed.to_string())
    }

    async fn take(&self, _harness: &PigeonPost, spec: &Spec, job: Job) -> Box<dyn Intake> {
        let mailbox = self.client.subscribe(&spec.destination, spec.group.as_deref());
        let mut subject = Subject::new(spec.destination.as_str());
        if let Some(group) = &spec.group {
            subject = subject.group(group.as_str());
        }
        let otel = self.otel.clone().subscription(subject).with_parent_mode(job.mode);
        Box::new(Taking { mailbox, handling: Handling { client: self.client.clone(), otel, job } })
    }
}

fn native(message: Message) -> Native {
    let ids = [("message-id", message.id), ("correlation-id", message.correlation_id)];
    let headers = ids.into_iter().filter_map(|(name, id)| Some((name.to_owned(), Bytes::from(id?))));
    let mut native = Native::new(message.destination, message.body);
    native.headers = headers.collect();
    native
}

struct Taking {
    mailbox: Mailbox,
    handling: Handling,
}

struct Handling {
    client: Client,
    otel: Instrumentation,
    job: Job,
}

#[async_trait]
impl Intake for Taking {
    async fn finish(mut self: Box<Self>) {
        let Self { mailbox, handling } = &mut *self;
        if handling.job.pull {
            let pulled = timeout(PATIENCE, handling.otel.next(mailbox)).await;
            return pulled.expect("a message in time").expect("a message").ack().expect("an acknowledgement");
        }
        let deliveries = match &handling.job.work {
            Work::Settle(Settlement::Retry { .. }) => 2,
            _ => handling.job.messages,
        };
        let ambient = handling.job.ambient.clone().unwrap_or_default();
        let mut batch = Vec::new();
        for _ in 0..deliveries {
            let message = timeout(PATIENCE, mailbox.next()).await.expect("a message in time").expect("a message");
            if handling.job.batch {
                batch.push(message);
            } else {
                handling.one(&message).with_context(ambient.clone()).await;
            }
        }
        if handling.job.batch {
            handling.batch(&batch).with_context(ambient).await;
        }
    }
}

impl Handling {
    async fn one(&self, message: &Native) {
        self.job.drive(self.otel.process(message, self.handle(message))).await;
        if !matches!(self.job.work, Work::Settle(_)) {
            message.ack().expect("an acknowledgement");
        }
    }

    async fn batch(&self, messages: &[Native]) {
        self.job.drive(self.otel.process_batch(messages, self.job.run())).await;
        for message in messages {
            message.ack().expect("an acknowledgement");
        }
    }

    /// What a user's handler does.
    async fn handle(&self, message: &Native) -> Result<(), GoldenError> {
        let mut result = self.job.run().await;
        while self.job.work == Work::FailTwice && result.is_err() {
            result = self.job.run().await;
        }
        match &self.job.work {
            Work::Bury { to } => {
                let forward = self.otel.with_creation_context(CreationContext::Kept);
                let mut dead = message.clone();
                dead.subject.clone_from(to);
                forward.publish(&self.client, dead).expect("a publish");
            }
            Work::Publish { to } => self.send(to.clone(), "new"),
            Work::Reply => self.send(message.reply.clone().expect("a request"), "a reply"),
            _ => self.settle(message),
        }
        result
    }

    fn send(&self, subject: String, body: &'static str) {
        self.otel.publish(&self.client, Native::new(subject, body)).expect("a publish");
    }

    fn settle(&self, message: &Native) {
        let told = match self.job.settlement() {
            None => return,
            Some(Settlement::Retry { after }) => self.otel.again(message, after.unwrap_or_default()),
            Some(Settlement::Reject { .. }) => self.otel.discard(message),
            Some(_) => self.otel.ack(message),
        };
        told.expect("a settlement");
    }
}
