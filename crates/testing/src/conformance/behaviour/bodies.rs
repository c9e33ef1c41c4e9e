use bytes::Bytes;
use throughline_core::{App, Delivery, Envelope};

use crate::conformance::Harness;
use crate::conformance::bench::{Bench, delivered, publish, stopped};
use crate::conformance::wait::Seen;

pub async fn an_empty_body_arrives<H: Harness>() {
    body_arrives::<H>(Bytes::new()).await;
}

pub async fn a_large_body_arrives<H: Harness>() {
    let body: Vec<u8> = (0..H::CAPABILITIES.max_body).map(|index| (index % 251) as u8).collect();
    body_arrives::<H>(body.into()).await;
}

pub async fn a_body_of_any_bytes_arrives<H: Harness>() {
    body_arrives::<H>((0..=255).collect::<Vec<u8>>().into()).await;
}

async fn body_arrives<H: Harness>(body: Bytes) {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let seen = Seen::new();
    let handle = handler!([seen] |body: Bytes| { seen.add(body) });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    publish(&bench.publisher().await, &spec.destination, body.clone()).await;
    let found = seen.count(1).await.remove(0);
    assert!(found == body, "{} bytes arrived and are not the {} that were sent", found.len(), body.len());
    stopped(running).await;
    bench.stop().await;
}

pub async fn a_hundred_headers_arrive<H: Harness>() {
    let headers = (0..100).map(|number| (format!("x-header-{number}"), format!("value {number}")));
    headers_arrive::<H>(headers.collect()).await;
}

pub async fn odd_headers_arrive<H: Harness>() {
    let mut headers = vec![
        ("X-Mixed-Case", "yes"),
        ("x-signs", "a=b;c, \"d\" \\ %41 'e' {f} <g>"),
        ("x-long", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ("x_under.dot", "1"),
    ];
    if H::CAPABILITIES.empty_header_values {
        headers.push(("x-empty", ""));
    }
    if H::CAPABILITIES.unicode_headers {
        headers.push(("x-unicode", "größe ✓ 東京"));
    }
    headers_arrive::<H>(headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()).await;
}

async fn headers_arrive<H: Harness>(headers: Vec<(String, String)>) {
    let bench = Bench::<H>::start().await;
    let spec = bench.spec("orders");
    let seen = Seen::new();
    let handle = handler!([seen] |delivery: Delivery| { seen.add(delivery.headers().clone()) });
    let running = bench.serve(App::new().subscribe(bench.harness.subscription(&spec), handle)).await;
    let mut envelope = Envelope::new(&spec.destination, "order");
    for (name, value) in &headers {
        envelope = envelope.with_header(name.clone(), value.clone());
    }
    delivered(bench.publisher().await.publish_envelope(envelope).await);
    let found = seen.count(1).await.remove(0);
    for (name, value) in &headers {
        let arrived: Vec<_> = found.iter().filter(|(own, _)| own == name).map(|(_, value)| value.clone()).collect();
        assert_eq!(arrived, [Bytes::from(value.clone())], "header {name}");
    }
    assert!(found.contains("traceparent"), "PROP-01");
    stopped(running).await;
    bench.stop().await;
}
