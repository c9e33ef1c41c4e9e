//! Traces on their way to a Zipkin that takes them, refuses, or is away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, SpanKind, Status, Tracer, TracerProvider};
use serde_json::{Value, json};

use super::{Zipkin, zipkin};
use crate::{ExportErrorKind, Setup, Telemetry};

/// A Zipkin of the test's own: what came by path, and the answers to give before it takes everything.
#[derive(Clone, Default)]
struct Backend {
    came: Arc<Mutex<Vec<(String, Value)>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Backend {
    async fn start(answers: impl IntoIterator<Item = u16>) -> (Self, String) {
        let backend = Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(take).with_state(backend.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (backend, format!("http://{address}/api/v2/spans"))
    }

    fn came(&self) -> Vec<(String, Value)> {
        self.came.lock().unwrap().clone()
    }
}

async fn take(State(backend): State<Backend>, uri: Uri, body: Bytes) -> StatusCode {
    backend.came.lock().unwrap().push((uri.path().to_owned(), serde_json::from_slice(&body).unwrap()));
    let answer = backend.answers.lock().unwrap().pop_front().unwrap_or(202);
    StatusCode::from_u16(answer).unwrap()
}

fn build(setup: Setup<Zipkin>, variables: &[(&str, &str)]) -> Telemetry {
    let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    setup.service_name("shop").build_in(&lookup).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_arrives_with_its_service_its_parents_and_its_failure() {
    let (backend, url) = Backend::start([]).await;
    let telemetry = build(zipkin(), &[("OTEL_EXPORTER_ZIPKIN_ENDPOINT", &url)]);
    let tracer = telemetry.tracer_provider().tracer("test");
    tracer.in_span("checkout", |_| {
        let mut sent = tracer.span_builder("publish orders").with_kind(SpanKind::Producer).start(&tracer);
        sent.set_attribute(KeyValue::new("messaging.system", "rabbitmq"));
        sent.add_event("confirmed", Vec::new());
        sent.set_status(Status::error("no queue"));
    });
    let report = telemetry.shutdown().await.unwrap();
    assert_eq!((report.exported_spans, report.dropped_spans, report.unfinished_spans), (2, 0, 0));

    let [(path, spans)] = &backend.came()[..] else { panic!("one batch") };
    let [sent, root] = &spans.as_array().unwrap()[..] else { panic!("two spans: {spans}") };
    assert_eq!(path, "/api/v2/spans");
    assert_eq!((&root["name"], &root["localEndpoint"]), (&json!("checkout"), &json!({ "serviceName": "shop" })));
    assert!(root.get("parentId").is_none() && root.get("kind").is_none(), "{root}");
    assert_eq!(
        (&sent["parentId"], &sent["traceId"], &sent["kind"]),
        (&root["id"], &root["traceId"], &json!("PRODUCER"))
    );
    assert_eq!(sent["annotations"][0]["value"], "confirmed");
    let tags = &sent["tags"];
    assert_eq!(
        (&tags["messaging.system"], &tags["error"], &tags["otel.status_code"]),
        (&json!("rabbitmq"), &json!("no queue"), &json!("ERROR"))
    );
    assert!(sent["duration"].as_u64() >= Some(1) && sent["timestamp"].as_u64() > Some(1_700_000_000_000_000), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_may_pass_is_tried_again_and_another_is_not() {
    for (answers, requests, dropped) in [(vec![503, 429], 3, 0), (vec![400], 1, 1), (vec![500; 9], 4, 1)] {
        let (backend, url) = Backend::start(answers).await;
        let telemetry = build(zipkin().endpoint(url), &[]);
        telemetry.tracer_provider().tracer("test").in_span("checkout", |_| ());
        assert_eq!(telemetry.shutdown().await.unwrap().dropped_spans, dropped);
        assert_eq!(backend.came().len(), requests);
    }
}

#[tokio::test]
async fn a_zipkin_that_is_away_costs_the_spans_and_nothing_else() {
    // An address that no other test takes a port of.
    let closed = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
    let telemetry = build(zipkin().endpoint(format!("http://{closed}/api/v2/spans")), &[]);
    telemetry.tracer_provider().tracer("test").in_span("checkout", |_| ());
    let report = telemetry.shutdown().await.unwrap();
    assert_eq!((report.exported_spans, report.dropped_spans), (0, 1));
}

#[test]
fn an_endpoint_that_cannot_be_used_is_an_error() {
    for url in ["zipkin:9411", "ftp://zipkin/api/v2/spans", "not a url"] {
        let error = zipkin().endpoint(url).build_in(&|_| None).unwrap_err();
        assert_eq!(error.kind(), ExportErrorKind::Configuration);
        assert!(error.to_string().starts_with(&format!("the endpoint is `{url}`")), "{error}");
    }
}

// ENV-03.
#[tokio::test]
async fn traces_that_are_switched_off_are_not_sent() {
    let telemetry = build(zipkin(), &[("OTEL_TRACES_EXPORTER", "none")]);
    assert!(telemetry.is_disabled());
}
