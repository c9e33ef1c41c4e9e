//! A client that cannot read what it is sent (PROP-N-07): its connection is made again, and nothing is silent about it.
//!
//! Each test has a server of its own, since it takes the connections of it down.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, StorageType};
use throughline_core::broker::{Broker, BrokerErrorKind};
use throughline_core::serve::Running;
use throughline_core::{App, Publisher, ServeErrorKind, serve};
use throughline_nats::{Nats, Stream, Subject};
use tokio::time::{Instant, sleep, timeout};
use tracing::Level;

use crate::server::{self, OwnServer};
use crate::witness::{Door, Handled, Log, PATIENCE, send_raw, wait_until};

/// Short, for a test waits for it.
const ACK_WAIT: Duration = Duration::from_secs(2);

/// The first ends the connection task of the client by a panic, the others end the connection.
const POISONS: [(&str, &[u8]); 4] = [
    ("a bare carriage return in a value", b"NATS/1.0\r\ntenant: a\rb\r\n\r\n"),
    ("a space in a name", b"NATS/1.0\r\nbad name: a\r\n\r\n"),
    ("a block that is not UTF-8", b"NATS/1.0\r\ntenant: \xff\xfe\r\n\r\n"),
    ("a line without a colon", b"NATS/1.0\r\ntenant\r\n\r\n"),
];

async fn connect(server: &OwnServer) -> Nats {
    Nats::connect_with(server.url(), server::options()).await.expect("a connection to the server of the test")
}

async fn start(nats: Nats, app: App) -> Running {
    serve(nats, app).start().await.expect("the app starts")
}

