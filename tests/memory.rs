//! The conformance suite on the in-memory broker: the framework, and the engine called by hand as a raw client would.

use async_trait::async_trait;
use throughline_core::broker::Subscription;
use throughline_core::message::Operations;
use throughline_memory::{Channel, Memory};
use throughline_testing::conformance::{
    Capabilities, EngineDoor, FrameworkDoor, Harness, Names, PlainStranger, Refusal, Spec, Stranger, Strangers,
    rows_left_out,
};

struct InMemory(Memory);

#[async_trait]
impl Harness for InMemory {
    type Broker = Memory;

    const CAPABILITIES: Capabilities =
        Capabilities { persistence: false, refuses_bodies: false, ..Capabilities::all(8 << 20) };

    async fn start(_id: &str) -> Self {
        Self(Memory::new())
    }

    async fn connect(&self) -> Memory {
        self.0.clone()
    }

    fn subscription(&self, spec: &Spec) -> Subscription {
        let mut channel = Channel::new(spec.destination.as_str());
        if let Some(group) = &spec.group {
            channel = channel.group(group.as_str());
        }
        match spec.batch {
            Some(policy) => channel.batch(policy.max_messages, policy.max_wait).into(),
            None => channel.into(),
        }
    }

    /// SPAN-11, ATTR-S-04, ATTR-M-02.
    fn names(&self) -> Names {
        let settles = Operations::DEFAULT.with_ack("ack").with_retry("nack").with_reject("nack");
        Names::new("in_memory", settles)
    }

    fn refusal(&self) -> Option<Refusal> {
        Some(Refusal { destination: Some(String::new()), body: 0, error_type: "invalid_destination" })
    }

    async fn end_subscriptions(&self, broker: &Memory) -> bool {
        broker.stop();
        true
    }
}

#[async_trait]
impl Strangers for InMemory {
    async fn stranger(&self) -> Box<dyn Stranger> {
        Box::new(PlainStranger::new(self).await)
    }
}

mod hostile {
    use super::InMemory;
    throughline_testing::conformance_hostile!(InMemory);
}

mod behaviour {
    use super::InMemory;
    throughline_testing::conformance_behaviour!(InMemory);
}

mod framework {
    use super::{FrameworkDoor, InMemory};
    throughline_testing::conformance_golden!(InMemory, FrameworkDoor<InMemory>);
}

mod engine {
    use super::{EngineDoor, InMemory};
    throughline_testing::conformance_golden!(InMemory, EngineDoor<InMemory>);
}

#[test]
fn only_pulls_are_left_out_of_the_framework() {
    assert_eq!(
        rows_left_out::<InMemory, FrameworkDoor<InMemory>>(),
        ["GOLD-J-02", "GOLD-X-10", "METR-13", "SPAN-31", "STAT-09", "STAT-14 receive", "STAT-14 settle",]
    );
}

#[test]
fn only_what_the_framework_adds_is_left_out_of_the_engine() {
    assert_eq!(rows_left_out::<InMemory, EngineDoor<InMemory>>(), ["GOLD-X-06", "SPAN-30", "METR-13"]);
}

/// The suite itself: telemetry that is not as the table has it must fail a row.
mod sensitivity {
    use opentelemetry::KeyValue;
    use throughline_core::message::{OperationType, System};
    use throughline_testing::conformance::golden::{self, rows};

    use super::*;

    /// The in-memory broker, described as something else in telemetry.
    struct Changed<const HOW: usize>(Memory);

    const EXTRA: usize = 0;
    const MISSING: usize = 1;
    const DOUBLED: usize = 2;
    const OTHER_VALUE: usize = 3;
    const PLACED: usize = 4;

    #[async_trait]
    impl<const HOW: usize> Harness for Changed<HOW> {
        type Broker = Memory;

        const CAPABILITIES: Capabilities = InMemory::CAPABILITIES;

