//! The three services as processes, for one test.

use std::path::{Path, PathBuf};

use orders::demo::services::{Services, Setup};

use crate::brokers::url;

/// A new folder, removed when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("orders-test-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts the services with what they send leading to `endpoint`, over OTLP.
pub(crate) async fn start(logs: &Folder, endpoint: &str) -> Services {
    let programs = Path::new(env!("CARGO_BIN_EXE_storefront")).parent().unwrap().to_owned();
    let variables = vec![
        ("KAFKA_BROKERS", url("THROUGHLINE_KAFKA_URL")),
        ("RABBIT_URL", url("THROUGHLINE_RABBIT_URL")),
        ("NATS_URL", url("THROUGHLINE_NATS_URL")),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.to_owned()),
        ("REDRIVE_AFTER_SECONDS", "1".to_owned()),
    ];
    let setup = Setup { programs, logs: logs.0.clone(), storefront: ([127, 0, 0, 1], 0).into(), variables };
    Services::start(&setup).await.unwrap_or_else(|error| panic!("{error}"))
}
