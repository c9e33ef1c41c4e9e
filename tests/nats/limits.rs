//! What the server closes the connection for, and what it does not take: an error before it is sent, and no other message suffers.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use throughline_core::broker::{Broker, BrokerErrorKind, PublishErrorKind};
use throughline_core::{Envelope, Publisher};
use throughline_nats::{CoreSubject, Nats, Stream, StreamSubject, Subject};
use throughline_testing::Capture;
use tokio::time::timeout;

use crate::server::{self, PATIENCE, round_trip};
use crate::witness::unique;

const MESSAGES: usize = 100;

async fn connect() -> Nats {
    Nats::connect_with(server::url(), server::options()).await.expect("a connection to THROUGHLINE_NATS_URL")
}

async fn refused(publisher: &Publisher, subject: &str) {
    let core = CoreSubject::new(subject);
    let stored = StreamSubject::new(subject);
    let failed = [
        publisher.publish(core.clone(), "x").await.map(drop).expect_err("no subject"),
        publisher.publish(stored, "x").await.map(drop).expect_err("no subject of a stream"),
        publisher
            .publish_envelope(Envelope::new("orders", "x").with_reply_to(core.clone()))
            .await
            .map(drop)
            .expect_err("no reply subject"),
        publisher.request::<String>(core.clone(), "x").await.map(drop).expect_err("nothing to request from"),
        publisher.publish_batch(core, ["x", "y"]).await.map(drop).expect_err("no subject of a batch"),
    ];
    for (number, failed) in failed.iter().enumerate() {
        let kind = failed.failed().first().map_or(failed.kind(), |(_, first)| first.kind());
        assert_eq!(kind, PublishErrorKind::InvalidDestination, "way {number}, {} bytes: {failed}", subject.len());
        assert!(failed.is_permanent(), "it never passes");
    }
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_subject_that_the_server_hangs_up_for_costs_no_other_message() {
    let id = unique();
    let (nats, raw) = (connect().await, server::options().connect(server::url()).await.expect("a connection"));
    let publisher = nats.publisher().without_telemetry();
    let capture = Capture::new();
    let otel = server::instrumentation(capture.instrumentation().build(), &server::url(), &raw);
    let mut arrived = raw.subscribe(format!("{id}.>")).await.expect("a subscription");
    round_trip(&raw).await;

    let long = "a".repeat(5000);
    for number in 0..MESSAGES {
        publisher.publish(format!("{id}.ours"), number.to_string()).await.expect("it is sent");
        otel.publish(&raw, format!("{id}.raw"), number.to_string().into()).await.expect("it is sent");
        if number == MESSAGES / 2 {
            for subject in [long.as_str(), "a b", "a.*", "a.>", "a..b", "a\tb", "a\u{0}b", ""] {
                refused(&publisher, subject).await;
                otel.publish(&raw, subject.to_owned(), Bytes::new()).await.expect_err("no subject");
                otel.request(&raw, subject.to_owned(), Bytes::new()).await.expect_err("no subject");
            }
        }
    }

    let mut seen = BTreeSet::new();
    while seen.len() < 2 * MESSAGES {
        let message = timeout(PATIENCE, arrived.next()).await.unwrap_or_else(|_| panic!("only {} arrive", seen.len()));
        let message = message.expect("the subscription goes on");
        seen.insert((message.subject.to_string(), message.payload.to_vec()));
    }
    for client in [&raw, &nats.client()] {
        assert_eq!(client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed), 1, "nobody hung up");
    }
    nats.shutdown().await.expect("it is closed");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn the_longest_subject_that_is_let_through_is_taken_by_the_server() {
    let (nats, id) = (connect().await, unique());
    let publisher = nats.publisher().without_telemetry();
    let longest = async |fits: &dyn Fn(&str) -> bool| {
        let mut subject = format!("{id}.");
        while fits(&format!("{subject}a")) {
            subject.push('a');
        }
        subject
    };
    // 24 bytes are for the two sizes, and a request has an inbox as reply subject.
    for length in [
        longest(&|subject| subject.len() <= 4096 - 24).await,
        longest(&|subject| subject.len() <= 4096 - 24 - 52).await,
    ] {
        let failed = publisher.publish(format!("{length}aaa{}", "a".repeat(60)), "x").await.map(drop);
        assert_eq!(failed.expect_err("too long").kind(), PublishErrorKind::InvalidDestination);
        publisher.publish(length, Bytes::from(vec![b'x'; 1000])).header("tag", "x").await.expect("it fits");
    }
    let request = longest(&|subject| subject.len() <= 4096 - 24 - 52).await;
    let failed = publisher.request::<String>(request, "x").await.map(drop).expect_err("nobody answers");
    assert_eq!(failed.kind(), PublishErrorKind::NotFound, "the server has read it: {failed}");
    round_trip(&nats.client()).await;
    assert_eq!(nats.client().statistics().connects.load(std::sync::atomic::Ordering::Relaxed), 1, "nobody hung up");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_message_that_is_too_large_with_its_headers_is_refused_and_the_connection_stays() {
    let (nats, id) = (connect().await, unique());
    // With telemetry: what it writes into the headers counts too.
    let capture = Capture::new();
    let publisher = nats.publisher().telemetry(capture.instrumentation().build());
    let limit = nats.client().max_payload();
    for body in [limit + 1, limit, limit - 20] {
        let body = Bytes::from(vec![b'x'; body]);
        let failed = publisher.publish(format!("{id}.a"), body.clone()).await.map(drop).expect_err("too large");
        assert_eq!(failed.kind(), PublishErrorKind::TooLarge);
        let failed = publisher.publish(StreamSubject::new(format!("{id}.a")), body.clone()).await.map(drop);
        assert_eq!(failed.expect_err("too large").kind(), PublishErrorKind::TooLarge);
        let failed = publisher.request::<String>(format!("{id}.a"), body).await.map(drop).expect_err("too large");
        assert_eq!(failed.kind(), PublishErrorKind::TooLarge);
    }
    round_trip(&nats.client()).await;
    assert_eq!(nats.client().statistics().connects.load(std::sync::atomic::Ordering::Relaxed), 1, "nobody hung up");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn what_cannot_be_subscribed_to_is_an_error_at_the_start() {
    let nats = connect().await;
    let long = "a".repeat(5000);
    let bad = [
        Subject::new(long.as_str()).into(),
        Subject::new("orders").queue_group(long.as_str()).into(),
        Subject::new("orders").queue_group("a b").into(),
        Stream::new(long.as_str()).durable("stock").into(),
        Stream::new("ORDERS").durable(long.as_str()).into(),
        Stream::new("ORDERS").durable("stock").filter(long.as_str()).into(),
        Stream::new("ORDERS").durable("stock").deliver_group(long.as_str()).into(),
    ];
    for (number, subscription) in bad.iter().enumerate() {
        let failed = nats.subscribe(subscription).await.map(drop).expect_err("it cannot be subscribed to");
        assert_eq!(failed.kind(), BrokerErrorKind::Configuration, "{number}: {failed}");
    }
    round_trip(&nats.client()).await;
    assert_eq!(nats.client().statistics().connects.load(std::sync::atomic::Ordering::Relaxed), 1, "nobody hung up");
    let prefixed = server::options().custom_inbox_prefix(&long);
    let failed = Nats::connect_with(server::url(), prefixed).await.map(drop).expect_err("no inbox prefix");
    assert_eq!(failed.kind(), BrokerErrorKind::Configuration);
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_header_that_nats_cannot_carry_is_refused_and_the_connection_stays() {
    let (nats, id) = (connect().await, unique());
    let publisher = nats.publisher().without_telemetry();
    for (name, value) in [("a b", "x"), ("a:b", "x"), ("größe", "x"), ("tag", "a\r\nPUB b 0"), ("tag", "a\nb")] {
        let envelope = Envelope::new(format!("{id}.a"), "x").with_header(name, value);
        let failed = publisher.publish_envelope(envelope).await.map(drop).expect_err("it cannot be carried");
        assert_eq!(failed.kind(), PublishErrorKind::Encode, "{name}");
    }
    let mut headers = HeaderMap::new();
    headers.insert("tag", "x");
    nats.client().publish_with_headers(format!("{id}.a"), headers, Bytes::new()).await.expect("it is sent");
    timeout(Duration::from_secs(10), nats.client().flush()).await.expect("in time").expect("it is written");
}
