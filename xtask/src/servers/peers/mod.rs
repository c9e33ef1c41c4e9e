//! Services in other languages, for the tests of what travels between them and ours.
//!
//! The tests start them, with the programs in `tests/interop`; what is here finds or installs what these run on.

mod agent;
mod amqplib;
mod faststream;
mod franz;

use super::broker::Program;

/// What the services in other languages run on.
///
/// # Examples
///
/// ```
/// use xtask::servers::PEERS;
///
/// assert!(PEERS.iter().any(|peer| peer.name == "Python with FastStream"));
/// ```
pub const PEERS: &[Program] = &[
    Program { name: "Go with franz-go", variable: franz::VARIABLE, find: franz::program },
    Program { name: "Java with jnats and the OpenTelemetry agent", variable: agent::VARIABLE, find: agent::jars },
    Program { name: "Node with amqplib", variable: amqplib::VARIABLE, find: amqplib::modules },
    Program { name: "Python with FastStream", variable: faststream::VARIABLE, find: faststream::python },
];
