//! Where an answer goes is the requester's to say, but not every address is one.

use std::time::Duration;

use throughline_core::{App, Delivery, serve};
use throughline_nats::{Nats, Subject};
use throughline_testing::Capture;
use tracing::Level;

use crate::server::{self, PATIENCE, round_trip};
use crate::streams::{consumer, durable, stored, stream};
use crate::witness::{Log, unique};

/// A handler whose answer would be an acknowledgement, or empty, where the server reads it.
async fn answer(_: Delivery) -> &'static str {
    ""
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn an_answer_that_a_stranger_asks_for_at_the_server_itself_is_not_published() {
    let (log, _guard) = Log::capture();
    let (owner, id) = stream().await;
    let publisher = owner.publisher().without_telemetry();
    publisher.publish_batch(format!("{id}.orders"), ["1", "2", "3"]).await.expect("they are stored");
    // One of them is being handled by somebody else.
    let mut subscriber =
        throughline_core::broker::Broker::subscribe(&owner, &durable(&id).into()).await.expect("a subscription");
    let held = tokio::time::timeout(PATIENCE, subscriber.receive()).await.expect("in time").expect("a message");
    let ack = held.delivery.native::<throughline_nats::NativeMessage>().and_then(|native| native.message());
    let ack = ack.and_then(|message| message.reply.clone()).expect("it is acknowledged somewhere");
    let open = consumer(&owner, &id).await.num_ack_pending;

    let capture = Capture::new();
    let asked = unique();
    let nats = Nats::connect_with(server::url(), server::options()).await.expect("a connection");
    let app = App::new().telemetry(capture.instrumentation().build()).subscribe(Subject::new(asked.as_str()), answer);
    let running = serve(nats, app).start().await.expect("the app starts");
    let stranger = server::options().connect(server::url()).await.expect("a connection");
    let addresses = [format!("$JS.API.STREAM.PURGE.{id}"), format!("$JS.API.STREAM.DELETE.{id}"), ack.to_string()];
    for address in &addresses {
        stranger.publish_with_reply(asked.clone(), address.clone(), "x".into()).await.expect("it is sent");
    }
    // The last one is answered, and so are all before it or never.
    let request = tokio::time::timeout(PATIENCE, stranger.request(asked.clone(), "x".into())).await;
    assert_eq!(request.expect("in time").expect("an answer").payload.len(), 0);
    running.shutdown().await.expect("the app stops");
    round_trip(&owner.client()).await;

    assert_eq!(stored(&owner, &id, "orders").await, 3, "nothing was purged");
    assert_eq!(consumer(&owner, &id).await.num_ack_pending, open, "nothing was acknowledged");
    let sent: Vec<_> =
        capture.spans().iter().map(|span| span.name.to_string()).filter(|name| name.starts_with("publish")).collect();
    assert_eq!(sent, ["publish _INBOX"], "SPAN-19");
    assert!(log.has(Level::WARN, "a message asks for its answer at a subject of the server's own"));
}

/// The name of an inbox is nobody's to choose but ours.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn an_inbox_prefix_of_a_stranger_names_no_span() {
    let (capture, asked) = (Capture::new(), unique());
    let nats = Nats::connect_with(server::url(), server::options()).await.expect("a connection");
    let app = App::new().telemetry(capture.instrumentation().build()).subscribe(Subject::new(asked.as_str()), answer);
    let running = serve(nats, app).start().await.expect("the app starts");
    for number in 0..3 {
        let options = server::options().custom_inbox_prefix(format!("_INBOX_{asked}-{number}"));
        let stranger = options.connect(server::url()).await.expect("a connection");
        let request = tokio::time::timeout(Duration::from_secs(10), stranger.request(asked.clone(), "x".into())).await;
        request.expect("in time").expect("an answer");
    }
    running.shutdown().await.expect("the app stops");
    let published = capture.metrics().into_iter().filter(|point| point.name == "messaging.client.sent.messages");
    assert_eq!(published.count(), 1, "METR-09: one series for all of them");
    let names: std::collections::BTreeSet<_> = capture.spans().iter().map(|span| span.name.to_string()).collect();
    assert_eq!(names.into_iter().filter(|name| name.starts_with("publish")).collect::<Vec<_>>(), ["publish _INBOX"]);
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_place_that_cannot_be_published_to_is_refused_at_the_start() {
    use throughline_core::{Handler, ServeErrorKind};
    use throughline_nats::{CoreSubject, StreamSubject};

    async fn handle(_: String) -> String {
        "done".to_owned()
    }
    let (nats, id) = stream().await;
    let long = "a".repeat(5000);
    for name in ["a b", "a.*", "a.>", "a..b", "a.", "", "a\u{0}b", long.as_str()] {
        for destination in [CoreSubject::new(name).into(), StreamSubject::new(name).into(), name.to_owned().into()] {
            let destination: throughline_core::Destination = destination;
            for app in [
                App::new().subscribe(durable(&id), handle.reply_to(destination.clone())),
                App::new().subscribe(durable(&id), handle.dead_letter(destination.clone())),
            ] {
                let failed = serve(nats.clone(), app).start().await.map(drop).expect_err("it goes nowhere");
                assert_eq!(failed.kind(), ServeErrorKind::Configuration, "{name:?}");
            }
        }
    }
}
