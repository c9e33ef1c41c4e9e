//! What the table of brokers says of each.

use std::path::PathBuf;

use super::error::ServerError;
use super::server::Server;

/// A broker as the test command sees it.
#[derive(Clone, Copy, Debug)]
pub struct Broker {
    /// Its name, which is also the name of its integration test target (`tests/nats.rs`).
    pub name: &'static str,
    /// The variable that gives tests its address; set by the user, it names the server to use.
    pub url_variable: &'static str,
    /// The variable that gives tests the path of the server program (for Kafka, the folder of its jars), for those
    /// that restart a server.
    pub program_variable: &'static str,
    /// What its tests need beside the server; without one of them the run fails.
    pub others: &'static [Program],
    /// What its tests run against; the first one is the main one.
    pub passes: &'static [Pass],
}

/// One server version that the tests of a broker run against.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// What to call it in the output.
    pub name: &'static str,
    /// Parts of the names of the tests that it is for, such as `golden::`; empty for all tests.
    pub tests: &'static [&'static str],
    /// Whether tests fail when it cannot be had; else it is left out, with the reason.
    pub required: bool,
    /// Finds or starts the server.
    pub start: fn() -> Result<Server, ServerError>,
    /// Finds or installs the server's program, for tests that restart a server where the one that was
    /// started has no program of its own (Docker Compose).
    pub program: fn() -> Result<PathBuf, ServerError>,
}

/// A program that tests need, such as a client that is not ours, or a backend.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// What to call it in the output.
    pub name: &'static str,
    /// The variable that gives tests its path; set by the user, it names the program to use.
    pub variable: &'static str,
    /// Finds or installs it.
    pub find: fn() -> Result<PathBuf, ServerError>,
}
