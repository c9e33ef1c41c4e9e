//! The conformance suite on Kafka: one harness for all doors.

use async_trait::async_trait;
use opentelemetry::KeyValue;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use throughline_core::broker::Subscription;
use throughline_core::message::{OperationType, Operations};
use throughline_kafka::{Kafka, StartPosition, Topic};
use throughline_testing::conformance::{Capabilities, Harness, Names, Refusal, Spec, Wildcard};
use tokio::task::spawn_blocking;

use crate::server::{self, PATIENCE};
use crate::topics;

/// The name under which the suite connects: `messaging.client.id` (ATTR-K-08).
pub(crate) const CLIENT: &str = "conformance";

/// What the suite calls its destinations: no server here makes a topic by itself.
const DESTINATIONS: [&str; 16] = [
    "bills",
    "bills.42",
    "dead",
    "first",
    "in",
    "last",
    "next",
    "orders",
    "orders.42",
    "orders.420",
    "orders.421",
    "orders.429",
    "out",
    "prices",
    "second",
    "third",
];

/// Topics of its own for each case.
pub(crate) struct Topics {
    pub(crate) url: String,
    pub(crate) cluster_id: String,
    names: Vec<String>,
}

#[async_trait]
impl Harness for Topics {
    type Broker = Kafka;

    const DIVIDED: &'static str = "divided";

    /// Kafka has no requests and replies of its own.
    const CAPABILITIES: Capabilities = Capabilities { request_reply: false, ..Capabilities::all(1_000_000 - 4096) };

    async fn start(id: &str) -> Self {
        let url = server::url();
        let names: Vec<String> = DESTINATIONS.map(|name| format!("{id}.{name}")).into();
        topics::create_all(&url, &names).await;
        let divided = format!("{id}.{}", Self::DIVIDED);
        topics::create(&url, &divided, 4).await;
        let names = names.into_iter().chain([divided]).collect();
        let client: BaseProducer = config(&url).create().expect("a client");
        let asked = spawn_blocking(move || client.client().fetch_cluster_id(PATIENCE)).await;
        let cluster_id = asked.expect("the question does not panic").expect("an id of the cluster");
        Self { url, cluster_id, names }
    }

    async fn connect(&self) -> Kafka {
        Kafka::connect_with(config(&self.url)).await.expect("a connection to THROUGHLINE_KAFKA_URL")
    }

    /// From the beginning: the topic is new, and nothing that is sent before the group is complete is passed over.
    /// Each message is committed by itself, so that its settlement is part of its trace.
    fn subscription(&self, spec: &Spec) -> Subscription {
        topic(spec).commit_each_message().into()
    }

    /// SPAN-07, ATTR-S-02, ATTR-K-07, ATTR-K-08. Topics are few and have names of their own, so a pattern is no template.
    fn names(&self) -> Names {
        let verbs = Operations::DEFAULT.with_send("send").with_receive("poll").with_ack("commit").with_reject("commit");
        let (host, port) = self.url.rsplit_once(':').expect("THROUGHLINE_KAFKA_URL has a port");
        Names {
            server: Some((host.to_owned(), port.parse().expect("a port"))),
            client_id: Some(CLIENT.to_owned()),
            connection: vec![KeyValue::new("messaging.kafka.cluster.id", self.cluster_id.clone())],
            patterns_are_templates: false,
            ..Names::new("kafka", verbs)
        }
    }

    /// ATTR-K-03.
    fn consumer_attributes(&self, spec: &Spec) -> Vec<KeyValue> {
        vec![KeyValue::new("messaging.consumer.group.name", group(spec))]
    }

    /// ATTR-K-02, ATTR-K-05: a message that is only made has no place yet.
    fn message_attributes(&self, operation: OperationType) -> &'static [&'static str] {
        match operation {
            OperationType::Create => &[],
            _ => &["messaging.destination.partition.id", "messaging.kafka.offset"],
        }
    }

    fn wildcard(&self, destination: &str) -> Wildcard {
        let literal = destination.replace('.', r"\.");
        Wildcard { pattern: format!(r"^{literal}\..*"), name: format!("{destination}.42") }
    }

    fn refusal(&self) -> Option<Refusal> {
        Some(Refusal { destination: None, body: 2 << 20, error_type: "MESSAGE_TOO_LARGE" })
    }

    async fn stop(self) {
        topics::delete_all(&self.url, &self.names).await;
    }
}

/// What a case wants to read.
pub(crate) fn topic(spec: &Spec) -> Topic {
    let topic = match spec.destination.strip_prefix('^') {
        Some(_) => Topic::pattern(&spec.destination),
        None => Topic::new(spec.destination.as_str()),
    };
    let topic = topic.group(group(spec)).start(StartPosition::Earliest);
    match spec.batch {
        Some(policy) => topic.batch(policy.max_messages, policy.max_wait),
        None => topic,
    }
}

/// What every client of the suite is configured with.
pub(crate) fn config(url: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url).set("client.id", CLIENT);
    config
}

/// A consumer always has a group here: that of the case, or one of its own.
pub(crate) fn group(spec: &Spec) -> String {
    spec.group.clone().unwrap_or_else(|| spec.key.clone())
}
