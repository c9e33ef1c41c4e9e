//! JetStream: at least once.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, StorageType};
use async_trait::async_trait;
use opentelemetry::KeyValue;
use throughline_core::broker::Subscription;
use throughline_core::message::Operations;
use throughline_nats::{Nats, Stream};
use throughline_testing::conformance::{
    Capabilities, EngineDoor, FrameworkDoor, Harness, Names, Refusal, Spec, rows_left_out,
};

use crate::server;

/// Long enough for a busy machine, short enough to be waited for.
const ACK_WAIT: Duration = Duration::from_secs(2);

/// One stream for each case, with all its destinations.
pub(crate) struct JetStream {
    pub(crate) url: String,
    pub(crate) stream: String,
    keeper: Nats,
}

#[async_trait]
impl Harness for JetStream {
    type Broker = Nats;

    /// Requests are an affair of core NATS: a stream would store them.
    const CAPABILITIES: Capabilities =
        Capabilities { request_reply: false, unicode_headers: false, ..Capabilities::all((1 << 20) - 4096) };

    async fn start(id: &str) -> Self {
        let url = server::url();
        let keeper = Nats::connect_with(&url, server::options()).await.expect("a connection to THROUGHLINE_NATS_URL");
        let config = Config {
            name: id.to_owned(),
            subjects: vec![format!("{id}.>")],
            storage: StorageType::Memory,
            ..Config::default()
        };
        keeper.jetstream().create_stream(config).await.expect("a stream: the server runs with JetStream");
        Self { url, stream: id.to_owned(), keeper }
    }

    async fn connect(&self) -> Nats {
        let nats = Nats::connect_with(&self.url, server::options()).await;
        nats.expect("a connection to THROUGHLINE_NATS_URL").publish_to_streams()
    }

    fn subscription(&self, spec: &Spec) -> Subscription {
        let stream = Stream::new(self.stream.as_str())
            .durable(durable(spec))
            .filter(spec.destination.as_str())
            .ack_wait(ACK_WAIT);
        match spec.batch {
            Some(policy) => stream.batch(policy.max_messages, policy.max_wait).into(),
            None => stream.into(),
        }
    }

    /// SPAN-10, ATTR-S-03, ATTR-N-07.
    fn names(&self) -> Names {
        let verbs = Operations::DEFAULT.with_receive("fetch").with_ack("ack").with_retry("nak").with_reject("term");
        Names {
            server: Some(server::host_and_port(&self.url)),
            client_id: Some(server::CLIENT.to_owned()),
            ..Names::new("nats", verbs)
        }
    }

    /// ATTR-J-02, ATTR-J-03.
    fn consumer_attributes(&self, spec: &Spec) -> Vec<KeyValue> {
        vec![KeyValue::new("messaging.destination.subscription.name", durable(spec))]
    }

    fn refusal(&self) -> Option<Refusal> {
        Some(Refusal { destination: None, body: 2 << 20, error_type: "max_payload_exceeded" })
    }

    fn redelivery_wait(&self) -> Option<Duration> {
        Some(ACK_WAIT)
    }

    async fn end_subscriptions(&self, broker: &Nats) -> bool {
        broker.jetstream().delete_stream(&self.stream).await.is_ok()
    }

    async fn stop(self) {
        // One that a test deleted is gone already.
        let _ = self.keeper.jetstream().delete_stream(&self.stream).await;
    }
}

/// The name of the consumer: a group is a durable consumer that several share.
pub(crate) fn durable(spec: &Spec) -> String {
    spec.group.clone().unwrap_or_else(|| spec.key.clone())
}

mod behaviour {
    use super::JetStream;
    throughline_testing::conformance_behaviour!(
        JetStream,
        ignore = "needs a NATS server: cargo xtask test --broker nats"
    );
}

mod framework {
    use super::{FrameworkDoor, JetStream};
    throughline_testing::conformance_golden!(
        JetStream,
        FrameworkDoor<JetStream>,
        ignore = "needs a NATS server: cargo xtask test --broker nats"
    );
}

mod engine {
    use super::{EngineDoor, JetStream};
    throughline_testing::conformance_golden!(
        JetStream,
        EngineDoor<JetStream>,
        ignore = "needs a NATS server: cargo xtask test --broker nats"
    );
}

mod raw {
    use super::JetStream;
    use crate::raw_jetstream::RawJetStream;
    throughline_testing::conformance_golden!(
        JetStream,
        RawJetStream,
        ignore = "needs a NATS server: cargo xtask test --broker nats"
    );
}

const REQUESTS: [&str; 3] = ["GOLD-N-03", "GOLD-N-04", "SPAN-36"];

#[test]
fn only_pulls_and_requests_are_left_out_of_the_framework() {
    let left_out = rows_left_out::<JetStream, FrameworkDoor<JetStream>>();
    let expected =
        [&REQUESTS[..], &["GOLD-J-02", "GOLD-X-10", "SPAN-31", "STAT-09", "STAT-14 receive", "STAT-14 settle"]]
            .concat();
    assert_eq!(BTreeSet::from_iter(left_out), BTreeSet::from_iter(expected));
}

#[test]
fn only_requests_and_what_the_framework_adds_are_left_out_of_the_engine() {
    let left_out = rows_left_out::<JetStream, EngineDoor<JetStream>>();
    assert_eq!(left_out, [REQUESTS[0], REQUESTS[1], "GOLD-X-06", "SPAN-30", REQUESTS[2]]);
}

#[test]
fn what_the_client_has_no_call_for_is_left_out_of_the_raw_door() {
    let left_out = rows_left_out::<JetStream, crate::raw_jetstream::RawJetStream>();
    let batches = ["GOLD-K-02", "GOLD-K-03", "SPAN-26", "METR-13"];
    let expected = [&batches[..], &REQUESTS, &["GOLD-X-06", "SPAN-30", "STAT-14 receive", "STAT-14 settle"]].concat();
    assert_eq!(BTreeSet::from_iter(left_out), BTreeSet::from_iter(expected));
}
