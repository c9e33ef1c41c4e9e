//! The conformance suite through the framework, and through the engine by hand.

use std::collections::BTreeSet;

use throughline_testing::conformance::{EngineDoor, FrameworkDoor, rows_left_out};

use crate::harness::Topics;

mod behaviour {
    use super::Topics;
    throughline_testing::conformance_behaviour!(Topics, ignore = "needs Kafka: cargo xtask test --broker kafka");
}

mod golden {
    use super::{FrameworkDoor, Topics};
    throughline_testing::conformance_golden!(
        Topics,
        FrameworkDoor<Topics>,
        ignore = "needs Kafka: cargo xtask test --broker kafka"
    );
}

mod engine {
    use super::{EngineDoor, Topics};
    throughline_testing::conformance_golden!(
        Topics,
        EngineDoor<Topics>,
        ignore = "needs Kafka: cargo xtask test --broker kafka"
    );
}

const REQUESTS: [&str; 3] = ["GOLD-N-03", "GOLD-N-04", "SPAN-36"];

#[test]
fn only_pulls_requests_and_what_kafka_cannot_refuse_are_left_out_of_the_framework() {
    let left_out = rows_left_out::<Topics, FrameworkDoor<Topics>>();
    let pulls = ["GOLD-J-02", "GOLD-X-10", "SPAN-31", "STAT-09", "STAT-14 receive", "STAT-14 settle"];
    let expected = [&REQUESTS[..], &pulls, &["GOLD-J-03 nak"]].concat();
    assert_eq!(BTreeSet::from_iter(left_out), BTreeSet::from_iter(expected));
}

#[test]
fn only_requests_and_what_the_framework_adds_are_left_out_of_the_engine() {
    let left_out = rows_left_out::<Topics, EngineDoor<Topics>>();
    let expected = [&REQUESTS[..], &["GOLD-X-06", "SPAN-30", "GOLD-J-03 nak"]].concat();
    assert_eq!(BTreeSet::from_iter(left_out), BTreeSet::from_iter(expected));
}
