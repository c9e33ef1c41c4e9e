//! The golden table, through the framework.

use std::collections::BTreeSet;

use throughline_testing::conformance::{FrameworkDoor, rows_left_out};

use crate::harness::Queues;

mod framework {
    use super::{FrameworkDoor, Queues};
    throughline_testing::conformance_golden!(
        Queues,
        FrameworkDoor<Queues>,
        ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"
    );
}

/// A pull is the raw client's; a queue is no pattern and takes requests that nobody hears.
#[test]
fn only_pulls_and_what_a_queue_is_not_are_left_out_of_the_framework() {
    let left_out = rows_left_out::<Queues, FrameworkDoor<Queues>>();
    let pulls = ["GOLD-J-02", "GOLD-X-10", "SPAN-31", "STAT-09", "STAT-14 receive", "STAT-14 settle"];
    let patterns = ["ATTR-C-04", "GOLD-N-02", "GOLD-J-01", "GOLD-N-04"];
    let expected = [&pulls[..], &patterns].concat();
    assert_eq!(BTreeSet::from_iter(left_out), BTreeSet::from_iter(expected));
}
