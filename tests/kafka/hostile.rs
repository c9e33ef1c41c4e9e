//! What strangers may send over a real server: any bytes as the names and values of headers (PROP-K-05).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::bindings::{rd_kafka_header_add, rd_kafka_headers_t, rd_kafka_resp_err_t};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord};
use throughline_core::{App, Delivery, Handler, serve};
use throughline_kafka::{Kafka, StartPosition, Topic};
use throughline_testing::Capture;
use throughline_testing::conformance::{Given, HeaderSet, Stranger, Strangers};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::harness::Topics;
use crate::server::{self, PATIENCE};
use crate::topics::{create, delete_all, unique};

/// A program of somebody else, whose header names need not be text.
struct Outsider {
    producer: FutureProducer,
}

impl Outsider {
    fn connect(url: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", url).set("linger.ms", "0");
        Self { producer: config.create().expect("a producer") }
    }

    /// Returns when the server has stored the record, or why it has not.
    async fn store(&self, topic: &str, headers: OwnedHeaders, body: &[u8]) -> Result<(), RDKafkaErrorCode> {
        let record = FutureRecord::<[u8], _>::to(topic).partition(0).payload(body).headers(headers);
        match self.producer.send(record, PATIENCE).await {
            Ok(_) => Ok(()),
            Err((KafkaError::MessageProduction(code), _)) => Err(code),
            Err((failed, _)) => panic!("{failed}"),
        }
    }
}

#[async_trait]
impl Stranger for Outsider {
    async fn send(&self, destination: &str, set: &HeaderSet, body: Bytes) -> Given {
        let headers = native(set.headers.iter().map(|(name, value)| (name.as_slice(), Some(value.as_slice()))));
        // The client ends a name at a zero byte when it reads it: it may then be another one.
        let is_cut = set.headers.iter().any(|(name, _)| name.contains(&0));
        match self.store(destination, headers, &body).await {
            Ok(()) if is_cut => Given::ByHand,
            Ok(()) => Given::AsItIs,
            Err(RDKafkaErrorCode::MessageSizeTooLarge) => Given::Refused,
            Err(code) => panic!("the server takes any header, and refuses one of {}: {code}", set.class),
        }
    }
}

#[async_trait]
impl Strangers for Topics {
    async fn stranger(&self) -> Box<dyn Stranger> {
        Box::new(Outsider::connect(&self.url))
    }
}

/// Makes headers of any names and values, which may be null.
fn native<'a>(headers: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> OwnedHeaders {
    let native = OwnedHeaders::new();
    for (name, value) in headers {
        append(&native, name, value);
    }
    native
}

