//! Services in other languages, for the tests of what travels between them and ours.

use std::path::PathBuf;

use super::broker::Program;
use super::error::ServerError;
use super::python::Package;

/// The variable that names a Python which has FastStream, and gives tests the one that is used.
const FASTSTREAM_VARIABLE: &str = "THROUGHLINE_FASTSTREAM_PYTHON";

/// What the services in other languages run on.
///
/// # Examples
///
/// ```
/// use xtask::servers::PEERS;
///
/// assert!(PEERS.iter().any(|peer| peer.name == "Python with FastStream"));
/// ```
pub const PEERS: &[Program] =
    &[Program { name: "Python with FastStream", variable: FASTSTREAM_VARIABLE, find: faststream }];

const FASTSTREAM: Package = Package {
    name: "faststream",
    version: "0.7.8",
    requirements: include_str!("../../../tests/interop/requirements.txt"),
    module: "aio_pika, aiokafka, confluent_kafka, faststream, nats, opentelemetry.exporter.otlp.proto.http",
    install: "--no-deps --requirement tests/interop/requirements.txt",
    size: "90 MB",
    variable: FASTSTREAM_VARIABLE,
};

fn faststream() -> Result<PathBuf, ServerError> {
    FASTSTREAM.python()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_is_installed() {
        let Package { name, version, requirements, .. } = FASTSTREAM;
        assert!(requirements.lines().any(|line| line == format!("{name}=={version}")), "{requirements}");
    }
}
