use std::sync::{Arc, Mutex};

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, DeliveryResult, Message};
use rdkafka::producer::{
    BaseProducer, BaseRecord, FutureRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use throughline_core::message::CreationContext;

use super::*;
use crate::{ProducerTelemetry, raw_headers};

type Record<'a> = FutureRecord<'a, str, str>;

#[tokio::test]
async fn golden_k_01_send() {
    let (capture, cluster) = (Capture::new(), cluster());
    let record = Record::to("orders").key("k1").payload("{}");
    let stored = otel(&capture).send(&producer(&cluster), record, PATIENCE).await.unwrap();
    let expected = format!(
        "destination.name=orders destination.partition.id={} kafka.message.key=k1 kafka.offset={}",
        stored.partition, stored.offset
    );
    assert_eq!(only(&capture), ("send orders".to_owned(), SpanKind::Producer, 0, expected), "GOLD-K-01");
    assert!(is_unset(&capture), "STAT-01");
}

#[tokio::test]
async fn a_fixed_partition_is_shown_once() {
    let (capture, cluster) = (Capture::new(), cluster());
    let record = Record::to("orders").partition(2).payload("{}");
    otel(&capture).send(&producer(&cluster), record, PATIENCE).await.unwrap();
    let expected = "destination.name=orders destination.partition.id=2 kafka.offset=0";
    assert_eq!(only(&capture).3, expected, "ATTR-K-02, GEN-06");
    let call = capture.sampled().pop().unwrap();
    assert_eq!(call.attribute("messaging.destination.partition.id"), Some(&"2".into()), "ATTR-C-21");
}

#[tokio::test]
async fn a_tombstone_is_a_null_value_and_no_other() {
    for (payload, shown) in [(None, " kafka.message.tombstone=true"), (Some(""), "")] {
        let (capture, cluster) = (Capture::new(), cluster());
        let record = Record { payload, ..Record::to("orders").partition(0).key("k1") };
        otel(&capture).send(&producer(&cluster), record, PATIENCE).await.unwrap();
        let expected =
            format!("destination.name=orders destination.partition.id=0 kafka.message.key=k1{shown} kafka.offset=0");
        assert_eq!(sorted(&only(&capture).3), sorted(&expected), "ATTR-K-06");
    }
}

#[tokio::test]
async fn a_key_that_may_not_be_shown_or_is_no_text_is_not() {
    let (capture, cluster) = (Capture::new(), cluster());
    let otel = otel(&capture);
    let record = Record::to("orders").partition(0).key("k1").payload("{}");
    otel.clone().without_message_keys().send(&producer(&cluster), record, PATIENCE).await.unwrap();
    let binary = FutureRecord::to("orders").partition(0).key(b"k\xff").payload("{}");
    otel.send(&producer(&cluster), binary, PATIENCE).await.unwrap();
    for span in capture.spans() {
        assert!(!attributes(&span.attributes).contains_key("messaging.kafka.message.key"), "ATTR-K-04, ATTR-C-23");
    }
}

#[tokio::test]
async fn what_the_user_says_about_the_client_is_on_the_span() {
    let (capture, cluster) = (Capture::new(), cluster());
    let mut config = config(&cluster);
    config.set("client.id", "stock-1").set("group.id", "g");
    let producer = producer(&cluster);
    let otel = otel(&capture).with_config(&config).with_server("kafka", 9093);
    let otel = otel.with_cluster_id_of(producer.client(), PATIENCE);
    otel.send(&producer, Record::to("orders").partition(0).payload("{}"), PATIENCE).await.unwrap();
    let shown = only(&capture).3;
    assert!(shown.starts_with("client.id=stock-1 "), "ATTR-K-08: {shown}");
    assert!(shown.ends_with(" server.address=kafka server.port=9093"), "ATTR-C-11, ATTR-C-12: {shown}");
    let spans = capture.spans();
    let id = attributes(&spans[0].attributes)["messaging.kafka.cluster.id"].to_string();
    assert_eq!(Some(id), producer.client().fetch_cluster_id(PATIENCE), "ATTR-K-07");
    assert!(!shown.contains("consumer.group.name"), "ATTR-K-03");
}

#[tokio::test]
async fn ids_are_read_from_the_headers() {
    let (capture, cluster) = (Capture::new(), cluster());
    let record = Record::to("orders").partition(0).payload("{}");
    let record = record.headers(headers(&[("message-id", "m1"), ("correlation-id", "c1")]));
    otel(&capture).send(&producer(&cluster), record, PATIENCE).await.unwrap();
    let shown = only(&capture).3;
    assert!(shown.contains(" message.conversation_id=c1 message.id=m1"), "ATTR-K-09: {shown}");
}

#[tokio::test]
async fn golden_k_02_a_batch_has_create_spans() {
    let (capture, cluster) = (Capture::new(), cluster());
    let records = ["1", "2"].map(|payload| Record::to("orders").payload(payload));
    let results = otel(&capture).send_batch(&producer(&cluster), records, PATIENCE).await;
    assert!(results.iter().all(Result::is_ok));
    let spans: Vec<_> = capture.spans().iter().map(shown).collect();
    let create = ("create orders".to_owned(), SpanKind::Producer, 0, "destination.name=orders".to_owned());
    let sent = "batch.message_count=2 destination.name=orders".to_owned();
    let send = ("send orders".to_owned(), SpanKind::Client, 2, sent);
    assert_eq!(spans, [create.clone(), create, send], "GOLD-K-02");
    assert_eq!(counted(&capture, "messaging.client.sent.messages", false), 2.0, "METR-13");
}

#[tokio::test]
async fn golden_k_03_without_create_spans_all_have_one_context() {
    let (capture, cluster) = (Capture::new(), cluster());
    let otel = Instrumentation::from(capture.instrumentation().create_spans(false).build());
    let records = ["1", "2"].map(|payload| Record::to("orders").partition(0).payload(payload));
    otel.send_batch(&producer(&cluster), records, PATIENCE).await;
    let expected = "batch.message_count=2 destination.name=orders destination.partition.id=0";
    assert_eq!(only(&capture), ("send orders".to_owned(), SpanKind::Producer, 0, expected.to_owned()), "GOLD-K-03");
    let span = capture.spans()[0].span_context.span_id().to_string();
    let consumer = stream_consumer(&cluster);
    for _ in 0..2 {
        let message = consumer.recv().await.unwrap();
        let parent = crate::carrier::to_headers(&message);
        assert!(parent.get("traceparent").unwrap().contains(&span), "GOLD-K-03");
    }
}

#[tokio::test]
async fn a_batch_has_a_span_for_each_topic_and_its_results_in_order() {
    let (capture, cluster) = (Capture::new(), cluster());
    let topics = ["orders", "bills", "orders"];
    let records = topics.map(|topic| Record::to(topic).partition(1).payload("{}"));
    let results = otel(&capture).send_batch(&producer(&cluster), records, PATIENCE).await;
    let offsets: Vec<i64> = results.iter().map(|result| result.as_ref().unwrap().offset).collect();
    assert_eq!(offsets, [0, 0, 1], "in their order");
    let sends = capture.spans().into_iter().filter(|span| span.name.starts_with("send"));
    let sends: Vec<_> = sends.map(|span| (span.name.to_string(), span.links.len())).collect();
    assert_eq!(sends, [("send orders".to_owned(), 2), ("send bills".to_owned(), 1)], "SPAN-18");
}

#[tokio::test]
async fn a_batch_that_fails_in_part_counts_each_record_as_what_became_of_it() {
    let (capture, cluster) = (Capture::new(), cluster());
    let records = [Record::to("orders").payload("1"), Record::to("orders").partition(77).payload("2")];
    let results = otel(&capture).send_batch(&producer(&cluster), records, PATIENCE).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
    assert_eq!(error_type(&capture), crate::error::error_type(RDKafkaErrorCode::UnknownPartition));
    let sent = "messaging.client.sent.messages";
    assert_eq!((counted(&capture, sent, false), counted(&capture, sent, true)), (1.0, 1.0), "METR-13");
}

#[tokio::test]
async fn an_empty_batch_is_nothing() {
    let (capture, cluster) = (Capture::new(), cluster());
    assert!(otel(&capture).send_batch(&producer(&cluster), Vec::<Record>::new(), PATIENCE).await.is_empty());
    assert!(capture.spans().is_empty());
}

#[tokio::test]
async fn golden_k_09_a_failure_has_the_name_of_the_protocol() {
    let (capture, cluster) = (Capture::new(), cluster());
    let producer: rdkafka::producer::FutureProducer = config(&cluster).set("retries", "0").create().unwrap();
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS];
    cluster.request_errors(RDKafkaApiKey::Produce, &refused);
    let result = otel(&capture).send(&producer, Record::to("orders").payload("{}"), PATIENCE).await;
    let failed = KafkaError::MessageProduction(RDKafkaErrorCode::NotEnoughReplicas);
    assert_eq!(result.unwrap_err().0, failed, "the client's own error is returned");
    assert_eq!(error_type(&capture), "NOT_ENOUGH_REPLICAS", "GOLD-K-09, ATTR-K-12");
}

