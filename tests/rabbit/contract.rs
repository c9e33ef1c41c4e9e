//! What stands in the properties and headers of a message: what a client in another language reads.

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use throughline_core::extract::Baggage;
use throughline_core::propagation::Propagators;
use throughline_core::telemetry::Instrumentation as Engine;
use throughline_core::{App, Delivery, Envelope, Handler, Settlement, serve};
use throughline_rabbit::Queue;
use throughline_testing::Capture;
use tokio::time::{Instant, sleep};

use crate::server::{self, PATIENCE, Plain, unique};

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

async fn get(plain: &Plain, queue: &str) -> BasicProperties {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let got = plain.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await;
        if let Some(message) = got.expect("an answer") {
            return message.delivery.properties;
        }
        assert!(Instant::now() < deadline, "a message comes to {queue}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn ids_and_media_type_are_properties_whatever_they_hold() {
    let (plain, queue) = (Plain::connect(&server::url()).await, unique("contract"));
    plain.declare(&queue, &[]).await;
    let publisher = server::connect().await.publisher().without_telemetry();
    let publishing = publisher.publish(queue.clone(), "x").id("m ü").correlation_id("corr ü 7");
    publishing.header("X", "v ü").await.expect("it is stored");
    let written = get(&plain, &queue).await;
    assert_eq!(written.message_id().as_ref().map(|id| id.as_str()), Some("m ü"));
    assert_eq!(written.correlation_id().as_ref().map(|id| id.as_str()), Some("corr ü 7"));
    assert_eq!(written.content_type().as_ref().map(|id| id.as_str()), Some("text/plain"));
    assert_eq!(header(&written, "X"), Some(&text("v ü")), "a long string is UTF-8");
    let bytes = Envelope::new(queue.clone(), bytes::Bytes::from_static(b"x"));
    publisher.publish_envelope(bytes).await.expect("it is stored");
    assert_eq!(get(&plain, &queue).await.content_type(), &None, "bytes say nothing of what they are");
    plain.delete(&queue).await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn trace_and_baggage_stand_in_the_table_as_others_read_them() {
    let (plain, queue) = (Plain::connect(&server::url()).await, unique("contract"));
    plain.declare(&queue, &[]).await;
    let capture = Capture::new();
    let formats = Propagators::from_names("tracecontext,baggage,b3multi").expect("formats");
    let engine = Engine::builder().tracer_provider(capture.tracer_provider()).propagator(formats).build();
    let publisher = server::connect().await.publisher().telemetry(engine);
    let publishing = publisher.publish(queue.clone(), "x");
    Baggage::new().with("sum", "1+1 = 2").scope(publishing).await.expect("it is stored");
    let written = get(&plain, &queue).await;
    assert_eq!(header(&written, "baggage"), Some(&text("sum=1%2B1%20=%202")), "BAGG-02");
    let trace = capture.spans()[0].span_context.trace_id().to_string();
    assert_eq!(header(&written, "X-B3-TraceId"), Some(&text(&trace)), "PROP-B-05");
    assert_eq!(header(&written, "X-B3-Sampled"), Some(&text("1")), "PROP-B-05");
    plain.delete(&queue).await;
}

#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn the_words_of_a_dead_letter_are_ascii_and_a_strangers_header_stays_as_it_came() {
    let (plain, queue, dead) = (Plain::connect(&server::url()).await, unique("contract"), unique("dead"));
    plain.declare(&dead, &[]).await;
    let reject = |_: Delivery| async { Settlement::reject("kein Käse") };
    let route = Handler::<(Delivery,), ()>::dead_letter(reject, dead.clone());
    let app = App::new().subscribe(Queue::new(queue.as_str()), route);
    let running = serve(server::connect().await, app).start().await.expect("it starts");
    let mut headers = FieldTable::default();
    headers.insert("X".into(), text("v ü"));
    let properties = BasicProperties::default().with_headers(headers).with_correlation_id("corr ü 7".into());
    let (options, body) = (BasicPublishOptions::default(), b"x");
    let published = plain.channel.basic_publish("".into(), queue.as_str().into(), options, body, properties).await;
    published.expect("it is published").await.expect("the server has it");
    let letter = get(&plain, &dead).await;
    assert_eq!(header(&letter, "X"), Some(&text("v ü")));
    assert_eq!(letter.correlation_id().as_ref().map(|id| id.as_str()), Some("corr ü 7"));
    assert_eq!(header(&letter, "dead-letter-reason"), Some(&text("UTF-8''kein%20K%C3%A4se")));
    running.shutdown().await.expect("it stops");
    for queue in [&queue, &dead] {
        plain.delete(queue).await;
    }
}
