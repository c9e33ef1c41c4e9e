use std::sync::Arc;

use opentelemetry::KeyValue;
use throughline_core::async_trait;
use throughline_core::broker::{Broker as _, Subscription};
use throughline_core::message::{OperationType, Operations};
use throughline_testing::conformance::{Capabilities, Harness, Names, Refusal, Spec};
use tokio::time::Instant;

use crate::client::{MAX_BODY, Post};
use crate::{Pigeons, Subject};

/// A server of one test.
pub(crate) struct PigeonPost(pub(crate) Arc<Post>);

#[async_trait]
impl Harness for PigeonPost {
    type Broker = Pigeons;

    const CAPABILITIES: Capabilities = Capabilities { persistence: false, ..Capabilities::all(MAX_BODY) };

    async fn start(_id: &str) -> Self {
        Self(Arc::default())
    }

    async fn connect(&self) -> Pigeons {
        Pigeons::connect(&self.0)
    }

    fn subscription(&self, spec: &Spec) -> Subscription {
        let mut subject = Subject::new(spec.destination.as_str());
        if let Some(group) = &spec.group {
            subject = subject.group(group.as_str());
        }
        match spec.batch {
            Some(policy) => subject.batch(policy.max_messages, policy.max_wait).into(),
            None => subject.into(),
        }
    }

    fn names(&self) -> Names {
        let operations = Operations::DEFAULT.with_ack("ack").with_retry("again").with_reject("discard");
        Names { server: Some(("loft".to_owned(), 4000)), inbox: "inbox", ..Names::new("pigeon_post", operations) }
    }

    fn consumer_attributes(&self, spec: &Spec) -> Vec<KeyValue> {
        let group = spec.group.iter();
        group.map(|group| KeyValue::new("messaging.consumer.group.name", group.clone())).collect()
    }

    fn message_attributes(&self, operation: OperationType) -> &'static [&'static str] {
        match operation {
            OperationType::Create | OperationType::Send => &[],
            _ => &["messaging.pigeon_post.number"],
        }
    }

    fn refusal(&self) -> Option<Refusal> {
        Some(Refusal { destination: None, body: MAX_BODY + 1, error_type: "too_large" })
    }

    async fn end_subscriptions(&self, broker: &Pigeons) -> bool {
        broker.shutdown(Instant::now()).await.is_ok()
    }
}