#[tokio::test]
async fn golden_x_08_a_supplied_context_is_linked() {
    let (capture, cluster) = (Capture::new(), cluster());
    let trace = TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
    let span = SpanId::from_hex("00f067aa0ba902b7").unwrap();
    let supplied = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
    let otel = otel(&capture).with_creation_context(CreationContext::Given(supplied));
    otel.send(&producer(&cluster), Record::to("orders").payload("{}"), PATIENCE).await.unwrap();
    let (_, kind, links, _) = only(&capture);
    assert_eq!((kind, links), (SpanKind::Client, 1), "GOLD-X-08");
}

#[tokio::test]
async fn golden_x_09_a_forwarded_message_keeps_all_its_headers() {
    let (capture, cluster) = (Capture::new(), cluster());
    let producer = producer(&cluster);
    let mut strange = headers(&[("Traceparent", SUPPLIED), ("a", "1"), ("a", "2")]);
    raw_headers::append(&mut strange, b"\xff\xfe", Some(b"x"));
    raw_headers::append(&mut strange, b"null", None);
    let first = Record::to("orders").payload("{}").headers(strange);
    producer.send(first, PATIENCE).await.unwrap();

    let consumer = stream_consumer(&cluster);
    let arrived = consumer.recv().await.unwrap();
    let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to("bills").partition(0);
    (record.key, record.payload) = (arrived.key(), arrived.payload());
    record.headers = arrived.headers().map(BorrowedHeaders::detach);
    let forward = otel(&capture).with_creation_context(CreationContext::Kept);
    forward.send(&producer, record, PATIENCE).await.unwrap();
    let (_, kind, links, _) = only(&capture);
    assert_eq!((kind, links), (SpanKind::Client, 1), "GOLD-X-09, SPAN-37");

    let bills = stream_consumer(&cluster);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("bills", 0, Offset::Beginning).unwrap();
    bills.assign(&list).unwrap();
    let forwarded = bills.recv().await.unwrap();
    let all = |message: &rdkafka::message::BorrowedMessage<'_>| {
        let raw = raw_headers::iter(message.headers().unwrap());
        raw.map(|header| (header.name.to_owned(), header.value.map(<[u8]>::to_vec))).collect::<Vec<_>>()
    };
    assert_eq!(all(&forwarded), all(&arrived), "GOLD-X-09, PROP-K-05");
}