#[allow(unsafe_code)] // The client has no safe way to write a name that is not UTF-8.
fn append(headers: &OwnedHeaders, name: &[u8], value: Option<&[u8]>) {
    let length = |bytes: &[u8]| isize::try_from(bytes.len()).expect("a slice");
    let (start, size) = value.map_or((std::ptr::null(), 0), |value| (value.as_ptr(), length(value)));
    let list = std::ptr::from_ref(headers.as_borrowed()).cast::<rd_kafka_headers_t>().cast_mut();
    // SAFETY: the reference is to the client's own list, which nobody else has; it copies name and value.
    let answer = unsafe { rd_kafka_header_add(list, name.as_ptr().cast(), length(name), start.cast(), size) };
    assert_eq!(answer, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
}

mod sets {
    use super::Topics;
    throughline_testing::conformance_hostile!(Topics, ignore = "needs Kafka: cargo xtask test --broker kafka");
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

type NativeHeaders = &'static [(&'static [u8], Option<&'static [u8]>)];
type ReadHeaders = &'static [(&'static str, &'static [u8])];

/// What no client of ours writes, and what a handler sees of it under [`SEEN`]: names are text there, and null is empty.
const ODD: [(&str, NativeHeaders, ReadHeaders); 5] = [
    ("names", &[(b"\xff\xfe", Some(b"1")), (b"caf\xe9", Some(b"2"))], &[]),
    ("nulls", &[(b"null", None), (b"baggage", None), (b"message-id", None)], &[("null", b"")]),
    ("twice", &[(b"a", Some(b"1")), (b"a", Some(b"2"))], &[("a", b"1"), ("a", b"2")]),
    ("retry", &[(b"retry-attempt", None), (b"retry-attempt", Some(b"\xff")), (b"retry-due", Some(b"soon"))], &[]),
    (
        "all",
        &[(b"a", Some(b"1")), (b"\xff", None), (b"null", None), (b"", Some(b"\xff\x00")), (b"a", Some(b"2"))],
        &[("a", b"1"), ("null", b""), ("", b"\xff\x00"), ("a", b"2")],
    ),
];

/// The names among them that the framework leaves alone.
const SEEN: [&str; 3] = ["", "a", "null"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn odd_headers_pass_handlers_retry_topics_and_a_dead_letter_and_no_message_is_lost() {
    let (url, topic, group) = (server::url(), unique("odd"), unique("g"));
    let waits = [1, 2].map(|number| format!("{topic}.{group}.retry.{number}"));
    let dead = format!("{topic}.dead");
    let all = [topic.clone(), waits[0].clone(), waits[1].clone(), dead.clone()];
    for name in &all {
        create(&url, name, 1).await;
    }
    let outsider = Outsider::connect(&url);
    for (body, headers, _) in ODD {
        let context = [(&b"traceparent"[..], Some(TRACEPARENT))];
        let stored = outsider.store(&topic, native(context.iter().chain(headers).copied()), body.as_bytes()).await;
        assert_eq!(stored, Ok(()), "PROP-K-05: the server takes the record `{body}`");
    }

    let capture = Capture::new();
    let (tried, mut attempts) = mpsc::unbounded_channel();
    let fail = move |delivery: Delivery| {
        tried.send(delivery).expect("the test listens");
        async { Err::<(), _>(std::fmt::Error) }
    };
    let (buried, mut letters) = mpsc::unbounded_channel();
    let bury = move |delivery: Delivery| {
        buried.send(delivery).expect("the test listens");
        async {}
    };
    let from = |name: &str| Topic::new(name).group(group.clone()).start(StartPosition::Earliest);
    let app = App::new()
        .telemetry(capture.instrumentation().build())
        .subscribe(
            from(&topic).retry_topics([Duration::from_millis(20); 2]),
            Handler::<(Delivery,), ()>::dead_letter(fail, dead.clone()),
        )
        .subscribe(from(&dead), bury);
    let kafka = Kafka::connect(url.as_str()).await.expect("a connection to THROUGHLINE_KAFKA_URL");
    let running = serve(kafka, app).start().await.expect("the app starts");

    let mut dead_bodies = BTreeSet::new();
    for _ in ODD {
        let letter = timeout(PATIENCE, letters.recv()).await.expect("a dead letter in time").expect("the app lives");
        assert!(dead_bodies.insert(body_of(&letter)), "{} twice", body_of(&letter));
        assert_eq!(letter.headers().get_all("dead-letter-reason").collect::<Vec<_>>(), [b"failed 3 times"]);
        check(&letter);
    }
    running.shutdown().await.expect("a clean end");
    assert!(letters.try_recv().is_err(), "no letter comes twice");

    let mut numbers: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    while let Ok(attempt) = attempts.try_recv() {
        check(&attempt);
        numbers.entry(body_of(&attempt)).or_default().push(attempt.attempt());
    }
    let each = ODD.map(|(body, ..)| (body.to_owned(), vec![1, 2, 3]));
    assert_eq!(numbers, BTreeMap::from(each), "each message, each attempt, once");
    let spans = capture.spans();
    let each = spans.iter().filter(|span| span.name == format!("process {topic}"));
    let traces: Vec<String> = each.map(|span| span.span_context.trace_id().to_string()).collect();
    assert_eq!(traces, vec![TRACE; 3 * ODD.len()], "the context beside the odd headers is followed by each attempt");
    delete_all(&url, &all).await;
}

fn body_of(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.payload()).into_owned()
}

/// PROP-K-02, PROP-K-03, PROP-K-05.
fn check(message: &Delivery) {
    let body = body_of(message);
    let (_, _, expected) = ODD.iter().find(|(sent, ..)| *sent == body).expect("a body that was sent");
    let headers = message.headers().iter().filter(|(name, _)| SEEN.contains(name));
    let seen: Vec<(&str, &[u8])> = headers.map(|(name, value)| (name, value.as_ref())).collect();
    assert_eq!(&seen, expected, "{body}, {}", message.destination());
}
