use std::collections::HashSet;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use throughline_core::extract::{Baggage, State};
use throughline_core::{App, CurrentBaggage, Envelope, Handler, Publisher, serve};

use super::left_out;
use crate::conformance::Harness;
use crate::conformance::bench::{Bench, body_of, delivered, publish, started, stopped};
use crate::conformance::wait::Seen;

pub async fn a_chain_of_replies_is_one_trace_and_carries_the_baggage<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let mut last = bench.read("third").await;
    let first = Handler::<(String,), ()>::reply_to(async |order: String| format!("{order}>1"), bench.name("second"));
    let second = Handler::<(String,), ()>::reply_to(async |order: String| format!("{order}>2"), bench.name("third"));
    let app = App::new()
        .subscribe(bench.harness.subscription(&bench.spec("first")), first)
        .subscribe(bench.harness.subscription(&bench.spec("second")), second);
    let running = bench.serve(app).await;
    let publisher = bench.publisher().await;
    let start = publisher.publish(bench.name("first"), "0");
    delivered(Baggage::new().with("tenant", "acme").scope(start).await);

    let end = last.next().await;

    stopped(running).await;
    assert_eq!(body_of(&end), "0>1>2");
    assert_eq!(Baggage::from_headers(end.headers()).get("tenant").as_deref(), Some("acme"), "BAGG-11");
    let id = &bench.id;
    bench.capture.tree().assert_tree(
        &format!(
            "publish {id}.first
└─ process {id}.first
   └─ publish {id}.second
      └─ process {id}.second
         └─ publish {id}.third"
        )
        .replace("publish", bench.harness.names().operations.send),
    );
    last.close().await;
    bench.stop().await;
}

pub async fn a_request_gets_its_reply_in_one_trace<H: Harness>() {
    if !H::CAPABILITIES.request_reply {
        return left_out("request_reply");
    }
    let bench = Bench::<H>::start().await;
    let answer = async |question: String, baggage: Baggage| format!("{question} {:?}", baggage.get("tenant"));
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&bench.spec("prices")), answer)).await;
    let publisher = bench.publisher().await;
    let request = publisher.request::<String>(bench.name("prices"), "bread?");
    let reply = delivered(Baggage::new().with("tenant", "acme").scope(request).await);
    stopped(running).await;
    assert_eq!(reply, "bread? Some(\"acme\")");
    let traces: HashSet<TraceId> = bench.capture.spans().iter().map(|span| span.span_context.trace_id()).collect();
    assert_eq!((bench.capture.spans().len(), traces.len()), (3, 1), "request, process and reply are one trace");
    bench.stop().await;
}

pub async fn a_trace_goes_on_from_one_broker_to_another<H: Harness>() {
    let (one, two) = (Bench::<H>::start().await, Bench::<H>::start().await);
    let mut last = two.read("last").await;
    let other = Publisher::new(&two.connect().await).telemetry(one.engine());
    let target = two.name("orders");
    let forward = handler!([target] |order: String, other: State<Publisher>| {
        other.0.publish(target, format!("{order}>1")).await.map(drop)
    });
    let here = App::new().subscribe(one.harness.subscription(&one.spec("orders")), forward).with_state(other);
    let there = Handler::<(String,), ()>::reply_to(async |order: String| format!("{order}>2"), two.name("last"));
    let there = App::new().subscribe(two.harness.subscription(&two.spec("orders")), there);
    let here = one.serve(here).await;
    let there = there.telemetry(one.engine());
    let there = started(serve(two.connect().await, there)).await;
    publish(&one.publisher().await, &one.name("orders"), "0").await;

    assert_eq!(body_of(&last.next().await), "0>1>2");

    stopped(here).await;
    stopped(there).await;
    let tree = one.capture.tree();
    assert_eq!((tree.traces().len(), tree.roots().len()), (1, 1), "\n{tree}");
    last.close().await;
    one.stop().await;
    two.stop().await;
}

pub async fn malformed_propagation_headers_start_a_new_trace_and_lose_nothing<H: Harness>() {
    let malformed = [
        "garbage",
        "00-1-1-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "+0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ];
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let seen = Seen::new();
    let handle = handler!([seen] |order: String| { seen.add(order) });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    let publisher = bench.plain_publisher().await;
    for traceparent in malformed {
        let envelope = Envelope::new(&spec.destination, traceparent)
            .with_header("traceparent", traceparent)
            .with_header("tracestate", "=,=;")
            .with_header("baggage", "=;,\"=%zz,,;");
        delivered(publisher.publish_envelope(envelope).await);
    }
    assert_eq!(seen.count(malformed.len()).await, malformed);
    stopped(running).await;
    let spans = bench.capture.spans();
    let traces: HashSet<TraceId> = spans.iter().map(|span| span.span_context.trace_id()).collect();
    assert_eq!((spans.len(), traces.len()), (malformed.len(), malformed.len()), "PROP-08");
    let is_root = |span: &SpanData| span.parent_span_id == SpanId::INVALID && span.links.links.is_empty();
    assert!(spans.iter().all(is_root), "PROP-08, PROP-09");
    bench.stop().await;
}