#[tokio::test]
async fn a_report_ends_the_span() {
    let (capture, cluster) = (Capture::new(), cluster());
    let producer = producer(&cluster);
    let report = otel(&capture).send_result(&producer, Record::to("orders").partition(0).payload("{}"));
    let report = report.map_err(|(failed, _)| failed).unwrap();
    assert!(capture.spans().is_empty(), "SPAN-35");
    let stored = report.await.unwrap().unwrap();
    assert_eq!(stored.offset, 0);
    assert_eq!(only(&capture).3, "destination.name=orders destination.partition.id=0 kafka.offset=0", "ATTR-K-05");
}

#[tokio::test]
async fn a_report_that_nobody_awaits_is_no_error() {
    let (capture, cluster) = (Capture::new(), cluster());
    let producer = producer(&cluster);
    drop(otel(&capture).send_result(&producer, Record::to("orders").payload("{}")));
    assert_eq!(only(&capture).0, "send orders");
    assert!(is_unset(&capture));
}

#[tokio::test]
async fn a_record_the_client_does_not_take_comes_back() {
    let (capture, cluster) = (Capture::new(), cluster());
    let producer: rdkafka::producer::FutureProducer =
        config(&cluster).set("message.max.bytes", "1000").create().unwrap();
    let body = "x".repeat(2000);
    let (failed, record) = otel(&capture).send_result(&producer, Record::to("orders").payload(&body)).err().unwrap();
    assert_eq!(failed.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    assert_eq!(record.payload, Some(body.as_str()));
    assert_eq!(error_type(&capture), "MESSAGE_TOO_LARGE", "ATTR-K-12");
}

#[tokio::test]
async fn a_dropped_send_is_cancelled() {
    let capture = Capture::new();
    let producer: rdkafka::producer::FutureProducer =
        ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").create().unwrap();
    let otel = otel(&capture);
    let sending = otel.send(&producer, Record::to("orders").payload("{}"), PATIENCE);
    assert!(futures_util::FutureExt::now_or_never(sending).is_none());
    assert_eq!(error_type(&capture), "cancelled", "STAT-09");
}

/// A context of the user's own, which keeps what it is told.
#[derive(Clone, Default)]
struct Orders(Arc<Mutex<Vec<(usize, bool)>>>);

impl ClientContext for Orders {}

impl ProducerContext for Orders {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, order: usize) {
        self.0.lock().unwrap().push((order, result.is_ok()));
    }
}

fn base_record(order: usize) -> BaseRecord<'static, str, str, usize> {
    BaseRecord::with_opaque_to("orders", order).partition(0).payload("{}")
}

