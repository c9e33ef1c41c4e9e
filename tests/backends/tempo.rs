//! The story in Grafana Tempo, where one is named: no registry of packages has it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use throughline_export::{Protocol, otlp};

use crate::api::{get, get_json, until};
use crate::otlp::{each, spans, text};
use crate::play::{Play, SERVICES, full, unique};
use crate::server::named;
use crate::span::{SPANS, STORY, Span, has_attributes, picture};

/// Returns the address of the interface; OTLP is on the ports that are its custom.
fn tempo() -> SocketAddr {
    named("THROUGHLINE_TEMPO_URL")
        .expect("THROUGHLINE_TEMPO_URL names no Tempo: set it, such as http://127.0.0.1:3200, or leave this test out")
}

/// Returns the spans of a run, when there are as many as this. A trace can be searched for some time after it came.
async fn spans_in(tempo: SocketAddr, run: &str, count: usize) -> Vec<Span> {
    until("Tempo has the spans", async || {
        let mut traces = Vec::new();
        for service in SERVICES {
            let path = format!("/api/search?tags=service.name%3D{}&limit=100", full(service, run));
            traces.extend(each(&get_json(tempo, &path).await?, "traces").map(|trace| text(&trace["traceID"])));
        }
        traces.sort();
        traces.dedup();
        let mut found = Vec::new();
        for trace in traces {
            found.extend(read(&get_json(tempo, &format!("/api/traces/{trace}")).await?));
        }
        (found.len() >= count).then_some(found)
    })
    .await
}

/// Reads a trace, whose parts are called batches there.
fn read(trace: &Value) -> Vec<Span> {
    spans(&[json!({ "resourceSpans": trace["batches"] })])
}

async fn shows_the_story(protocol: Protocol, port: u16) {
    let (tempo, run) = (tempo(), unique());
    until("Tempo is ready", async || get(tempo, "/ready").await).await;
    let endpoint = format!("http://{}", SocketAddr::new(tempo.ip(), port));
    let mut play = Play::start(&run, |name| {
        otlp().endpoint(&endpoint).protocol(protocol).service_name(name).build().expect("a set-up")
    })
    .await;
    play.orders().await;
    play.stop().await;
    let spans = spans_in(tempo, &run, SPANS).await;
    assert_eq!(picture(&spans), STORY);
    has_attributes(&spans);
}

#[tokio::test]
#[ignore = "needs a Tempo that THROUGHLINE_TEMPO_URL names, since no package has one: cargo xtask test --backends"]
async fn the_story_is_in_tempo_over_grpc() {
    shows_the_story(Protocol::Grpc, 4317).await;
}

#[tokio::test]
#[ignore = "needs a Tempo that THROUGHLINE_TEMPO_URL names, since no package has one: cargo xtask test --backends"]
async fn the_story_is_in_tempo_over_http() {
    shows_the_story(Protocol::HttpProtobuf, 4318).await;
}

/// As Tempo writes it: names in place of numbers.
#[test]
fn a_trace_of_tempo_is_read() {
    let value = |text: &str| json!({ "stringValue": text });
    let trace = json!({ "batches": [{
        "resource": { "attributes": [{ "key": "service.name", "value": value("stock-1") }] },
        "scopeSpans": [{ "spans": [{
            "traceId": "sQPwWA==", "spanId": "AQ==", "name": "process orders.placed", "kind": "SPAN_KIND_CONSUMER",
            "links": [{ "traceId": "sQPwWA==", "spanId": "Ag==" }],
            "status": { "code": "STATUS_CODE_ERROR", "message": "no warehouse" },
        }] }],
    }] });
    assert_eq!(picture(&read(&trace)), "\nstock consumer process orders.placed -> ? ! no warehouse\n");
}