/// Publishes to core NATS until a message of this round has arrived: at most once means that those before may be gone.
async fn one_arrives(publisher: &Publisher, handled: &Handled, round: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !handled.has(round) {
        assert!(Instant::now() < deadline, "no message arrives after {round}");
        publisher.publish("orders", round.to_owned()).await.expect("publishing works again");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A confirmation that is lost with the connection is an error, and the message may be stored all the same.
async fn publish_until_stored(publisher: &Publisher, body: &str) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = publisher.publish("orders", body.to_owned()).id(body.to_owned()).await {
        assert!(Instant::now() < deadline, "the message is not stored: {error}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn a_core_subscription_goes_on(name: &str, subject: Subject) {
    let server = OwnServer::start(name).await;
    for (poison, headers) in POISONS {
        let (log, _guard) = Log::capture();
        let (handled, nats) = (Handled::new(), connect(&server).await);
        let running = start(nats.clone(), handled.app(subject.clone())).await;
        // One publisher shares the connection that is lost, and one has its own, which nothing happens to.
        let (same, other) = (nats.publisher(), connect(&server).await.publisher());
        one_arrives(&other, &handled, "before").await;

        send_raw(&server, "orders", headers, "poison").await;

        log.tells_of_a_loss(poison).await;
        one_arrives(&other, &handled, &format!("{poison}, by another connection")).await;
        one_arrives(&same, &handled, &format!("{poison}, by the same connection")).await;
        assert!(!handled.has("poison"));
        running.shutdown().await.expect("the app stops");
    }
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_core_subscription_goes_on_after_headers_that_the_client_cannot_read() {
    a_core_subscription_goes_on("poison-core", Subject::new("orders")).await;
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_queue_group_goes_on_after_headers_that_the_client_cannot_read() {
    a_core_subscription_goes_on("poison-group", Subject::new("orders").queue_group("stock")).await;
}

/// The messages behind the poisonous one are lost with the connection, and their time runs out together with its own.
async fn nothing_stored_is_lost(name: &str, consumer: Stream) {
    let server = OwnServer::start(name).await;
    for (poison, headers) in POISONS {
        let (log, _guard) = Log::capture();
        let nats = connect(&server).await.publish_to_streams();
        // Receives nothing, so that nothing happens to it.
        let keeper = connect(&server).await.publish_to_streams();
        let config = Config {
            name: "ORDERS".to_owned(),
            subjects: vec!["orders".to_owned()],
            storage: StorageType::Memory,
            ..Config::default()
        };
        keeper.jetstream().create_stream(config).await.expect("a stream");
        let publisher = keeper.publisher();
        let bodies: Vec<String> = (0..40).map(|number| format!("{poison} {number}")).collect();
        let (before, behind) = bodies.split_at(10);
        publisher.publish_batch("orders", before.to_vec()).await.expect("they are stored");
        send_raw(&server, "orders", headers, "poison").await;
        publisher.publish_batch("orders", behind.to_vec()).await.expect("they are stored");

        let handled = Handled::new();
        let running = start(nats.clone(), handled.app(consumer.clone())).await;
        handled.all(&bodies).await;
        log.tells_of_a_loss(poison).await;

        // What deletes the message is what is told to do: then there is no loss any more.
        let stream = keeper.jetstream().get_stream("ORDERS").await.expect("the stream");
        stream.delete_message(11).await.expect("it is deleted");
        let late = format!("{poison}, afterwards");
        publish_until_stored(&nats.publisher(), &late).await;
        handled.all(&[late]).await;
        assert!(!handled.has("poison"));
        keeper.jetstream().delete_stream("ORDERS").await.expect("the stream is deleted");
        // The app ends with the stream, or before it has seen that.
        let _ = running.shutdown().await;
    }
}

fn durable() -> Stream {
    Stream::new("ORDERS").durable("stock").ack_wait(ACK_WAIT)
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn nothing_stored_is_lost_to_headers_that_the_client_cannot_read() {
    nothing_stored_is_lost("poison-pull", durable()).await;
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_push_consumer_is_bound_again() {
    // The limit ends the deliveries of the poisonous message, which would take those behind it along for ever.
    nothing_stored_is_lost("poison-push", durable().push().max_deliver(2).max_ack_pending(1)).await;
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_publisher_without_subscriptions_works_again() {
    let server = OwnServer::start("poison-publisher").await;
    let (log, _guard) = Log::capture();
    let (handled, nats) = (Handled::new(), connect(&server).await);
    let running = start(connect(&server).await, handled.app(Subject::new("orders"))).await;
    let publisher = nats.publisher();
    one_arrives(&publisher, &handled, "before").await;
    let lost = nats.client();
    let mut inbox = lost.subscribe("poison").await.expect("a subscription");
    server::round_trip(&lost).await;

    send_raw(&server, "poison", POISONS[0].1, "poison").await;

    let ended = timeout(PATIENCE, futures_util::StreamExt::next(&mut inbox)).await;
    assert!(ended.expect("the subscription ends").is_none());
    publisher.publish("orders", "right after").await.expect("the message is taken by the new connection");
    handled.all(&["right after".to_owned()]).await;
    assert!(log.has(Level::ERROR, "the connection task of the NATS client ended"));
    assert!(lost.flush().await.is_err(), "the old client is gone");
    nats.client().flush().await.expect("the new one is there");
    nats.shutdown().await.expect("the new one is closed");
    running.shutdown().await.expect("the app stops");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_client_of_the_users_own_is_not_replaced() {
    let server = OwnServer::start("poison-given").await;
    let client = server::options().connect(server.url()).await.expect("a connection");
    let running = start(Nats::from_client(client), Handled::new().app(Subject::new("orders"))).await;

    send_raw(&server, "orders", POISONS[0].1, "poison").await;

    let ended = timeout(PATIENCE, running.run_until(std::future::pending())).await.expect("the app ends");
    assert_eq!(ended.expect_err("the end is an error").kind(), ServeErrorKind::Ended);
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn the_connection_is_made_again_when_the_server_is_away_meanwhile() {
    let server = OwnServer::start("poison-away").await;
    let (log, _guard) = Log::capture();
    let (handled, door) = (Handled::new(), Door::open(&server, 0).await);
    let nats = Nats::connect_with(door.url(), server::options()).await.expect("a connection");
    let running = start(nats.clone(), handled.app(Subject::new("orders"))).await;

    let port = door.close().await;
    send_raw(&server, "orders", POISONS[0].1, "poison").await;
    wait_until("an attempt fails", || log.has(Level::WARN, "cannot connect to NATS anew, trying again")).await;
    let _door = Door::open(&server, port).await;

    one_arrives(&nats.publisher(), &handled, "after").await;
    running.shutdown().await.expect("the app stops");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_consumer_that_leaves_the_bodies_out_unasked_is_an_error_at_start() {
    let server = OwnServer::start("headers-only").await;
    let nats = connect(&server).await.publish_to_streams();
    let orders = Stream::new("ORDERS").subjects(["orders"]).durable("stock");
    let asked = orders.clone().headers_only();
    let mut subscriber = nats.subscribe(&asked.clone().into()).await.expect("a subscription");
    nats.publisher().publish("orders", "a body").await.expect("it is stored");
    let received = timeout(PATIENCE, subscriber.receive()).await.expect("in time").expect("a message");
    assert!(!received.delivery.has_payload(), "a body that was left out is none, not an empty one");
    assert_eq!(received.delivery.headers().get("Nats-Msg-Size"), Some("6"));
    drop((received, subscriber));

    let failed = nats.subscribe(&orders.into()).await.map(drop).expect_err("it contradicts");
    assert_eq!(failed.kind(), BrokerErrorKind::Configuration);
    assert!(failed.to_string().contains("headers only"), "{failed}");
    nats.subscribe(&asked.into()).await.map(drop).expect("what is asked for is what is there");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_limit_of_reconnects_is_kept() {
    let mut server = OwnServer::start("poison-limit").await;
    let nats = Nats::connect_with(server.url(), server::options().max_reconnects(2)).await.expect("a connection");
    let mut subscriber = nats.subscribe(&Subject::new("orders").into()).await.expect("a subscription");

    server.kill().await;

    let ended = timeout(PATIENCE, subscriber.receive()).await.expect("the subscription ends");
    assert_eq!(ended.expect_err("the end is an error").kind(), BrokerErrorKind::Ended);
}
