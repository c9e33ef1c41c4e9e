//! What stands in the headers on the wire, byte for byte: what a client in another language reads.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, StorageType};
use throughline_core::broker::{HeaderNames, PublishErrorKind};
use throughline_core::extract::Baggage;
use throughline_core::message::CreationContext;
use throughline_core::propagation::Propagators;
use throughline_core::telemetry::Instrumentation as Engine;
use throughline_core::{App, Delivery, Envelope, Handler, Publisher, Settlement, serve};
use throughline_nats::{Nats, Stream, StreamSubject, Subject};
use throughline_testing::Capture;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::Level;

use crate::server::{self, PATIENCE, instrumentation};
use crate::wire::Wire;
use crate::witness::{Log, unique};

async fn connect() -> Nats {
    Nats::connect_with(server::url(), server::options()).await.expect("a connection to THROUGHLINE_NATS_URL")
}

/// A stranger who sees all that is sent to a subject.
async fn listen(subject: &str) -> Wire {
    let mut wire = Wire::connect(&server::url()).await;
    wire.subscribe(subject).await;
    wire
}

/// A stranger who publishes, and is not disturbed by what it subscribes to.
async fn stranger() -> Wire {
    Wire::connect(&server::url()).await
}

/// The headers of the next message; all of them are printable ASCII, or Java's client would hear nothing more.
async fn headers(wire: &mut Wire) -> (BTreeMap<String, String>, Vec<u8>) {
    let (block, body) = wire.next().await;
    assert!(block.iter().all(|byte| matches!(byte, b'\r' | b'\n' | b'\t' | 0x20..=0x7e)), "PROP-N-08: {block:?}");
    let text = String::from_utf8(block).expect("ASCII");
    let lines = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    (lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect(), body)
}

