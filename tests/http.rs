//! An HTTP server beside an app, as the guide "Beside an HTTP server" has it: one trace from the client of the one to the handler of the
//! other, and at SIGTERM a request that is under way still publishes.

#![cfg(unix)]
#![allow(clippy::expect_used, reason = "helpers of tests: what cannot be done is a failure of the test")]

// The programs of the guides name the facade.
extern crate throughline_core as throughline;

#[path = "http/client.rs"]
mod client;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status};
use throughline_core::broker::Subscriber;
use throughline_core::extract::Baggage;
use throughline_core::serve::Health;
use throughline_core::{CurrentBaggage as _, Settlement};
use throughline_memory::{Channel, Memory};
use throughline_testing::Capture;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use self::client::Request;

include!("http/entrance.rs");

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(15);

const TRACEPARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn the_guide_has_the_program_of_this_test() {
    let (guide, program) = (include_str!("../docs/src/http.md"), include_str!("http/entrance.rs"));
    assert!(guide.contains(program), "copy tests/http/entrance.rs into docs/src/http.md, or the other way round");
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}");
}

/// The service of the guide with a handler that tells what it got.
async fn start(
    memory: &Memory,
    capture: &Capture,
) -> (SocketAddr, Health, Serve, mpsc::UnboundedReceiver<(String, Option<String>)>) {
    let otel = capture.instrumentation().build();
    let (handled, handles) = mpsc::unbounded_channel();
    let reserve = move |order: String, baggage: Baggage| {
        let handled = handled.clone();
        async move { drop(handled.send((order, baggage.get("tenant")))) }
    };
    let app = App::new().subscribe(Channel::new("orders.placed").group("stock"), reserve).telemetry(otel.clone());
    let entrance = Entrance { publisher: memory.publisher().telemetry(otel.clone()), otel };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free loopback port");
    let address = listener.local_addr().expect("its address");
    let service = service(memory.clone(), app, entrance, listener);
    (address, service.health(), service, handles)
}

/// In one test, since the signal is for the whole process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_goes_through_and_a_request_under_way_at_sigterm_is_published() {
    let (memory, capture) = (Memory::new(), Capture::new());
    // Another service, which goes on.
    let mut elsewhere = memory.subscribe(&Channel::new("orders.placed").into()).await.expect("a subscription");
    let (address, health, service, mut handles) = start(&memory, &capture).await;
    let serving = tokio::spawn(service.into_future());
    until("the service is ready", || health.is_ready()).await;

    let headers = [TRACEPARENT, "baggage: tenant=acme"];
    let request = Request::begin(address, "POST /orders", &headers, 2).await.expect("a connection");
    assert_eq!(request.finish("42").await.expect("an answer").0, 202);
    let handled = timeout(PATIENCE, handles.recv()).await.expect("the handler runs");
    assert_eq!(handled, Some(("42".to_owned(), Some("acme".to_owned()))));
    assert_eq!(next_body(&mut elsewhere).await, b"42");
    let spans = capture.wait_for_spans(3, PATIENCE).await;
    let server = spans.iter().find(|span| span.name == "POST /orders").expect("the span of the request");
    assert_eq!(server.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(
        (server.parent_span_id.to_string().as_str(), &server.span_kind),
        ("00f067aa0ba902b7", &SpanKind::Server)
    );
    assert!(server.parent_span_is_remote);
    let tree = capture.tree();
    let (publish, process) = (tree.find("publish orders.placed"), tree.find("process orders.placed"));
    assert_eq!(tree.parent(publish).map(|span| span.name.as_ref()), Some("POST /orders"));
    assert_eq!(tree.parent(process).map(|span| span.name.as_ref()), Some("publish orders.placed"));

    // Its body has not come yet.
    let headers = [TRACEPARENT, "expect: 100-continue"];
    let mut request = Request::begin(address, "POST /orders", &headers, 2).await.expect("a connection");
    request.is_taken().await.expect("the route reads the body");
    let sent = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    until("the end has begun", || !health.is_ready()).await;
    assert!(!serving.is_finished() && health.is_live());
    assert_eq!(request.finish("43").await.expect("an answer").0, 202, "the broker is not closed yet");
    assert_eq!(next_body(&mut elsewhere).await, b"43");
    timeout(PATIENCE, serving).await.expect("the service ends").expect("no panic").expect("no error");
    assert!(Request::begin(address, "POST /orders", &[], 0).await.is_err(), "nobody listens any more");
    let spans = capture.spans();
    assert_eq!(spans.iter().filter(|span| span.name == "publish orders.placed").count(), 2);
    assert!(spans.iter().all(|span| span.status == Status::Unset));
}

async fn next_body(subscriber: &mut Box<dyn Subscriber>) -> Vec<u8> {
    let mut received = timeout(PATIENCE, subscriber.receive()).await.expect("a message in time").expect("a message");
    received.settle(&Settlement::Ack).await.expect("an acknowledgement");
    received.delivery.payload().to_vec()
}
