//! The Collector, which both services send their spans to, and which writes them to a file.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::api::{takes, until};
use crate::otlp::{requests, spans};
use crate::peer::PATIENCE;
use crate::server::{free, program, with};
use crate::span::Span;

const CONFIG: &str = include_str!("collector.yaml");

/// A Collector that is ready. Dropped, it is killed, and its folder removed.
pub(crate) struct Collector {
    address: SocketAddr,
    folder: PathBuf,
    child: Child,
}

impl Collector {
    /// Starts one in a folder of this name.
    pub(crate) async fn start(name: &str) -> Self {
        let (address, folder) = (free(), std::env::temp_dir().join(name));
        fs::create_dir(&folder).expect("a new folder");
        let config = with(CONFIG, &[("localhost:4318", address.to_string())]);
        fs::write(folder.join("collector.yaml"), config).expect("its file");
        let log = File::create(folder.join("log")).expect("its log");
        let child = Command::new(program("THROUGHLINE_COLLECTOR_SERVER"))
            .args(["--config", "collector.yaml"])
            // Each Collector would have a page of its own measurements on the same port.
            .arg("--set=service::telemetry::metrics::level=none")
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the Collector starts");
        let mut collector = Self { address, folder, child };
        until("the Collector is ready", async || {
            let ended = collector.child.try_wait().expect("its state");
            assert!(ended.is_none(), "{}", fs::read_to_string(collector.folder.join("log")).unwrap_or_default());
            takes(address, "/v1/traces", "{}").await.then_some(())
        })
        .await;
        collector
    }

    /// Returns where it takes spans, over HTTP.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it in order, so that all it has taken is written, and returns the spans.
    pub(crate) async fn stop(mut self) -> Vec<Span> {
        let id = self.child.id().expect("it runs").to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status().await.expect("`kill` runs");
        assert!(told.success(), "the Collector cannot be told to end: {told}");
        timeout(PATIENCE, self.child.wait()).await.expect("it ends in time").expect("it ends");
        spans(&requests(&self.folder.join("spans.jsonl")))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // What is left in the temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
