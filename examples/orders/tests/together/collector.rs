//! A Collector with the file of the example.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::api::{takes, until};
use crate::server::{Server, free, program, with};

const CONFIG: &str = include_str!("../../collector.yaml");

/// A Collector that is ready.
pub(crate) struct Collector {
    http: SocketAddr,
    /// Where it has its page for Prometheus.
    pub(crate) page: SocketAddr,
    _server: Server,
}

impl Collector {
    /// Starts one that sends traces to this Zipkin alone, and logs nowhere.
    pub(crate) async fn start(zipkin: SocketAddr) -> Self {
        let [grpc, http, page] = [(); 3].map(|()| free());
        let config = with(
            CONFIG,
            &[
                ("0.0.0.0:4317", grpc.to_string()),
                ("0.0.0.0:4318", http.to_string()),
                ("0.0.0.0:8889", page.to_string()),
                ("http://zipkin:9411", format!("http://{zipkin}")),
                ("[otlp/tempo]", "[zipkin]".to_owned()),
                // Nobody takes logs here, and a Collector that tries again ends late.
                ("http://loki:3100/otlp", format!("http://{}", free())),
            ],
        );
        let mut server = Server::new("collector", program("THROUGHLINE_COLLECTOR_SERVER"), |folder| {
            let file = folder.join("collector.yaml");
            std::fs::write(&file, &config).unwrap();
            // Each Collector would have a page of its own measurements on the same port.
            vec!["--config".into(), file.into(), "--set=service::telemetry::metrics::level=none".into()]
        });
        server.run();
        until("the Collector is ready", async || {
            server.is_alive();
            TcpStream::connect(grpc).await.ok()?;
            takes(http, "/v1/traces", "{}").await.then_some(())
        })
        .await;
        Self { http, page, _server: server }
    }

    /// Returns where services send to.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.http)
    }
}
