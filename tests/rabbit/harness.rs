//! The conformance suite on RabbitMQ: one harness for all doors.

use async_trait::async_trait;
use throughline_core::broker::Subscription;
use throughline_core::message::{OperationType, Operations};
use throughline_rabbit::{Queue, Rabbit};
use throughline_testing::conformance::{Capabilities, Harness, Names, Refusal, Spec};

use crate::server::{self, KEPT, Plain};

/// What the suite calls its destinations: a message to a queue that is not there is an error.
const DESTINATIONS: [&str; 12] =
    ["bills", "dead", "first", "in", "last", "next", "orders", "out", "prices", "second", "third", "orders.42"];

/// Queues of its own for each case, reached by the default exchange.
pub(crate) struct Queues {
    pub(crate) url: String,
    names: Vec<String>,
}

#[async_trait]
impl Harness for Queues {
    type Broker = Rabbit;

    /// A queue hands each message to one consumer, its name is no pattern, and it takes a request without a consumer: exchanges have tests of
    /// their own.
    const CAPABILITIES: Capabilities =
        Capabilities { fan_out: false, unheard_requests: false, wildcards: false, ..Capabilities::all(1 << 20) };

    async fn start(id: &str) -> Self {
        let url = server::url();
        let names: Vec<String> = DESTINATIONS.map(|name| format!("{id}.{name}")).into();
        let plain = Plain::connect(&url).await;
        for name in &names {
            plain.declare(name, &[]).await;
        }
        Self { url, names }
    }

    async fn connect(&self) -> Rabbit {
        server::connect().await
    }

    fn subscription(&self, spec: &Spec) -> Subscription {
        queue(spec).into()
    }

    /// SPAN-08, ATTR-S-02, ATTR-R-13, ATTR-C-11.
    fn names(&self) -> Names {
        let verbs = Operations::DEFAULT.with_ack("ack").with_retry("nack").with_reject("reject");
        Names {
            server: Some(server::host_and_port(&self.url)),
            client_id: Some(server::CLIENT.to_owned()),
            inbox: "amq.rabbitmq.reply-to",
            correlates_requests: true,
            ..Names::new("rabbitmq", verbs)
        }
    }

    /// ATTR-R-05, ATTR-R-06.
    fn message_attributes(&self, operation: OperationType) -> &'static [&'static str] {
        const KEY: &str = "messaging.rabbitmq.destination.routing_key";
        const TAG: &str = "messaging.rabbitmq.message.delivery_tag";
        match operation {
            OperationType::Create | OperationType::Send => &[],
            OperationType::Process | OperationType::Receive => &[KEY, TAG],
            OperationType::Settle => &[TAG],
        }
    }

    /// ATTR-R-05.
    fn destination_attributes(&self) -> &'static [&'static str] {
        &["messaging.rabbitmq.destination.routing_key"]
    }

    fn refusal(&self) -> Option<Refusal> {
        Some(Refusal { destination: None, body: 17 << 20, error_type: "precondition-failed" })
    }

    async fn end_subscriptions(&self, broker: &Rabbit) -> bool {
        broker.close().await.is_ok()
    }

    async fn stop(self) {
        let plain = Plain::connect(&self.url).await;
        for name in &self.names {
            plain.delete(name).await;
        }
    }
}

/// What a case wants to read.
pub(crate) fn queue(spec: &Spec) -> Queue {
    let queue = Queue::new(spec.destination.as_str()).expires(KEPT);
    match spec.batch {
        Some(policy) => queue.batch(policy.max_messages, policy.max_wait),
        None => queue,
    }
}
