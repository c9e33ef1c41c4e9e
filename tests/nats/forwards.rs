//! What is forwarded is stored, once for each service that forwards it, and asks the server for nothing.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, StorageType};
use futures_util::StreamExt;
use throughline_core::broker::Broker;
use throughline_core::message::CreationContext;
use throughline_core::{App, Delivery, Envelope, Handler, Publisher, Settlement, serve};
use throughline_nats::{Nats, Stream, StreamSubject, Subject};
use throughline_testing::Capture;
use tokio::time::timeout;

use crate::server::{self, PATIENCE, round_trip};
use crate::witness::{unique, wait_until_async};

async fn connect() -> Nats {
    Nats::connect_with(server::url(), server::options()).await.expect("a connection to THROUGHLINE_NATS_URL")
}

/// One stream for the messages and the dead letters.
async fn stream(nats: &Nats, id: &str) {
    let config = Config {
        name: id.to_owned(),
        subjects: vec![format!("{id}.>")],
        storage: StorageType::Memory,
        allow_rollup: true,
        ..Config::default()
    };
    nats.jetstream().create_stream(config).await.expect("a stream");
}

async fn stored(nats: &Nats, id: &str) -> u64 {
    let mut stream = nats.jetstream().get_stream(id).await.expect("the stream");
    stream.info().await.expect("its state").state.messages
}

async fn has_stored(nats: &Nats, id: &str, count: u64) {
    wait_until_async(&format!("{count} messages are in the stream"), async || stored(nats, id).await == count).await;
}

async fn give_up(_: Delivery) -> Settlement {
    Settlement::reject("not wanted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn each_of_three_services_has_its_dead_letter_stored() {
    let (nats, id) = (connect().await, unique());
    stream(&nats, &id).await;
    let mut services = Vec::new();
    for durable in ["stock", "bills", "mails"] {
        let orders = Stream::new(id.as_str()).durable(durable).filter(format!("{id}.orders"));
        // Plain destinations of this connection are core NATS's: what comes from a stream goes to one all the same.
        let dead = Handler::<(Delivery,), ()>::dead_letter(give_up, format!("{id}.dead"));
        services.push(serve(connect().await, App::new().subscribe(orders, dead)).start().await.expect("it starts"));
    }
    let publisher = nats.publisher().without_telemetry();
    publisher.publish(StreamSubject::new(format!("{id}.orders")), "x").id("m1").await.expect("it is stored");
    has_stored(&nats, &id, 4).await;

    // Each keeps the id of the message for who reads it.
    let dead = Stream::new(id.as_str()).durable("reader").filter(format!("{id}.dead"));
    let mut dead = nats.subscribe(&dead.into()).await.expect("a subscription");
    for _ in 0..3 {
        let mut received = timeout(PATIENCE, dead.receive()).await.expect("in time").expect("a dead letter");
        assert_eq!(received.delivery.id(), Some("m1"), "ATTR-N-06");
        received.settle(&Settlement::Ack).await.expect("it is settled");
    }
    for service in services {
        service.shutdown().await.expect("it stops");
    }
    assert_eq!(stored(&nats, &id).await, 4, "none more than once");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_forward_that_is_made_again_is_stored_once_and_each_part_of_a_message_for_itself() {
    let (nats, id) = (connect().await, unique());
    stream(&nats, &id).await;
    let publisher = nats.publisher().without_telemetry();
    let orders = Stream::new(id.as_str()).durable("stock").filter(format!("{id}.orders"));
    let mut orders = nats.subscribe(&orders.into()).await.expect("a subscription");
    for (number, message_id) in [Some("m1"), None].into_iter().enumerate() {
        let publishing = publisher.publish(StreamSubject::new(format!("{id}.orders")), "x");
        let publishing = match message_id {
            Some(id) => publishing.id(id),
            None => publishing,
        };
        publishing.await.expect("it is stored");
        let mut received = timeout(PATIENCE, orders.receive()).await.expect("in time").expect("a message");
        let before = stored(&nats, &id).await;
        let forward = |payload: &'static str| {
            let envelope = Envelope::forward(&received.delivery, format!("{id}.dead")).with_payload(payload);
            publisher.publish_envelope(envelope)
        };
        for _ in 0..3 {
            forward("x").await.expect("it is stored");
        }
        // Without an id there is nothing to recognise it by, and it is stored rather than lost.
        let after = before + if message_id.is_some() { 1 } else { 3 };
        assert_eq!(stored(&nats, &id).await, after, "message {number}");
        forward("part one").await.expect("it is stored");
        forward("part two").await.expect("it is stored");
        assert_eq!(stored(&nats, &id).await, after + 2, "message {number}");
        received.settle(&Settlement::Ack).await.expect("it is settled");
    }
}

/// What acts on the server when it is published to a stream.
fn hostile() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("Nats-Msg-Id", "m1"),
        ("Nats-Rollup", "all"),
        ("nats-rollup", "sub"),
        ("Nats-Expected-Stream", "OTHER"),
        ("Nats-Expected-Last-Sequence", "999"),
        ("Nats-Expected-Last-Subject-Sequence", "999"),
        ("Nats-Expected-Last-Msg-Id", "other"),
        ("Nats-TTL", "1s"),
        ("Nats-Incr", "1"),
        ("Nats-Schedule", "@at 2030-01-01T00:00:00Z"),
        ("Nats-Schedule-Target", "elsewhere"),
        ("Nats-Batch-Id", "b1"),
        ("Nats-Batch-Sequence", "1"),
        ("Nats-Batch-Commit", "1"),
        ("Nats-Trace-Dest", "spy"),
        ("Nats-Required-Api-Level", "99"),
        ("tenant", "acme"),
    ] {
        headers.insert(name, value);
    }
    headers
}

