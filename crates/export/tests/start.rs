//! Installs the global providers, so it has a process of its own.

mod support;

use opentelemetry::global;
use opentelemetry::trace::Tracer;
use throughline_export::{ExportErrorKind, console};

use self::support::Paper;

/// One test at a time has the global providers.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "current_thread")]
async fn the_global_providers_are_drawn() {
    let _alone = ALONE.lock().await;
    let paper = Paper::default();
    let telemetry = console().service_name("shop").writer(paper.clone()).start().unwrap();
    global::tracer("test").in_span("checkout", |_| ());
    global::meter("test").u64_counter("orders").build().add(7, &[]);
    let report = telemetry.shutdown().await.unwrap();

    assert_eq!((report.exported_spans, report.dropped_spans, report.unfinished_spans), (1, 0, 0));
    let text = paper.text();
    assert!(text.contains("shop checkout") && text.contains("orders\n  shop") && text.contains("7\n"), "{text}");
}

/// The global providers are one per process.
#[tokio::test(flavor = "current_thread")]
async fn a_second_start_is_refused_until_the_first_is_shut_down() {
    let _alone = ALONE.lock().await;
    let first = console().writer(Paper::default()).start().unwrap();
    let error = console().writer(Paper::default()).start().unwrap_err();
    assert_eq!(error.kind(), ExportErrorKind::AlreadyStarted);
    first.shutdown().await.unwrap();
    let second = console().writer(Paper::default()).start().unwrap();
    drop(second);
    console().writer(Paper::default()).start().unwrap().shutdown().await.unwrap();
}
