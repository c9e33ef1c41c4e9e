//! The story of a process whose set-up is the environment: what `from_env` and the variables lead to, in all backends at once.

use std::process::{Command, Stdio};

use throughline_export::from_env;

use crate::collector::Collector;
use crate::jaeger::Jaeger;
use crate::otlp::{records, resources, spans};
use crate::play::{Play, unique};
use crate::server::free;
use crate::span::{SPANS, STORY, picture, without_links};
use crate::zipkin::Zipkin;

/// What tells the program that it is the services, and what their run is called.
const GIVEN: &str = "THROUGHLINE_TEST_RUN";

const TEST: &str = "environment::the_variables_lead_to_all_backends_at_once";

/// In the process of the services: plays the story, and returns true when it is over.
async fn is_services() -> bool {
    let Ok(run) = std::env::var(GIVEN) else { return false };
    let mut play = Play::start(&run, |name| from_env().service_name(name).build().expect("a set-up")).await;
    play.orders().await;
    for (service, report) in play.stop().await {
        println!("{service}: {report}");
        assert_eq!((report.dropped_spans, report.dropped_logs, report.failed_metric_exports), (0, 0, 0), "{service}");
    }
    true
}

#[tokio::test]
#[ignore = "needs a Collector, Jaeger and Zipkin: cargo xtask test --backends"]
async fn the_variables_lead_to_all_backends_at_once() {
    if is_services().await {
        return;
    }
    let (jaeger, zipkin, run) = (Jaeger::start().await, Zipkin::start().await, unique());
    let collector = Collector::start(jaeger.grpc, free()).await;
    let services = Command::new(std::env::current_exe().expect("the program of the test"))
        .args(["--exact", TEST, "--include-ignored", "--nocapture"])
        .env(GIVEN, &run)
        .env("OTEL_TRACES_EXPORTER", "otlp,zipkin")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.grpc))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .env("OTEL_EXPORTER_ZIPKIN_ENDPOINT", zipkin.endpoint())
        .env("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=quickstart,deployment.environment.name=test")
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&services.stdout);
    assert!(services.status.success(), "{said}\n{}", String::from_utf8_lossy(&services.stderr));

    assert_eq!(picture(&jaeger.spans(&run, SPANS).await), STORY);
    assert_eq!(picture(&zipkin.spans(&run, SPANS).await), without_links(STORY));
    let requests = collector.requests(SPANS, 1).await;
    assert_eq!(picture(&spans(&requests)), STORY);
    assert!(!records(&requests).is_empty());
    for signal in ["resourceSpans", "resourceLogs", "resourceMetrics"] {
        let resources = resources(&requests, signal);
        assert!(!resources.is_empty(), "{signal}");
        assert!(resources.iter().all(|resource| resource["deployment.environment.name"] == "test"), "{resources:?}");
    }
}
