//! Installs the subscriber of the process, so it has a process of its own.

#![cfg(feature = "logging")]

mod support;

use opentelemetry::global;
use opentelemetry::trace::{TraceContextExt, Tracer};
use throughline_export::{ColorChoice, ExportErrorKind, Logging, console};

use self::support::Paper;

#[tokio::test(flavor = "current_thread")]
async fn events_are_lines_with_ids_and_records_and_spans_are_in_the_trace() {
    let (lines, picture) = (Paper::default(), Paper::default());
    let writer = lines.clone();
    let logging = Logging::json().filter("info,opentelemetry=warn").writer(move || writer.clone());
    let drawn = console().service_name("shop").color(ColorChoice::Never).writer(picture.clone());
    let telemetry = drawn.logging(logging).start().unwrap();

    tracing::info!("before any trace");
    let trace = global::tracer("test").in_span("checkout", |context| {
        let _work = tracing::info_span!("find on the shelves", item = "lamp").entered();
        tracing::warn!(left = 1, "nearly \"sold\" out\nsoon");
        tracing::debug!("not at this level");
        let _client = tracing::info_span!(target: "lapin::io_loop", "as long as a connection").entered();
        tracing::warn!(target: "lapin::returned_messages", "what was in a message");
        context.span().span_context().trace_id().to_string()
    });
    telemetry.shutdown().await.unwrap();

    let [lines, picture] = [lines.text(), picture.text()];
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[0]["message"], &lines[0]["trace_id"]), (&"before any trace".into(), &serde_json::Value::Null));
    let [line] = &lines[1..] else { panic!("{lines:?}") };
    assert_eq!(
        (&line["level"], &line["left"], &line["message"]),
        (&"WARN".into(), &1.into(), &"nearly \"sold\" out\nsoon".into())
    );
    assert_eq!(line["trace_id"], trace.as_str());
    assert_eq!(line["span_id"].as_str().map(str::len), Some(16));

    assert!(
        picture.contains("shop └─ find on the shelves") && picture.contains("WARN nearly") && !picture.contains(".rs"),
        "{picture}"
    );
    assert!(!picture.contains("connection") && !picture.contains("what was in"), "{picture}");
    let error = console().writer(Paper::default()).logging(Logging::text()).start().unwrap_err();
    assert_eq!(error.kind(), ExportErrorKind::AlreadyStarted);
    console().writer(Paper::default()).start().unwrap().shutdown().await.unwrap(); // what was refused holds nothing up
    let error = console().logging(Logging::text().filter("stock=loud")).start().unwrap_err();
    assert_eq!(error.kind(), ExportErrorKind::Configuration);
}
