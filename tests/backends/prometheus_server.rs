//! Prometheus as a process.

use std::net::SocketAddr;
use std::path::Path;

use crate::api::{get, until};
use crate::server::{Server, free, program};

/// A Prometheus that is ready.
pub(crate) struct PrometheusServer {
    pub(crate) address: SocketAddr,
    _server: Server,
}

impl PrometheusServer {
    /// Starts one with this configuration, in a folder with the files that `more` puts there.
    pub(crate) async fn start(config: &str, more: impl FnOnce(&Path)) -> Self {
        let address = free();
        let mut server = Server::new("prometheus", program("THROUGHLINE_PROMETHEUS_SERVER"), |folder| {
            std::fs::write(folder.join("prometheus.yaml"), config).expect("its file");
            more(folder);
            let options = ["--config.file=prometheus.yaml", "--storage.tsdb.path=data"].map(Into::into);
            options.into_iter().chain([format!("--web.listen-address={address}").into()]).collect()
        });
        server.run();
        until("Prometheus is ready", async || {
            server.is_alive();
            get(address, "/-/ready").await
        })
        .await;
        Self { address, _server: server }
    }
}

/// Returns a query as a part of an address, where each byte may be written as its number.
pub(crate) fn encoded(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