        async fn start(_id: &str) -> Self {
            let operations = Operations::DEFAULT.with_ack("ack").with_retry("nack").with_reject("nack");
            let system = System::new("in_memory", operations);
            let system = match HOW {
                EXTRA => system.with_attribute(KeyValue::new("extra", 1)),
                DOUBLED => system.with_attribute(KeyValue::new("messaging.system", "in_memory")),
                OTHER_VALUE => system.with_server("localhost", 4223),
                _ => system,
            };
            Self(Memory::new().with_system(system))
        }

        async fn connect(&self) -> Memory {
            self.0.clone()
        }

        fn subscription(&self, spec: &Spec) -> Subscription {
            Channel::new(spec.destination.as_str()).into()
        }

        fn names(&self) -> Names {
            let names = InMemory(self.0.clone()).names();
            match HOW {
                MISSING => Names { client_id: Some("stock".to_owned()), ..names },
                OTHER_VALUE => Names { server: Some(("localhost".to_owned(), 4222)), ..names },
                _ => names,
            }
        }

        fn message_attributes(&self, operation: OperationType) -> &'static [&'static str] {
            if HOW == PLACED && operation == OperationType::Process { &["offset"] } else { &[] }
        }
    }

    async fn publish_and_process<const HOW: usize>() {
        golden::run::<Changed<HOW>, EngineDoor<Changed<HOW>>>(&rows::M01).await;
    }

    #[tokio::test]
    #[should_panic(expected = "extra = I64(1) should not be there")]
    async fn an_extra_attribute_fails_a_row() {
        publish_and_process::<EXTRA>().await;
    }

    #[tokio::test]
    #[should_panic(expected = "messaging.client.id is missing")]
    async fn a_missing_attribute_fails_a_row() {
        publish_and_process::<MISSING>().await;
    }

    /// GEN-06: the engine does not let it through; that a row would see it is shown where rows are compared.
    #[tokio::test]
    async fn an_attribute_that_an_adapter_doubles_is_exported_once() {
        publish_and_process::<DOUBLED>().await;
    }

    #[tokio::test]
    #[should_panic(expected = "server.port is I64(4223), not I64(4222)")]
    async fn another_value_fails_a_row() {
        publish_and_process::<OTHER_VALUE>().await;
    }

    #[tokio::test]
    #[should_panic(expected = "orders: offset is missing")]
    async fn a_missing_attribute_of_a_message_fails_a_row() {
        publish_and_process::<PLACED>().await;
    }

    #[tokio::test]
    #[should_panic(expected = "link 2: offset is missing")]
    async fn a_missing_attribute_on_a_link_fails_a_row() {
        golden::run::<Changed<PLACED>, EngineDoor<Changed<PLACED>>>(&rows::K05).await;
    }

    #[tokio::test]
    #[should_panic(expected = "LINK-09")]
    async fn another_row_than_what_happened_fails() {
        let row = rows::MODE_PARENT_ALONE.with_spans_of(&rows::X03);
        golden::run::<InMemory, EngineDoor<InMemory>>(&row).await;
    }

    #[tokio::test]
    #[should_panic(expected = "there is no span")]
    async fn a_missing_span_fails_a_row() {
        let row = rows::K01.with_spans_of(&rows::K02);
        golden::run::<InMemory, EngineDoor<InMemory>>(&row).await;
    }

    #[tokio::test]
    #[should_panic(expected = "too many")]
    async fn a_span_too_many_fails_a_row() {
        let row = rows::J03_ACK.with_spans_of(&rows::X03);
        golden::run::<InMemory, EngineDoor<InMemory>>(&row).await;
    }

    #[tokio::test]
    #[should_panic(expected = "its status is Unset, not an error")]
    async fn another_status_fails_a_row() {
        let row = rows::MODE_PARENT_ALONE.with_spans_of(&rows::X04);
        golden::run::<InMemory, EngineDoor<InMemory>>(&row).await;
    }
}
