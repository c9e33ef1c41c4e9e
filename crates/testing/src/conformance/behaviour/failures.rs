use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::{SpanKind, Status};
use throughline_core::middleware::Retry;
use throughline_core::{App, Delivery, Envelope, Handler, Headers, RetryPolicy};

use super::{bodies, note};
use crate::attribute;
use crate::conformance::bench::{Bench, delivered, publish, stopped};
use crate::conformance::wait::Seen;
use crate::conformance::{GoldenError, Harness};

pub async fn a_failing_handler_is_tried_again_and_the_attempt_is_counted<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let seen = Seen::new();
    let handle = handler!([seen] |delivery: Delivery| {
        seen.add(note(&delivery));
        if delivery.attempt() < 3 { Err(GoldenError) } else { Ok(()) }
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    publish(&bench.publisher().await, &spec.destination, "order").await;
    let order = "order".to_owned();
    assert_eq!(seen.count(3).await, [(order.clone(), 1), (order.clone(), 2), (order, 3)]);
    stopped(running).await;
    let failed = bench.capture.spans().iter().filter(|span| span.status != Status::Unset).count();
    assert_eq!(failed, 2, "each failed delivery has its own failed span");
    bench.stop().await;
}

pub async fn a_panicking_handler_is_tried_again_and_the_worker_lives_on<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let publisher = bench.publisher().await;
    let seen = Seen::new();
    let handle = handler!([seen] |delivery: Delivery| {
        let (body, attempt) = note(&delivery);
        assert!(body != "bad" || attempt > 1, "the handler panics on purpose");
        seen.add((body, attempt));
    });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    publish(&publisher, &spec.destination, "bad").await;
    publish(&publisher, &spec.destination, "good").await;
    let mut notes = seen.count(2).await;
    notes.sort();
    assert_eq!(notes, [("bad".to_owned(), 2), ("good".to_owned(), 1)]);
    stopped(running).await;
    bench.stop().await;
}

pub async fn an_undecodable_body_is_rejected_and_never_tried_again<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let publisher = bench.publisher().await;
    let mut dead = bench.read("dead").await;
    let seen = Seen::new();
    let handle = handler!([seen] |order: String| { seen.add((order, 1)) });
    let route = Handler::<(String,), ()>::dead_letter(handle, bench.name("dead"));
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), route)).await;
    publish(&publisher, &spec.destination, Bytes::from_static(b"\xff\xfe")).await;
    publish(&publisher, &spec.destination, "good").await;

    assert_eq!(bodies(&seen.count(1).await), ["good"]);
    assert_eq!(dead.next().await.payload().as_ref(), b"\xff\xfe");
    stopped(running).await;

    let spans = bench.capture.spans();
    let failed: Vec<_> = spans.iter().filter(|span| attribute(span, "error.type").is_some()).collect();
    let [failed] = failed[..] else { panic!("{} spans failed, not one", failed.len()) };
    assert_eq!(attribute(failed, "error.type"), Some(&"decode_error".into()), "STAT-11");
    dead.close().await;
    bench.stop().await;
}

pub async fn a_message_that_keeps_failing_ends_in_the_dead_letter_as_it_was<H: Harness>() {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let mut dead = bench.read("dead").await;
    let seen = Seen::new();
    let handle = handler!([seen] |delivery: Delivery| {
        seen.add(listed(delivery.headers()));
        Err::<(), _>(GoldenError)
    });
    let retry = Retry::new(RetryPolicy::new().first_delay(Duration::from_millis(1)).attempts(2));
    let route = Handler::<(Delivery,), ()>::dead_letter(handle, bench.name("dead")).middleware(retry);
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), route)).await;
    let order = Envelope::new(&spec.destination, "order")
        .with_header("tenant", "acme")
        .with_header("Sent-By", "a test")
        .with_header("baggage", "k=v");
    delivered(bench.publisher().await.publish_envelope(order).await);

    let buried = dead.next().await;
    stopped(running).await;

    let (why, kept): (Vec<_>, Vec<_>) =
        listed(buried.headers()).into_iter().partition(|(name, _)| name.starts_with("dead-letter-"));
    let names: Vec<&str> = why.iter().map(|(name, _)| name.as_str()).collect();
    assert!(
        names.contains(&"dead-letter-reason") && names.contains(&"dead-letter-origin"),
        "why is it there? {names:?}"
    );
    let attempts = seen.all();
    assert_eq!((attempts.len(), buried.payload().as_ref()), (2, &b"order"[..]));
    assert_eq!(kept, attempts[0], "SPAN-37: the headers are unchanged, the producer's context among them");
    let spans = bench.capture.spans();
    let forward = spans.iter().find(|span| span.name.ends_with(".dead"));
    let sent = spans.iter().find(|span| span.span_kind == SpanKind::Producer);
    let (Some(forward), Some(sent)) = (forward, sent) else { panic!("there is no forward or no send span") };
    assert_eq!(forward.span_kind, SpanKind::Client, "SPAN-37");
    let linked: Vec<_> = forward.links.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(linked, [sent.span_context.span_id()], "SPAN-37");
    dead.close().await;
    bench.stop().await;
}

fn listed(headers: &Headers) -> Vec<(String, Bytes)> {
    let mut all: Vec<_> = headers.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
    all.sort();
    all
}