async fn last_has_none_that_acts(nats: &Nats, id: &str, sequence: u64) {
    let stream = nats.jetstream().get_stream(id).await.expect("the stream");
    let message = stream.get_raw_message(sequence).await.expect("the dead letter");
    let own: Vec<String> = message.headers.iter().map(|(name, _)| name.to_string()).collect();
    let acting: Vec<&String> = own.iter().filter(|name| name.to_ascii_lowercase().starts_with("nats-")).collect();
    assert_eq!(acting, ["Nats-Msg-Id"], "PROP-N-04");
    assert!(own.iter().any(|name| name == "tenant"), "its own headers stay: {own:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_stranger_cannot_act_on_the_stream_of_the_dead_letters() {
    let (nats, id) = (connect().await, unique());
    stream(&nats, &id).await;
    let publisher = nats.publisher().without_telemetry();
    publisher.publish(StreamSubject::new(format!("{id}.kept")), "x").await.expect("it is stored");
    let dead = StreamSubject::new(format!("{id}.dead"));
    let route = Handler::<(Delivery,), ()>::dead_letter(give_up, dead);
    let running = serve(connect().await, App::new().subscribe(Subject::new(format!("core-{id}")), route));
    let running = running.start().await.expect("it starts");

    let stranger = nats.client();
    stranger.publish_with_headers(format!("core-{id}"), hostile(), "x".into()).await.expect("it is sent");
    has_stored(&nats, &id, 2).await;
    last_has_none_that_acts(&nats, &id, 2).await;
    running.shutdown().await.expect("it stops");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_message_that_a_client_of_ones_own_passes_on_asks_the_server_for_nothing_and_is_stored() {
    let (nats, id) = (connect().await, unique());
    stream(&nats, &id).await;
    let (client, context) = (nats.client(), nats.jetstream());
    let publisher: Publisher = nats.publisher().without_telemetry();
    publisher.publish(StreamSubject::new(format!("{id}.orders")), "x").id("m1").await.expect("it is stored");
    let mut arrived = client.subscribe(format!("core-{id}")).await.expect("a subscription");
    round_trip(&client).await;
    client.publish_with_headers(format!("core-{id}"), hostile(), "x".into()).await.expect("it is sent");
    let message = timeout(PATIENCE, arrived.next()).await.expect("in time").expect("a message");

    let capture = Capture::new();
    for stored_before in [1, 2] {
        // Two services, each with a handle of its own.
        let otel = server::instrumentation(capture.instrumentation().build(), &server::url(), &client);
        let forward = otel.with_creation_context(CreationContext::Kept);
        for _ in 0..2 {
            let headers = message.headers.clone().expect("its headers");
            let ack = forward
                .publish_with_headers(&context, format!("{id}.dead"), headers, message.payload.clone())
                .await
                .expect("it is sent");
            ack.await.expect("it is stored");
            assert_eq!(stored(&nats, &id).await, stored_before + 1, "again is the same");
        }
        last_has_none_that_acts(&nats, &id, stored_before + 1).await;
    }
    // What an application sets itself stays.
    let otel = server::instrumentation(capture.instrumentation().build(), &server::url(), &client);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "m1");
    let ack =
        otel.publish_with_headers(&context, format!("{id}.orders"), headers, "x".into()).await.expect("it is sent");
    assert!(ack.await.expect("it is confirmed").duplicate, "its own id says that it is there");
}