#[track_caller]
fn has(headers: &BTreeMap<String, String>, name: &str, value: &str) {
    assert_eq!(headers.get(name).map(String::as_str), Some(value), "{headers:?}");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_header_that_is_not_ascii_is_an_error_and_what_comes_after_it_arrives() {
    let (nats, subject) = (connect().await, unique());
    let mut wire = listen(&subject).await;
    let publisher = nats.publisher().without_telemetry();
    let error = publisher.publish(subject.clone(), "x").header("X", "v ü").await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::Encode, "PROP-N-08");
    assert!(error.to_string().contains("`X`") && error.to_string().contains("ASCII"), "{error}");
    let to_stream = publisher.publish(StreamSubject::new(subject.clone()), "x").header("X", "v ü").await;
    assert_eq!(to_stream.unwrap_err().kind(), PublishErrorKind::Encode, "PROP-N-08");

    // Through the raw door, as an error of the client's.
    let client = server::options().connect(server::url()).await.expect("a connection");
    let capture = Capture::new();
    let engine = Engine::builder().tracer_provider(capture.tracer_provider()).build();
    let otel = instrumentation(engine, &server::url(), &client);
    let odd = || HeaderMap::from_iter([("X".parse().expect("a name"), "v ü".parse().expect("a value"))]);
    let error = otel.publish_with_headers(&client, subject.clone(), odd(), "x".into()).await.unwrap_err();
    let source = std::error::Error::source(&error).expect("a source").to_string();
    assert!(source.contains("`X`") && source.contains("ASCII"), "{source}");
    let jetstream = async_nats::jetstream::new(client.clone());
    assert!(otel.publish_with_headers(&jetstream, subject.clone(), odd(), "x".into()).await.is_err());
    assert!(otel.request_with_headers(&client, subject.clone(), odd(), "x".into()).await.is_err());
    let reply = otel.publish_with_reply_and_headers(&client, subject.clone(), "answers", odd(), "x".into()).await;
    assert!(reply.is_err());
    assert_eq!(capture.spans().iter().filter(|span| span.status != opentelemetry::trace::Status::Unset).count(), 4);

    publisher.publish(subject, "after").await.expect("it is sent");
    let (headers, body) = headers(&mut wire).await;
    assert_eq!(body, b"after", "the first that is sent: {headers:?}");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn ids_that_are_not_ascii_are_escaped_on_the_wire_and_read_as_they_were() {
    let (nats, subject) = (connect().await, unique());
    let (answers, seen) = (format!("{subject}.answers"), mpsc::unbounded_channel());
    let (tell, mut seen) = seen;
    let answer = move |delivery: Delivery| {
        let ids = (delivery.id().map(str::to_owned), delivery.correlation_id().map(str::to_owned));
        let _ = tell.send(ids);
        async { "done" }
    };
    let route = Handler::<(Delivery,), _>::reply_to(answer, answers.clone());
    let running = serve(connect().await, App::new().subscribe(Subject::new(subject.as_str()), route)).start().await;
    let running = running.expect("it starts");
    let (mut asked, mut answered) = (listen(&subject).await, listen(&answers).await);
    let publishing = nats.publisher().without_telemetry();
    publishing.publish(subject, "x").id("m ü").correlation_id("corr ü 7").await.expect("it is sent");

    let (written, _) = headers(&mut asked).await;
    has(&written, "Nats-Msg-Id", "UTF-8''m%20%C3%BC");
    has(&written, "correlation-id", "UTF-8''corr%20%C3%BC%207");
    let ids = timeout(PATIENCE, seen.recv()).await.expect("in time").expect("a message");
    assert_eq!(ids, (Some("m ü".to_owned()), Some("corr ü 7".to_owned())), "PROP-N-10");
    let (written, body) = headers(&mut answered).await;
    has(&written, "correlation-id", "UTF-8''corr%20%C3%BC%207");
    has(&written, "content-type", "text/plain");
    assert_eq!(body, b"done");
    running.shutdown().await.expect("it stops");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn what_a_stranger_wrote_is_escaped_in_a_dead_letter_and_counted() {
    let (log, _guard) = Log::capture();
    let (nats, id) = (connect().await, unique());
    let subjects = vec![format!("{id}.>")];
    let config = Config { name: id.clone(), subjects, storage: StorageType::Memory, ..Config::default() };
    nats.jetstream().create_stream(config).await.expect("a stream");
    let reject = |_: Delivery| async { Settlement::reject("kein Käse") };
    let orders = Stream::new(id.as_str()).durable("stock").filter(format!("{id}.orders"));
    let route = Handler::<(Delivery,), ()>::dead_letter(reject, format!("{id}.dead"));
    let running = serve(connect().await, App::new().subscribe(orders, route)).start().await.expect("it starts");

    let mut wire = listen(&format!("{id}.dead")).await;
    let block = "NATS/1.0\r\nX: v ü\r\ncorrelation-id: corr ü 7\r\ntenant: acme\r\n\r\n";
    assert!(stranger().await.store(&format!("{id}.orders"), block.as_bytes(), b"x").await, "the server takes it");
    let (dead, body) = headers(&mut wire).await;
    assert_eq!(body, b"x");
    has(&dead, "X", "UTF-8''v%20%C3%BC");
    has(&dead, "correlation-id", "UTF-8''corr%20%C3%BC%207");
    has(&dead, "tenant", "acme");
    has(&dead, "dead-letter-reason", "UTF-8''kein%20K%C3%A4se");
    running.shutdown().await.expect("it stops");

    // Back to where it came from, by the other door.
    let client = server::options().connect(server::url()).await.expect("a connection");
    let otel = instrumentation(Engine::builder().build(), &server::url(), &client);
    let kept = otel.with_creation_context(CreationContext::Kept);
    let again = format!("{id}.again");
    let mut wire = listen(&again).await;
    let odd = HeaderMap::from_iter([("X".parse().expect("a name"), "v ü".parse().expect("a value"))]);
    kept.publish_with_headers(&client, again, odd, "x".into()).await.expect("PROP-N-09: it is forwarded");
    has(&headers(&mut wire).await.0, "X", "UTF-8''v%20%C3%BC");
    assert!(log.has(Level::WARN, "headers of a message that is passed on are not ASCII"));
    assert!(!log.has(Level::WARN, "ü") && !log.has(Level::WARN, "%C3%BC"), "never a value");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_service_beside_faststream_reads_and_writes_its_names() {
    let subject = unique();
    let answer = |delivery: Delivery| async move { delivery.correlation_id().unwrap_or_default().to_owned() };
    let names = HeaderNames::faststream();
    let service = connect().await.with_header_names(names).expect("names");
    let running = serve(service.clone(), App::new().subscribe(Subject::new(subject.as_str()), answer)).start().await;
    let running = running.expect("it starts");

    // As FastStream asks: the address is the message's own.
    let inbox = format!("_INBOX.{subject}.1");
    let mut wire = listen(&inbox).await;
    let block = "NATS/1.0\r\ncontent-type: text/plain\r\ncorrelation_id: c1\r\ncorrelation-id: other\r\n\r\n";
    wire.ask(&subject, &inbox, block.as_bytes(), b"x").await;
    let (answered, body) = headers(&mut wire).await;
    assert_eq!(body, b"c1");
    has(&answered, "correlation_id", "c1");
    has(&answered, "content-type", "text/plain");
    assert!(!answered.contains_key("correlation-id"), "{answered:?}");

    let publisher = service.publisher().without_telemetry();
    let mut wire = listen(&subject).await;
    publisher.publish(subject, "x").correlation_id("c2").await.expect("it is sent");
    has(&headers(&mut wire).await.0, "correlation_id", "c2");
    running.shutdown().await.expect("it stops");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn a_request_of_faststream_to_a_stream_is_answered_where_its_header_says() {
    let (nats, id) = (connect().await, unique());
    let subjects = vec![format!("{id}.>")];
    let config = Config { name: id.clone(), subjects, storage: StorageType::Memory, ..Config::default() };
    nats.jetstream().create_stream(config).await.expect("a stream");
    let service = connect().await.with_header_names(HeaderNames::faststream()).expect("names");
    let orders = Stream::new(id.as_str()).durable("stock").filter(format!("{id}.orders"));
    let running = serve(service.clone(), App::new().subscribe(orders, |_: Delivery| async { "done" })).start().await;
    let running = running.expect("it starts");
    let inbox = format!("_INBOX.{id}.1");
    let mut wire = listen(&inbox).await;
    let block = format!("NATS/1.0\r\ncorrelation_id: c1\r\nreply_to: {inbox}\r\n\r\n");
    assert!(stranger().await.store(&format!("{id}.orders"), block.as_bytes(), b"x").await, "the server takes it");
    let (answered, body) = headers(&mut wire).await;
    assert_eq!(body, b"done");
    has(&answered, "correlation_id", "c1");

    // One of ours says it the same way.
    let mut wire = listen(&format!("{id}.asked")).await;
    let asks = Envelope::new(StreamSubject::new(format!("{id}.asked")), "x").with_reply_to("answers");
    service.publisher().without_telemetry().publish_envelope(asks).await.expect("it is stored");
    has(&headers(&mut wire).await.0, "reply_to", "answers");
    running.shutdown().await.expect("it stops");
}

#[tokio::test]
#[ignore = "needs a NATS server: cargo xtask test --broker nats"]
async fn trace_and_baggage_stand_on_the_wire_as_others_read_them() {
    let (nats, subject) = (connect().await, unique());
    let mut wire = listen(&subject).await;
    let capture = Capture::new();
    let formats = Propagators::from_names("tracecontext,baggage,b3multi").expect("formats");
    let builder = Engine::builder().tracer_provider(capture.tracer_provider()).propagator(formats);
    let publisher = nats.publisher().telemetry(builder.build());
    let publishing = publisher.publish(subject.clone(), "x");
    Baggage::new().with("sum", "1+1 = 2").scope(publishing).await.expect("it is sent");
    let (written, _) = headers(&mut wire).await;
    has(&written, "baggage", "sum=1%2B1%20=%202");
    let trace = capture.spans()[0].span_context.trace_id().to_string();
    has(&written, "X-B3-TraceId", &trace);
    has(&written, "X-B3-Sampled", "1");
    assert!(written.contains_key("X-B3-SpanId"), "{written:?}");
    has(&written, "content-type", "text/plain");

    // A trace that goes on keeps its random flag, over a span of the SDK's.
    let forward = format!("{subject}.next");
    let pass_on = {
        let forward = forward.clone();
        move |_: Delivery, publisher: Publisher| {
            let forward = forward.clone();
            async move { publisher.publish(forward, bytes::Bytes::from_static(b"y")).await.map(drop) }
        }
    };
    let app = App::new().subscribe(Subject::new(subject.as_str()), pass_on);
    let engine = Engine::builder().tracer_provider(capture.tracer_provider()).build();
    let running = serve(connect().await, app.telemetry(engine)).start().await.expect("it starts");
    let mut wire = listen(&forward).await;
    let block = "NATS/1.0\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03\r\n\r\n";
    assert!(stranger().await.publish(&subject, block.as_bytes(), b"x").await, "the server takes it");
    let (written, _) = headers(&mut wire).await;
    let parent = &written["traceparent"];
    assert!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && parent.ends_with("-03"), "{parent}");
    assert!(!written.contains_key("content-type"), "bytes say nothing of what they are");
    running.shutdown().await.expect("it stops");
}
