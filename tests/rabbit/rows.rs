//! RabbitMQ's own rows of the golden table, GOLD-R-01 to -09, through the framework.

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;
use throughline_core::broker::Broker;
use throughline_core::telemetry::SettleSpans;
use throughline_core::{App, Delivery, Destination, serve};
use throughline_rabbit::{Exchange, Queue, ToExchange};
use throughline_testing::Capture;

use crate::raw_rows::{P1, follow_p1, shown, sorted};
use crate::server::{self, KEPT, PATIENCE, Plain, unique};

/// Publishes to each, and returns the spans, with `names` in place of unique ones.
async fn published<const N: usize>(to: [Destination; N], names: &[(&str, &str)]) -> String {
    let (rabbit, capture) = (server::connect().await, Capture::new());
    let publisher = rabbit.publisher().telemetry(capture.instrumentation().build());
    for destination in to {
        publisher.publish(destination, "{}").await.expect("published");
    }
    assert!(capture.spans().iter().all(|span| span.status == Status::Unset), "STAT-01");
    renamed(shown(&capture), names)
}

/// Handles one message with P1 that a client without telemetry publishes to that place, and returns the spans.
async fn handled(queue: Queue, (exchange, key): (&str, &str), names: &[(&str, &str)]) -> String {
    let capture = Capture::new();
    let app = App::new()
        .subscribe(queue, async |_: Delivery| {})
        .telemetry(capture.instrumentation().settle_spans(SettleSpans::Always).build());
    let running = serve(server::connect().await, app).start().await.expect("a service");
    let plain = Plain::connect(&server::url()).await;
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(P1.into()));
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default().with_headers(headers));
    let sent = plain.channel.basic_publish(exchange.into(), key.into(), options, b"{}", properties).await;
    sent.expect("a publish").await.expect("a confirmation");
    capture.wait_for_spans(2, PATIENCE).await;
    running.shutdown().await.expect("an end");
    follow_p1(&capture);
    let spans = capture.spans();
    let of = |kind: SpanKind| -> &SpanData { spans.iter().find(|span| span.span_kind == kind).expect("such a span") };
    let (process, settle) = (of(SpanKind::Consumer), of(SpanKind::Client));
    assert_eq!(settle.parent_span_id, process.span_context.span_id(), "GOLD-R-09, LINK-12");
    assert!(spans.iter().all(|span| span.status == Status::Unset), "STAT-01");
    renamed(shown(&capture), names)
}

fn renamed(mut shown: String, names: &[(&str, &str)]) -> String {
    for (unique, name) in names {
        shown = shown.replace(unique, name);
    }
    shown
}

mod golden {
    use super::*;

    #[tokio::test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    async fn golden_r_01_to_04_publish() {
        let [queue, direct, fanout] = ["q", "direct", "fanout"].map(unique);
        let rabbit = server::connect().await;
        let bound = Queue::new(queue.as_str())
            .expires(KEPT)
            .bind(Exchange::direct(direct.as_str()).auto_delete(), "warning")
            .bind(Exchange::fanout(fanout.as_str()).auto_delete(), "");
        let subscriber = rabbit.subscribe(&bound.into()).await.expect("a subscription");
        let to = [
            Destination::from(queue.clone()),
            ToExchange::new(direct.clone()).key("warning").into(),
            ToExchange::new(fanout.clone()).into(),
            // A queue without a name cannot be.
            ToExchange::new("").not_mandatory().into(),
        ];
        let shown = published(to, &[(&queue, "q"), (&direct, "direct"), (&fanout, "fanout")]).await;
        let expected = "publish q Producer 0 destination.name=q destination.routing_key=q\n\
                        publish direct:warning Producer 0 destination.name=direct:warning destination.routing_key=warning\n\
                        publish fanout Producer 0 destination.name=fanout\n\
                        publish amq.default Producer 0 destination.name=amq.default\n";
        assert_eq!(shown, expected, "GOLD-R-01 to -04");
        drop(subscriber);
        Plain::connect(&server::url()).await.delete(&queue).await;
    }

    #[tokio::test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    async fn golden_r_05_and_09_process_and_settle() {
        let (exchange, queue) = (unique("ex"), unique("q"));
        let bound =
            Queue::new(queue.as_str()).expires(KEPT).bind(Exchange::direct(exchange.as_str()).auto_delete(), "warning");
        let shown = handled(bound, (&exchange, "warning"), &[(&exchange, "ex"), (&queue, "q")]).await;
        let expected = "ack ex:warning:q Client 0 destination.name=ex:warning:q message.delivery_tag=1\n\
                        process ex:warning:q Consumer 1 destination.name=ex:warning:q destination.routing_key=warning \
                        message.delivery_tag=1\n";
        assert_eq!(sorted(&shown), sorted(expected), "GOLD-R-05, GOLD-R-09");
        Plain::connect(&server::url()).await.delete(&queue).await;
    }

    #[tokio::test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    async fn golden_r_06_the_default_exchange() {
        let queue = unique("q");
        let shown = handled(Queue::new(queue.as_str()).expires(KEPT), ("", &queue), &[(&queue, "q")]).await;
        let expected = "ack q Client 0 destination.name=q message.delivery_tag=1\n\
                        process q Consumer 1 destination.name=q destination.routing_key=q message.delivery_tag=1\n";
        assert_eq!(sorted(&shown), sorted(expected), "GOLD-R-06");
        Plain::connect(&server::url()).await.delete(&queue).await;
    }

    #[tokio::test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    async fn golden_r_07_a_queue_that_the_server_named() {
        let exchange = unique("ex");
        let queue = Queue::generated().bind(Exchange::fanout(exchange.as_str()).auto_delete(), "");
        let shown = handled(queue, (&exchange, ""), &[(&exchange, "ex")]).await;
        let (_, generated) = shown.split_once("ex:amq.gen-").expect("ATTR-R-02: its name is in an attribute");
        let generated = generated.split_whitespace().next().expect("a name");
        let expected = "ack Client 0 destination.anonymous=true destination.name=ex:amq.gen-x destination.temporary=true \
                        message.delivery_tag=1\n\
                        process Consumer 1 destination.anonymous=true destination.name=ex:amq.gen-x \
                        destination.temporary=true message.delivery_tag=1\n";
        assert_eq!(sorted(&shown.replace(generated, "x")), sorted(expected), "GOLD-R-07");
    }

    #[tokio::test]
    #[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
    async fn golden_r_08_a_binding_by_a_pattern() {
        let (exchange, queue) = (unique("ex"), unique("q"));
        let bound =
            Queue::new(queue.as_str()).expires(KEPT).bind(Exchange::topic(exchange.as_str()).auto_delete(), "eu.*");
        let shown = handled(bound, (&exchange, "eu.42"), &[(&exchange, "ex"), (&queue, "q")]).await;
        let expected = "ack ex:eu.*:q Client 0 destination.name=ex:eu.42:q destination.template=ex:eu.*:q \
                        message.delivery_tag=1\n\
                        process ex:eu.*:q Consumer 1 destination.name=ex:eu.42:q destination.routing_key=eu.42 \
                        destination.template=ex:eu.*:q message.delivery_tag=1\n";
        assert_eq!(sorted(&shown), sorted(expected), "GOLD-R-08");
        Plain::connect(&server::url()).await.delete(&queue).await;
    }
}
