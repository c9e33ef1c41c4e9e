//! What the services do, whatever the broker. What they have made is told by the pictures of each broker.

use serde_json::json;

use crate::handlers::Note;
use crate::world::{Services, arrived, map};

/// The baggage of every message.
const BAGGAGE: [(&str, &str); 1] = [("tenant", "acme")];
const BY_RUST: [(&str, &str); 2] = [("rust", "was here"), ("tenant", "acme")];
const BY_PYTHON: [(&str, &str); 2] = [("python", "was here"), ("tenant", "acme")];

/// A message from them through us to them, and one from us through them to us.
pub(crate) async fn there_and_back(services: &mut Services) {
    services.they_publish("rust.relay", &["1"], &BAGGAGE).await;
    assert_eq!(services.note().await, Note::new("relay", "1", &BAGGAGE));
    assert_eq!(arrived(&services.peer.noted("end").await), ("1 by rust".to_owned(), map(&BY_RUST)));

    services.we_publish("relay", &["2"], &BAGGAGE).await;
    assert_eq!(arrived(&services.peer.noted("relay").await), ("2".to_owned(), map(&BAGGAGE)));
    let back: &[_] = if services.language == "python" { &BY_PYTHON } else { &BAGGAGE };
    let body = format!("2 by {}", services.language);
    assert_eq!(services.note().await, Note::new("end", &body, back));
}

/// A request from each side.
pub(crate) async fn requests(services: &mut Services) {
    they_request(services).await;
    let answer = services.we_request("answer", "2", &BAGGAGE).await;
    assert_eq!(answer, format!("2 is answered by {}", services.language));
    assert_eq!(arrived(&services.peer.noted("answer").await), ("2".to_owned(), map(&BAGGAGE)));
}

async fn they_request(services: &mut Services) {
    let order = json!({ "do": "request", "to": "rust.answer", "body": "1", "baggage": map(&BAGGAGE) });
    let answer = services.peer.does(order).await;
    assert_eq!(answer["body"], "1 is answered by rust", "{answer}");
    assert_eq!(services.note().await, Note::new("answer", "1", &BAGGAGE));
}

/// Messages of theirs, which we handle as a batch that publishes each of them again.
pub(crate) async fn our_batch(services: &mut Services, how: &str) {
    let bodies = ["1", "2", "3"];
    let order = json!({ "do": how, "to": "rust.batch", "bodies": bodies, "baggage": map(&BAGGAGE) });
    services.peer.does(order).await;
    for body in bodies {
        assert_eq!(services.note().await, Note::new("batch", body, &BAGGAGE), "without a mark of FastStream's batches");
    }
    they_get(services, &bodies.map(|body| format!("{body} by rust"))).await;
}

/// Asserts that these arrive at their end, in whatever order: some handle several at a time.
async fn they_get(services: &mut Services, bodies: &[String]) {
    let mut notes = Vec::new();
    for _ in bodies {
        notes.push(arrived(&services.peer.noted("end").await));
    }
    notes.sort();
    let expected: Vec<_> = bodies.iter().map(|body| (body.clone(), map(&BAGGAGE))).collect();
    assert_eq!(notes, expected);
}

/// A batch of ours, which they handle one by one.
pub(crate) async fn our_messages(services: &mut Services) {
    let bodies = ["4", "5", "6"];
    services.we_publish("end", &bodies, &BAGGAGE).await;
    they_get(services, &bodies.map(str::to_owned)).await;
}

/// A batch of ours, which they handle as a batch that publishes one message.
pub(crate) async fn their_batch(services: &mut Services) {
    let bodies = ["4", "5", "6"];
    services.we_publish("batch", &bodies, &BAGGAGE).await;
    let note = services.peer.noted("batch").await;
    assert_eq!((&note["body"], &note["baggage"]), (&json!(bodies), &json!(map(&BAGGAGE))), "{note}");
    assert_eq!(note["each"], json!(vec![map(&BAGGAGE); bodies.len()]));
    assert_eq!(services.note().await, Note::new("end", "3 by python", &BAGGAGE));
}

/// The same, with correlation ids of which two are equal: FastStream links to one message for each id, and to none without.
pub(crate) async fn their_batch_with_ids(services: &mut Services) {
    let messages = [("7", "a"), ("8", "b"), ("9", "b")];
    services.we_publish_with_ids("batch", &messages, &BAGGAGE).await;
    let note = services.peer.noted("batch").await;
    assert_eq!(note["body"], json!(["7", "8", "9"]), "{note}");
    assert_eq!(services.note().await, Note::new("end", "3 by python", &BAGGAGE));
}
