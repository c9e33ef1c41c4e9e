//! Where an answer goes is the requester's to say, but not every address is one.

use std::time::Duration;

use throughline_core::broker::PublishErrorKind;
use throughline_core::{App, Delivery, Failure, serve};
use throughline_nats::{Nats, Subject};
use throughline_testing::{Capture, attribute};
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

/// What goes over the wire is what the services API of NATS says, so that a client in any language understands it.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_request_that_fails_is_answered_by_the_convention_of_services() {
    async fn price(item: String) -> Result<String, Failure> {
        Err(Failure::new("unknown_item", format!("no row for {item}")).with_answer(404, "no such item"))
    }
    let asked = unique();
    let nats = Nats::connect_with(server::url(), server::options()).await.expect("a connection");
    let app = App::new().without_telemetry().subscribe(Subject::new(asked.as_str()), price);
    let running = serve(nats, app).start().await.expect("the app starts");
    let stranger = server::options().connect(server::url()).await.expect("a connection");
    for (body, code, text) in [(&b"bread"[..], "404", "no such item"), (b"\xff\xfe", "400", "decode_error")] {
        let reply = tokio::time::timeout(PATIENCE, stranger.request(asked.clone(), body.into())).await;
        let reply = reply.expect("in time").expect("an answer");
        let headers = reply.headers.expect("headers");
        let header = |name| headers.get(name).map(async_nats::HeaderValue::as_str);
        assert_eq!(header("Nats-Service-Error-Code"), Some(code));
        assert_eq!(header("Nats-Service-Error"), Some(text));
        assert!(reply.payload.is_empty());
    }
    running.shutdown().await.expect("the app stops");
}

/// As the services API of NATS answers, in whatever language.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn the_error_of_a_service_in_another_language_fails_the_request() {
    use futures_util::StreamExt;

    let asked = unique();
    let client = server::options().connect(server::url()).await.expect("a connection");
    let mut service = client.subscribe(asked.clone()).await.expect("a subscription");
    round_trip(&client).await;
    let answering = tokio::spawn(async move {
        let address = service.next().await.and_then(|request| request.reply).expect("a request");
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Service-Error", "sold out\u{7}");
        headers.insert("Nats-Service-Error-Code", "409");
        client.publish_with_headers(address, headers, "{}".into()).await.expect("it is sent");
        // A client that is dropped forgets what it has not written.
        client.flush().await.expect("it is written");
    });
    let capture = Capture::new();
    let nats = Nats::connect_with(server::url(), server::options()).await.expect("a connection");
    let publisher = nats.publisher().telemetry(capture.instrumentation().build());
    let error = publisher.request::<String>(asked.as_str(), "bread").timeout(PATIENCE).await.expect_err("it fails");
    answering.await.expect("the service answered");
    assert_eq!(error.kind(), PublishErrorKind::RequestFailed, "{error}");
    let reply = error.error_reply().expect("an error reply");
    assert_eq!((reply.code(), reply.text(), reply.body().as_ref()), (Some(409), "sold out\\u{7}", &b"{}"[..]));
    let spans = capture.spans();
    let request = spans.iter().find(|span| span.name.starts_with("request ")).expect("a request span");
    assert_eq!(attribute(request, "error.type"), Some(&"request_failed".into()), "SPAN-36");
    assert_eq!(attribute(request, "throughline.reply.error_code"), Some(&409.into()), "ATTR-C-31");
    nats.shutdown().await.expect("it is closed");
}

/// Nobody else gets the message, so nobody else answers.
#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_request_whose_handler_is_dropped_at_the_end_is_answered() {
    use std::sync::Arc;

    let (asked, begun) = (unique(), Arc::new(tokio::sync::Notify::new()));
    let handler = {
        let begun = Arc::clone(&begun);
        move |_: String| {
            let begun = Arc::clone(&begun);
            async move {
                begun.notify_one();
                std::future::pending::<String>().await
            }
        }
    };
    let nats = Nats::connect_with(server::url(), server::options()).await.expect("a connection");
    let app = App::new().without_telemetry().subscribe(Subject::new(asked.as_str()), handler);
    let app = serve(nats, app).shutdown_timeout(Duration::from_secs(1));
    let running = app.start().await.expect("the app starts");
    let other = Nats::connect_with(server::url(), server::options()).await.expect("a connection");
    let publisher = other.publisher().without_telemetry();
    let ending = async {
        begun.notified().await;
        running.shutdown().await.expect("the app stops");
    };
    let request = publisher.request::<String>(asked.as_str(), "bread").timeout(PATIENCE);
    let (answer, ()) = tokio::join!(request.into_future(), ending);
    let error = answer.expect_err("it is dropped");
    let reply = error.error_reply().map(|reply| (reply.code(), reply.text()));
    assert_eq!(reply, Some((Some(503), "cancelled")), "{error}");
    other.shutdown().await.expect("it is closed");
}
