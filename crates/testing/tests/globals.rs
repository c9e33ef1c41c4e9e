//! The global providers are those of the process, so this is a program of its own.
#![allow(clippy::unwrap_used)] // a test fails by it

use std::time::Duration;

use opentelemetry::global;
use throughline_core::{App, serve};
use throughline_memory::{Channel, Memory};
use throughline_testing::Capture;

/// An app that says nothing about telemetry uses the global providers, for spans and for metrics.
#[tokio::test]
async fn an_app_records_with_the_global_providers() {
    let capture = Capture::new();
    global::set_tracer_provider(capture.tracer_provider());
    global::set_meter_provider(capture.meter_provider());

    let memory = Memory::new();
    let publisher = memory.publisher();
    let running = serve(memory.clone(), App::new().subscribe(Channel::new("orders"), async |_body: String| {}))
        .start()
        .await
        .unwrap();
    publisher.publish("orders", "one").await.unwrap();
    memory.idle().await;
    running.shutdown().await.unwrap();

    let spans = capture.wait_for_spans(2, Duration::from_secs(10)).await;
    let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["publish orders", "process orders"]);
    let metrics = capture.metrics();
    for name in ["messaging.client.operation.duration", "messaging.process.duration", "messaging.client.sent.messages"]
    {
        assert!(metrics.iter().any(|point| point.name == name), "{name} is recorded");
    }
}
