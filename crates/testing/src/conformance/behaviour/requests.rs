use std::collections::HashSet;

use opentelemetry::trace::{SpanKind, TraceId};
use throughline_core::broker::PublishErrorKind;
use throughline_core::{App, Failure};

use super::left_out;
use crate::attribute;
use crate::conformance::Harness;
use crate::conformance::bench::{Bench, delivered, stopped};
use crate::conformance::wait::{Gate, PATIENCE, Seen, settled};

pub async fn a_request_that_fails_is_answered_at_once<H: Harness>() {
    if !H::CAPABILITIES.request_reply {
        return left_out("request_reply");
    }
    let bench = Bench::<H>::start().await;
    let seen = Seen::new();
    let price = handler!([seen] |item: String| {
        seen.add(item);
        Err::<String, _>(Failure::new("unknown_item", "no row for bread").with_answer(404, "no such item"))
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&bench.spec("prices")), price)).await;
    let publisher = bench.publisher().await;
    let request = publisher.request::<String>(bench.name("prices"), "bread").timeout(PATIENCE);
    let Err(error) = request.await else { panic!("a request that fails got a reply") };
    stopped(running).await;

    assert_eq!(error.kind(), PublishErrorKind::RequestFailed, "{error}");
    let reply = error.error_reply().map(|reply| (reply.code(), reply.text(), reply.body().len()));
    assert_eq!(reply, Some((Some(404), "no such item", 0)), "{error}");
    assert_eq!(seen.all().len(), 1, "its sender waits, so it is tried once");
    let look = || {
        let sent: Vec<_> =
            bench.capture.spans().into_iter().filter(|span| span.span_kind == SpanKind::Producer).collect();
        let failed = sent.iter().find(|span| attribute(span, "error.type") == Some(&"request_failed".into()));
        let traces: HashSet<TraceId> = sent.iter().map(|span| span.span_context.trace_id()).collect();
        match (sent.len(), traces.len(), failed) {
            (2, 1, Some(_)) => Ok(()),
            _ => Err(format!("not a failed request and an error reply in one trace: {sent:?}")),
        }
    };
    if let Err(wrong) = settled(look).await {
        panic!("{wrong}");
    }
    bench.stop().await;
}

pub async fn a_slow_request_does_not_hold_up_the_next_one<H: Harness>() {
    if !H::CAPABILITIES.request_reply {
        return left_out("request_reply");
    }
    let bench = Bench::<H>::start().await;
    let (begun, gate) = (Seen::new(), Gate::closed());
    let answer = handler!([begun, gate] |item: String| {
        if item == "slow" {
            begun.add(());
            gate.pass().await;
        }
        item
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&bench.spec("prices")), answer)).await;
    let publisher = bench.publisher().await;
    let ask = |item: &'static str| publisher.request::<String>(bench.name("prices"), item).timeout(PATIENCE);
    let fast = async {
        begun.count(1).await;
        let fast = ask("fast").await;
        gate.open();
        fast
    };
    let (slow, fast) = tokio::join!(ask("slow").into_future(), fast);
    assert_eq!((delivered(slow), delivered(fast)), ("slow".to_owned(), "fast".to_owned()));
    stopped(running).await;
    bench.stop().await;
}
