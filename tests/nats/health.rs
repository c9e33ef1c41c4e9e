//! What probes see while a server is stopped and started: the program of the guide "Health and probes".

use std::net::SocketAddr;
use std::time::Duration;

use throughline_core::{App, serve};
use throughline_nats::{Nats, Stream, Subject};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::client::Request;
use crate::server::{self, OwnServer};

include!("../health/probes.rs");

/// How long a probe may take to see what has happened.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_guide_has_the_program_of_this_test() {
    let (guide, program) = (include_str!("../../docs/src/health.md"), include_str!("../health/probes.rs"));
    assert!(guide.contains(program), "copy tests/health/probes.rs into docs/src/health.md, or the other way round");
}

async fn ask(address: SocketAddr, path: &str) -> (u16, String) {
    let asked = async { Request::begin(address, &format!("GET {path}"), &[], 0).await?.finish("").await };
    asked.await.expect("the probes are served all the time")
}

/// Asks until the answer is this one.
async fn until_ready_is(address: SocketAddr, status: u16) -> String {
    let mut last = String::new();
    let asking = async {
        loop {
            let (now, text) = ask(address, "/readyz").await;
            last = text;
            if now == status {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let came = timeout(PATIENCE, asking).await.is_ok();
    assert!(came, "/readyz is not {status} within {PATIENCE:?}: {last}");
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn probes_follow_a_server_that_is_stopped_and_started() {
    let mut server = OwnServer::start("health").await;
    let nats = Nats::connect_with(server.url(), server::options()).await.expect("a connection");
    let stream = Stream::new("BILLS").subjects(["bills.>"]).durable("ledger").filter("bills.sent");
    let app = App::new()
        .subscribe(Subject::new("orders.placed").queue_group("stock"), async |_order: String| ())
        .subscribe(stream, async |_bill: String| ());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free loopback port");
    let address = listener.local_addr().expect("its address");
    let (stop, stopped) = oneshot::channel::<()>();
    let publisher = nats.publisher();
    let service = serve(nats, app);
    let router = probes(service.health());
    let http = tokio::spawn(async move { axum::serve(listener, router).await });
    let service = service.with_graceful_shutdown(async { drop(stopped.await) });
    let serving = tokio::spawn(service.into_future());

    let text = until_ready_is(address, 200).await;
    assert!(text.contains(": connected") && text.contains("subscription orders.placed (stock): ready"), "{text}");
    assert!(text.contains("(ledger): ready"), "{text}");
    publisher.publish("orders.placed", "42").await.expect("a publish");

    server.kill().await;
    let text = until_ready_is(address, 503).await;
    assert!(text.contains("disconnected for ") && text.contains("the server is away"), "{text}");
    assert_eq!(ask(address, "/livez").await.0, 200, "a restart would not bring the server back");

    server.run().await;
    until_ready_is(address, 200).await;

    stop.send(()).expect("the service runs");
    timeout(PATIENCE, serving).await.expect("the service ends").expect("no panic").expect("no error");
    let (status, text) = ask(address, "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains(": closed") && text.contains(": stopped"), "{text}");
    assert_eq!(ask(address, "/livez").await.0, 200, "it was asked to end");
    http.abort();
}
