//! What a service says when its connection is lost, and of what it could not handle.

use std::future::pending;
use std::time::Duration;

use throughline_core::broker::Subscription;
use throughline_core::{App, Delivery, serve};
use throughline_nats::{Nats, Stream, Subject};
use tracing::Level;

use crate::server::OwnServer;
use crate::witness::{Handled, Log, unique, wait_until};

const LOST: &str = "the connection to NATS is lost; the client connects again by itself";

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_connection_is_said_to_be_lost_when_it_is_and_then_to_be_back() {
    let (log, _guard) = Log::capture();
    let mut server = OwnServer::start("logs").await;
    let nats = Nats::connect(server.url()).await.expect("the server answers");
    let running = serve(nats, Handled::new().app(Subject::new("orders").queue_group("stock"))).start().await;
    let running = running.expect("the app starts");
    server.kill().await;
    wait_until("the loss is said while the server is away", || log.has(Level::WARN, LOST)).await;
    assert!(!log.has(Level::INFO, "connected to NATS again"));
    server.run().await;
    wait_until("the end of it is said", || log.has(Level::INFO, "connected to NATS again")).await;
    running.shutdown().await.expect("the app stops");
    assert!(log.has(Level::INFO, "a subscription has started destination=\"orders\" group=\"stock\""));
}

async fn hang(_: Delivery) {
    pending().await
}

/// Handlers that hang are dropped at their deadline: core NATS delivers nothing again, a stream does.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn what_was_not_handled_before_the_end_is_said_to_be_lost_where_it_is() {
    let server = OwnServer::start("dropped").await;
    let stream = Stream::new("ORDERS").subjects(["orders"]).durable("stock");
    for (subscription, is_lost) in [(Subscription::from(Subject::new("events")), true), (stream.into(), false)] {
        let (log, _guard) = Log::capture();
        let nats = Nats::connect(server.url()).await.expect("the server answers");
        let subject = if is_lost { "events" } else { "orders" };
        let (begun, begins) = tokio::sync::watch::channel(false);
        let handle = move |delivery: Delivery| {
            begun.send_replace(true);
            hang(delivery)
        };
        let app = App::new().without_telemetry().subscribe(subscription, handle);
        let serving = serve(nats.clone(), app).shutdown_timeout(Duration::from_millis(500)).start();
        let running = serving.await.expect("the app starts");
        nats.publisher().publish(subject, unique()).await.expect("it is sent");
        wait_until("the message is being handled", || *begins.borrow()).await;
        running.shutdown().await.expect("the app stops");
        let said = |what: &str| log.has(Level::WARN, &format!("the app ended before messages were handled; {what}"));
        let expected =
            (said("they are lost, as the broker delivers them once only"), said("the broker delivers them again"));
        assert_eq!(expected, (is_lost, !is_lost), "{subject}");
        assert_eq!(log.has(Level::INFO, "the consumer is created"), !is_lost);
    }
}