#[test]
fn the_users_context_is_told_and_the_span_ends() {
    let (capture, cluster, orders) = (Capture::new(), cluster(), Orders::default());
    let context = ProducerTelemetry::new(orders.clone());
    let producer: BaseProducer<_> = config(&cluster).create_with_context(context).unwrap();
    otel(&capture).send_base(&producer, base_record(42)).map_err(|(failed, _)| failed).unwrap();
    assert!(capture.spans().is_empty(), "SPAN-35");
    producer.flush(PATIENCE).unwrap();
    assert_eq!(*orders.0.lock().unwrap(), [(42, true)]);
    assert_eq!(only(&capture).3, "destination.name=orders destination.partition.id=0 kafka.offset=0", "ATTR-K-05");
    assert!(is_unset(&capture));
    assert!(Arc::ptr_eq(&producer.context().context().0, &orders.0));
}

#[test]
fn a_threaded_producer_tells_it_too() {
    let (capture, cluster, orders) = (Capture::new(), cluster(), Orders::default());
    let context = ProducerTelemetry::new(orders.clone());
    let producer: ThreadedProducer<_> = config(&cluster).create_with_context(context).unwrap();
    otel(&capture).send_base(&producer, base_record(42)).map_err(|(failed, _)| failed).unwrap();
    producer.flush(PATIENCE).unwrap();
    drop(producer);
    assert_eq!((orders.0.lock().unwrap().len(), only(&capture).0.as_str()), (1, "send orders"));
}

/// A producer whose server is not there, so that its records wait.
/// A context of the user whose first delivery callback panics.
#[derive(Clone, Default)]
struct Clumsy(Arc<Mutex<Vec<usize>>>);

impl ClientContext for Clumsy {}

impl ProducerContext for Clumsy {
    type DeliveryOpaque = usize;

    fn delivery(&self, _result: &DeliveryResult<'_>, order: usize) {
        self.0.lock().unwrap().push(order);
        assert_ne!(order, 1, "on purpose");
    }
}

#[test]
fn a_callback_that_panics_does_not_end_the_producer() {
    let (cluster, capture, seen) = (cluster(), Capture::new(), Clumsy::default());
    let context = ProducerTelemetry::new(seen.clone());
    let producer: ThreadedProducer<_> = config(&cluster).create_with_context(context).unwrap();
    for order in [1, 2, 3] {
        otel(&capture).send_base(&producer, base_record(order)).map_err(|(failed, _)| failed).unwrap();
        producer.flush(PATIENCE).unwrap();
    }
    drop(producer);
    assert_eq!(*seen.0.lock().unwrap(), [1, 2, 3], "each is reported");
    assert_eq!(capture.spans().len(), 3, "each span has ended");
    assert!(is_unset(&capture));
}

fn unreachable(orders: &Orders) -> BaseProducer<ProducerTelemetry<Orders>> {
    let context = ProducerTelemetry::new(orders.clone());
    ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").create_with_context(context).unwrap()
}

#[test]
fn a_purged_record_is_a_failed_one() {
    let (capture, orders) = (Capture::new(), Orders::default());
    let producer = unreachable(&orders);
    otel(&capture).send_base(&producer, base_record(42)).map_err(|(failed, _)| failed).unwrap();
    producer.purge(PurgeConfig::default().queue().inflight());
    producer.flush(PATIENCE).unwrap();
    assert_eq!(*orders.0.lock().unwrap(), [(42, false)]);
    assert_eq!(error_type(&capture), crate::error::error_type(RDKafkaErrorCode::PurgeQueue));
}

#[test]
fn a_dropped_producer_leaves_no_span_open() {
    let (capture, orders) = (Capture::new(), Orders::default());
    let producer = unreachable(&orders);
    otel(&capture).send_base(&producer, base_record(42)).map_err(|(failed, _)| failed).unwrap();
    drop(producer);
    assert_eq!(*orders.0.lock().unwrap(), [(42, false)]);
    assert_eq!(error_type(&capture), crate::error::error_type(RDKafkaErrorCode::PurgeQueue), "STAT-09");
}

#[test]
fn a_base_record_the_client_does_not_take_comes_back() {
    let (capture, orders) = (Capture::new(), Orders::default());
    let producer = unreachable(&orders);
    let body = "x".repeat(2_000_000);
    let record = BaseRecord { payload: Some(body.as_str()), ..base_record(42) };
    let (failed, record) = otel(&capture).send_base(&producer, record).unwrap_err();
    assert_eq!(failed.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    assert_eq!(record.delivery_opaque, 42, "with the user's own opaque");
    assert_eq!(error_type(&capture), "MESSAGE_TOO_LARGE", "ATTR-K-12");
}

fn sorted(shown: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = shown.split(' ').collect();
    parts.sort_unstable();
    parts
}
