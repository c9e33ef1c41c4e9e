//! The story in the file of a Collector: spans, metrics and log records, over each protocol of OTLP.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use throughline_export::{Protocol, ShutdownReport, otlp};

use crate::api::{takes, until};
use crate::jaeger::Jaeger;
use crate::otlp::{Record, each, items, records, requests, resources, spans};
use crate::play::{Play, full, unique};
use crate::server::{Server, free, program, with};
use crate::span::{SPANS, STORY, Span, has_attributes, picture};

/// The file of the guide.
const CONFIG: &str = include_str!("../../docs/src/config/collector.yaml");

/// The boundaries of the conventions, in seconds (METR-05).
pub(crate) const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// A Collector that is ready.
pub(crate) struct Collector {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    /// What it writes.
    pub(crate) file: PathBuf,
    server: Server,
}

impl Collector {
    /// Starts one with the file of the guide, which leads to this Jaeger and has the page for Prometheus there.
    pub(crate) async fn start(jaeger: SocketAddr, page: SocketAddr) -> Self {
        let changes = [("jaeger:4317", jaeger.to_string()), ("localhost:8889", page.to_string())];
        Self::with(CONFIG, &changes, "telemetry.jsonl").await
    }

    /// Starts one with nothing behind it but its file.
    pub(crate) async fn alone() -> Self {
        Self::start(free(), free()).await
    }

    /// Starts one with this file of the guide, on other ports.
    pub(crate) async fn with(config: &str, changes: &[(&str, String)], file: &str) -> Self {
        let [grpc, http] = [(); 2].map(|()| free());
        let ports = [("localhost:4317", grpc.to_string()), ("localhost:4318", http.to_string())];
        // Each Collector would have a page of its own measurements on the same port.
        let config = with(&with(config, &ports), changes);
        let server = Server::new("collector", program("THROUGHLINE_COLLECTOR_SERVER"), |folder| {
            let file = folder.join("collector.yaml");
            std::fs::write(&file, &config).expect("its file");
            let quiet = "--set=service::telemetry::metrics::level=none";
            vec!["--config".into(), file.into(), quiet.into()]
        });
        let file = server.folder().join(file);
        let mut collector = Self { grpc, http, file, server };
        collector.run().await;
        collector
    }

    /// Starts it, or starts it again, and returns when it takes spans.
    pub(crate) async fn run(&mut self) {
        let Self { grpc, http, server, .. } = self;
        server.run();
        until("the Collector is ready", async || {
            server.is_alive();
            tokio::net::TcpStream::connect(*grpc).await.ok()?;
            takes(*http, "/v1/traces", "{}").await.then_some(())
        })
        .await;
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.server.kill();
    }

    pub(crate) fn endpoint(&self, protocol: Protocol) -> String {
        let address = if protocol == Protocol::Grpc { self.grpc } else { self.http };
        format!("http://{address}")
    }

    /// Returns what it has, when there are as many spans and log records as this.
    pub(crate) async fn requests(&self, spans_there: usize, records_there: usize) -> Vec<Value> {
        until("the Collector has spans and log records", async || {
            let requests = requests(&self.file);
            let is_complete = spans(&requests).len() >= spans_there && records(&requests).len() >= records_there;
            is_complete.then_some(requests)
        })
        .await
    }
}

/// Starts the services with a set-up that leads to the Collector.
pub(crate) async fn play_to(collector: &Collector, protocol: Protocol, run: &str) -> Play {
    let endpoint = collector.endpoint(protocol);
    Play::start(run, |name| {
        let to = otlp().endpoint(&endpoint).protocol(protocol);
        to.service_name(name).attribute("service.namespace", "quickstart").build().expect("a set-up")
    })
    .await
}

/// Adds up what the services reported.
pub(crate) fn sum(reports: &[(&str, ShutdownReport)], of: fn(&ShutdownReport) -> u64) -> usize {
    reports.iter().map(|(_, report)| usize::try_from(of(report)).expect("a count")).sum()
}

