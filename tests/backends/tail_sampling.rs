//! The Collector keeps each trace in which something failed, and a part of the others.

use std::collections::BTreeSet;

use opentelemetry::trace::{Tracer as _, TracerProvider as _};
use throughline_export::{Protocol, otlp};

use crate::api::until;
use crate::collector::{Collector, play_to};
use crate::otlp::{requests, spans};
use crate::play::unique;
use crate::span::{STORY, Span, picture};

/// The file of the guide.
const CONFIG: &str = include_str!("../../docs/src/config/tail-sampling.yaml");

/// Traces in which nothing fails: the chance that all are kept, or none, is one in a thousand million.
const OTHERS: usize = 200;

#[tokio::test]
#[ignore = "needs a Collector: cargo xtask test --backends"]
async fn tail_sampling_keeps_each_trace_that_failed_and_a_tenth_of_the_others() {
    let soon = [("decision_wait: 10s", "decision_wait: 1s".to_owned())];
    let (collector, run) = (Collector::with(CONFIG, &soon, "traces.jsonl").await, unique());

    let endpoint = collector.endpoint(Protocol::HttpProtobuf);
    let telemetry = otlp().endpoint(endpoint).service_name("others").build().expect("a set-up");
    let tracer = telemetry.tracer_provider().tracer("others");
    (0..OTHERS).for_each(|_| tracer.in_span("nothing fails", |_| ()));
    telemetry.shutdown().await.expect("an orderly end");

    let mut play = play_to(&collector, Protocol::Grpc, &run).await;
    play.orders().await;
    play.stop().await;

    let failed_trace = STORY.split("\n\n").find(|trace| trace.contains('!')).expect("an order fails");
    let kept = until("the trace that failed is kept", async || {
        let kept = spans(&requests(&collector.file));
        let failed: BTreeSet<_> = kept.iter().filter(|span| span.failure.is_some()).map(|span| &span.trace).collect();
        let of_failed: Vec<Span> = kept.iter().filter(|span| failed.contains(&span.trace)).cloned().collect();
        (picture(&of_failed).trim() == failed_trace.trim()).then_some(kept)
    })
    .await;
    // Those were decided before.
    let others = kept.iter().filter(|span| span.name == "nothing fails").count();
    assert!((1..OTHERS / 2).contains(&others), "{others} of {OTHERS} were kept");
}
