//! The behaviour of the conformance suite.

use crate::harness::Queues;

throughline_testing::conformance_behaviour!(
    Queues,
    ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"
);