/// Asserts that the log records of each service are there, and those of attempts that failed in their trace.
fn has_records(records: &[Record], spans: &[Span], run: &str) {
    let services: BTreeSet<&str> = records.iter().map(|record| record.service.as_str()).collect();
    let expected: Vec<String> = ["billing", "shop", "stock"].map(|name| full(name, run)).into();
    assert_eq!(services.into_iter().collect::<Vec<_>>(), expected, "{records:#?}");
    let failed: Vec<&Record> = records.iter().filter(|record| record.severity == "WARN").collect();
    assert!(failed.len() >= 3, "one attempt of the chair failed, and two of the unicorn: {records:#?}");
    for record in failed {
        assert!(record.body.contains("attempt"), "{record:?}");
        let span = spans.iter().find(|span| span.id == record.span).expect("the span that it was written in");
        assert_eq!((&span.trace, &span.service), (&record.trace, &record.service), "{record:?}");
    }
}

/// Asserts that each service has its metrics, with the boundaries of the conventions.
fn has_metrics(requests: &[Value], run: &str) {
    let metrics: Vec<_> = items(requests, ["resourceMetrics", "scopeMetrics", "metrics"]).collect();
    for (service, name) in [
        ("shop", "messaging.client.operation.duration"),
        ("shop", "messaging.client.sent.messages"),
        ("stock", "messaging.client.consumed.messages"),
        ("stock", "throughline.queue.duration"),
        ("stock", "throughline.settled.messages"),
        ("billing", "messaging.process.duration"),
    ] {
        let is_there = metrics.iter().any(|(of, metric)| *of == full(service, run) && metric["name"] == name);
        assert!(is_there, "{name} of {service}");
    }
    let durations = metrics.iter().filter(|(_, metric)| metric["name"] == "messaging.process.duration");
    let points: Vec<_> = durations.flat_map(|(_, metric)| each(&metric["histogram"], "dataPoints")).collect();
    assert!(!points.is_empty());
    for point in points {
        let bounds: Vec<f64> = each(point, "explicitBounds").filter_map(Value::as_f64).collect();
        assert_eq!(bounds, BUCKETS);
    }
}

async fn has_the_story(protocol: Protocol) {
    let (collector, run) = (Collector::alone().await, unique());
    let mut play = play_to(&collector, protocol, &run).await;
    play.orders().await;
    let reports = play.stop().await;
    for (service, report) in &reports {
        assert_eq!((report.dropped_spans, report.dropped_logs, report.unfinished_spans), (0, 0, 0), "{service}");
        assert_eq!((report.metric_exports, report.failed_metric_exports), (1, 0), "{service}");
    }
    let (spans_sent, records_sent) = (sum(&reports, |of| of.exported_spans), sum(&reports, |of| of.exported_logs));
    assert_eq!(spans_sent, SPANS);
    let requests = collector.requests(spans_sent, records_sent).await;

    let (spans, records) = (spans(&requests), records(&requests));
    assert_eq!((spans.len(), records.len()), (spans_sent, records_sent), "each came once");
    assert_eq!(picture(&spans), STORY);
    has_attributes(&spans);
    has_records(&records, &spans, &run);
    has_metrics(&requests, &run);
    let instances = ["resourceSpans", "resourceLogs", "resourceMetrics"].map(|signal| {
        let resources = resources(&requests, signal);
        assert!(resources.iter().all(|resource| resource["service.namespace"] == "quickstart"), "{resources:?}");
        resources.into_iter().map(|resource| resource["service.instance.id"].clone()).collect::<BTreeSet<_>>()
    });
    // All three are in this process.
    assert!(instances[0].len() == 1 && instances.iter().all(|of_signal| *of_signal == instances[0]), "{instances:?}");
}

#[tokio::test]
#[ignore = "needs a Collector: cargo xtask test --backends"]
async fn the_story_is_in_the_collector_over_grpc() {
    has_the_story(Protocol::Grpc).await;
}

#[tokio::test]
#[ignore = "needs a Collector: cargo xtask test --backends"]
async fn the_story_is_in_the_collector_over_http() {
    has_the_story(Protocol::HttpProtobuf).await;
}

#[tokio::test]
#[ignore = "needs a Collector: cargo xtask test --backends"]
async fn the_story_is_in_the_collector_over_http_as_json() {
    has_the_story(Protocol::HttpJson).await;
}

#[tokio::test]
#[ignore = "needs a Collector and Jaeger: cargo xtask test --backends"]
async fn the_collector_passes_the_story_on_to_jaeger() {
    let jaeger = Jaeger::start().await;
    let (collector, run) = (Collector::start(jaeger.grpc, free()).await, unique());
    let mut play = play_to(&collector, Protocol::Grpc, &run).await;
    play.orders().await;
    play.stop().await;
    assert_eq!(picture(&jaeger.spans(&run, SPANS).await), STORY);
}
