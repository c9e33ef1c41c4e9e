//! Core NATS: at most once.

use std::collections::BTreeSet;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use throughline_core::broker::Subscription;
use throughline_core::message::Operations;
use throughline_nats::{Nats, Subject};
use throughline_testing::conformance::{
    Capabilities, EngineDoor, FrameworkDoor, Harness, Names, Refusal, Spec, rows_left_out,
};

use crate::server;

pub(crate) struct CoreNats {
    pub(crate) url: String,
}

#[async_trait]
impl Harness for CoreNats {
    type Broker = Nats;

    /// 1 MiB is the server's default limit, and headers count.
    const CAPABILITIES: Capabilities = Capabilities {
        durable: false,
        persistence: false,
        redelivery: false,
        settlement: false,
        unicode_headers: false,
        ..Capabilities::all((1 << 20) - 4096)
    };

    async fn start(_id: &str) -> Self {
        Self { url: server::url() }
    }

    async fn connect(&self) -> Nats {
        Nats::connect_with(&self.url, server::options()).await.expect("a connection to THROUGHLINE_NATS_URL")
    }

    fn subscription(&self, spec: &Spec) -> Subscription {
        let mut subject = Subject::new(spec.destination.as_str());
        if let Some(group) = &spec.group {
            subject = subject.queue_group(group.as_str());
        }
        match spec.batch {
            Some(policy) => subject.batch(policy.max_messages, policy.max_wait).into(),
            None => subject.into(),
        }
    }

    /// SPAN-09, ATTR-S-03, ATTR-N-07, ATTR-C-11, ATTR-C-12.
    fn names(&self) -> Names {
        Names {
            server: Some(server::host_and_port(&self.url)),
            client_id: Some(server::CLIENT.to_owned()),
            ..Names::new("nats", Operations::DEFAULT)
        }
    }

    /// ATTR-N-05.
    fn consumer_attributes(&self, spec: &Spec) -> Vec<KeyValue> {
        let group = spec.group.iter();
        group.map(|group| KeyValue::new("messaging.consumer.group.name", group.clone())).collect()
    }

    fn refusal(&self) -> Option<Refusal> {
        Some(Refusal { destination: None, body: 2 << 20, error_type: "max_payload_exceeded" })
    }

    async fn end_subscriptions(&self, broker: &Nats) -> bool {
        broker.shutdown().await.is_ok()
    }
}

mod behaviour {
    use super::CoreNats;
    throughline_testing::conformance_behaviour!(
        CoreNats,
        ignore = "needs a NATS server: cargo xtask test --broker nats"
    );
}

mod framework {
    use super::{CoreNats, FrameworkDoor};
    throughline_testing::conformance_golden!(
        CoreNats,
        FrameworkDoor<CoreNats>,
        ignore = "needs a NATS server: cargo xtask test --broker nats"
    );
}

mod engine {
    use super::{CoreNats, EngineDoor};
    throughline_testing::conformance_golden!(
        CoreNats,
        EngineDoor<CoreNats>,
        ignore = "needs a NATS server: cargo xtask test --broker nats"
    );
}

mod raw {
    use super::CoreNats;
    use crate::raw_core::RawCore;
    throughline_testing::conformance_golden!(
        CoreNats,
        RawCore,
        ignore = "needs a NATS server: cargo xtask test --broker nats"
    );
}

const SETTLEMENTS: [&str; 5] = ["GOLD-K-06", "GOLD-J-03 ack", "GOLD-J-03 nak", "GOLD-J-03 term", "STAT-14 settle"];

#[test]
fn only_pulls_and_settlements_are_left_out_of_the_framework() {
    let left_out = rows_left_out::<CoreNats, FrameworkDoor<CoreNats>>();
    let expected = [&SETTLEMENTS[..], &["GOLD-J-02", "GOLD-X-10", "SPAN-31", "STAT-09", "STAT-14 receive"]].concat();
    assert_eq!(BTreeSet::from_iter(left_out), BTreeSet::from_iter(expected));
}

#[test]
fn only_settlements_and_what_the_framework_adds_are_left_out_of_the_engine() {
    let left_out = rows_left_out::<CoreNats, EngineDoor<CoreNats>>();
    let expected = [&SETTLEMENTS[..], &["GOLD-X-06", "SPAN-30"]].concat();
    assert_eq!(BTreeSet::from_iter(left_out), BTreeSet::from_iter(expected));
}

#[test]
fn what_the_client_has_no_call_for_is_left_out_of_the_raw_door() {
    let left_out = rows_left_out::<CoreNats, crate::raw_core::RawCore>();
    let batches = ["GOLD-K-02", "GOLD-K-03", "GOLD-J-02", "SPAN-26", "SPAN-31", "METR-13"];
    let expected = [&batches[..], &SETTLEMENTS, &["GOLD-X-06", "SPAN-30", "STAT-14 receive"]].concat();
    assert_eq!(BTreeSet::from_iter(left_out), BTreeSet::from_iter(expected));
}
