//! A status of the server is no message.

use futures_util::StreamExt;
use throughline_core::serve;
use throughline_nats::{Nats, Subject};
use throughline_testing::Capture;
use tokio::time::timeout;
use tracing::Level;

use crate::server::{self, PATIENCE, round_trip};
use crate::wire::Wire;
use crate::witness::{Handled, Log, unique};

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_status_of_the_server_reaches_no_handler_and_is_logged() {
    let (log, _guard) = Log::capture();
    let (id, handled) = (unique(), Handled::new());
    let nats =
        Nats::connect_with(server::url(), server::options()).await.expect("a connection to THROUGHLINE_NATS_URL");
    let running = serve(nats.clone(), handled.app(Subject::new(id.as_str()))).start().await.expect("the app starts");

    // Nobody listens there, so that the server answers itself.
    let client = nats.client();
    client.publish_with_reply(format!("nobody.{id}"), id.clone(), "x".into()).await.expect("it is sent");
    round_trip(&client).await;
    let mut wire = Wire::connect(&server::url()).await;
    for status in ["NATS/1.0 409 Message Size Exceeds MaxBytes", "NATS/1.0 100 Idle Heartbeat", "NATS/1.0 408"] {
        assert!(wire.publish(&id, format!("{status}\r\n\r\n").as_bytes(), b"").await, "{status}");
    }
    // With a body it is a message, whatever its first line says.
    assert!(wire.publish(&id, b"NATS/1.0 200 OK\r\n\r\n", b"with a body").await);
    nats.publisher().publish(id.clone(), "after").await.expect("it is sent");

    handled.all(&["with a body".to_owned(), "after".to_owned()]).await;
    assert_eq!(handled.count(), 2, "no status is a message");
    assert!(log.has(Level::WARN, "a status of the NATS server arrived in place of a message"));
    assert!(log.has(Level::WARN, "503"), "which one it was");
    running.shutdown().await.expect("the app stops");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_status_of_the_server_is_not_handed_to_a_client_of_ones_own() {
    let id = unique();
    let client = server::options().connect(server::url()).await.expect("a connection");
    let capture = Capture::new();
    let otel = server::instrumentation(capture.instrumentation().build(), &server::url(), &client);
    let orders = otel.subscription(Subject::new(id.clone()));
    let mut messages = client.subscribe(id.clone()).await.expect("a subscription");
    client.publish_with_reply(format!("nobody.{id}"), id.clone(), "x".into()).await.expect("it is sent");
    round_trip(&client).await;
    client.publish(id.clone(), "after".into()).await.expect("it is sent");
    let message = timeout(PATIENCE, orders.next(&mut messages)).await.expect("in time").expect("a message");
    assert_eq!(&message.payload[..], b"after");
    assert_eq!(capture.spans().len(), 1, "one receive span");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_status_in_place_of_a_reply_is_an_error() {
    let id = unique();
    let nats =
        Nats::connect_with(server::url(), server::options()).await.expect("a connection to THROUGHLINE_NATS_URL");
    let client = nats.client();
    let mut requests = client.subscribe(id.clone()).await.expect("a subscription");
    round_trip(&client).await;
    let answering = tokio::spawn(async move {
        let request = requests.next().await.expect("a request");
        let reply = request.reply.expect("a reply subject");
        Wire::connect(&server::url()).await.publish(&reply, b"NATS/1.0 409 Not Now\r\n\r\n", b"").await
    });
    let failed = nats.publisher().request::<String>(id, "x").await.map(drop).expect_err("no reply");
    assert!(failed.to_string().contains("409 Not Now"), "{failed}");
    assert!(answering.await.expect("it answers"));
}
