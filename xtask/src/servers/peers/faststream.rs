//! Python with FastStream and its telemetry middleware.

use std::path::PathBuf;

use super::super::error::ServerError;
use super::super::python::Package;

/// The variable that names a Python which has it, and gives tests the one that is used.
pub(super) const VARIABLE: &str = "THROUGHLINE_FASTSTREAM_PYTHON";

const FASTSTREAM: Package = Package {
    name: "faststream",
    version: "0.7.8",
    requirements: include_str!("../../../../tests/interop/requirements.txt"),
    module: "aio_pika, aiokafka, confluent_kafka, faststream, nats, opentelemetry.exporter.otlp.proto.http",
    install: "--no-deps --requirement tests/interop/requirements.txt",
    size: "90 MB",
    variable: VARIABLE,
};

/// Finds such a Python, or makes an environment with it.
pub(super) fn python() -> Result<PathBuf, ServerError> {
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
