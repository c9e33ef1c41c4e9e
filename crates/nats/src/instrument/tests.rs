//! On a client that waits for a server which is not there: it takes what is published, and tells nothing.

use std::convert::Infallible;
use std::time::Duration;

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::AckKind;
use async_nats::jetstream::{ContextBuilder, Message as StreamMessage};
use async_nats::{Client, ConnectOptions, HeaderMap, Message, Request, RequestErrorKind};
use opentelemetry::Value;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use throughline_core::CurrentBaggage;
use throughline_core::message::CreationContext;
use throughline_core::telemetry::{ParentMode, SettleSpans, Trust};
use throughline_testing::{Capture, attributes};

use super::Instrumentation;
use crate::{Stream, Subject};

const SUPPLIED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn client() -> Client {
    ConnectOptions::new().retry_on_initial_connect().connect("127.0.0.1:1").await.unwrap()
}

fn otel(capture: &Capture) -> Instrumentation {
    capture.instrumentation().settle_spans(SettleSpans::Always).build().into()
}

fn message(subject: &str, reply: Option<&str>, headers: &[(&str, &str)]) -> Message {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Message {
        subject: subject.into(),
        reply: reply.map(Into::into),
        payload: "{}".into(),
        headers: (!headers.is_empty()).then(|| HeaderMap::from_iter(headers)),
        status: None,
        description: None,
        length: 2,
    }
}

async fn stored(subject: &str, headers: &[(&str, &str)]) -> StreamMessage {
    let context = ContextBuilder::new().timeout(Duration::from_millis(20)).build(client().await);
    let ack = "$JS.ACK.ORDERS.dur.1.42.1.1700000000000000000.0";
    StreamMessage { message: message(subject, Some(ack), headers), context }
}

/// The only span: its name, kind and links, and its complete attributes without those that every NATS span has.
fn only(capture: &Capture) -> (String, SpanKind, usize, String) {
    let spans = capture.spans();
    assert_eq!(spans.len(), 1, "{spans:#?}");
    let span = &spans[0];
    let set = attributes(&span.attributes);
    assert_eq!(set["messaging.system"].as_str(), "nats", "ATTR-S-03");
    let common = ["messaging.system", "messaging.operation.name", "messaging.operation.type"];
    let own = set.iter().filter(|(key, _)| !common.contains(key));
    let shown: Vec<_> = own.map(|(key, value)| format!("{}={value}", key.trim_start_matches("messaging."))).collect();
    (span.name.to_string(), span.span_kind.clone(), span.links.len(), shown.join(" "))
}

fn error_type(capture: &Capture) -> String {
    let spans = capture.spans();
    let span = spans.first().unwrap();
    assert!(matches!(span.status, Status::Error { .. }), "STAT-02");
    attributes(&span.attributes)["error.type"].to_string()
}

fn is_unset(capture: &Capture) -> bool {
    capture.spans().iter().all(|span| span.status == Status::Unset)
}

#[tokio::test]
async fn golden_n_01_publish() {
    let capture = Capture::new();
    otel(&capture).publish(&client().await, "orders.42", "{}".into()).await.unwrap();
    let expected = ("publish orders.42".to_owned(), SpanKind::Producer, 0, "destination.name=orders.42".to_owned());
    assert_eq!(only(&capture), expected, "GOLD-N-01");
    assert!(is_unset(&capture), "STAT-01");
}

#[tokio::test]
async fn what_the_user_says_about_the_connection_is_on_the_span() {
    let capture = Capture::new();
    let otel = otel(&capture).with_server("localhost", 4222).with_client_id("stock").with_template("orders.{id}");
    otel.publish(&client().await, "orders.42", "{}".into()).await.unwrap();
    let (name, _, _, shown) = only(&capture);
    assert_eq!(name, "publish orders.{id}", "ATTR-N-03");
    let expected = "client.id=stock destination.name=orders.42 destination.template=orders.{id} \
                    server.address=localhost server.port=4222";
    assert_eq!(shown, expected, "ATTR-N-07, ATTR-C-11, ATTR-C-12");
}

#[tokio::test]
async fn golden_n_03_a_reply_goes_to_an_inbox() {
    let capture = Capture::new();
    otel(&capture).publish(&client().await, "_INBOX.a.b", "{}".into()).await.unwrap();
    let (name, kind, _, shown) = only(&capture);
    assert_eq!((name.as_str(), kind), ("publish _INBOX", SpanKind::Producer), "GOLD-N-03");
    let expected = "destination.anonymous=true destination.name=_INBOX.a.b destination.template=_INBOX \
                    destination.temporary=true";
    assert_eq!(shown, expected, "ATTR-N-04");
}

#[tokio::test]
async fn an_inbox_prefix_of_the_clients_own_is_known() {
    let capture = Capture::new();
    let options = ConnectOptions::new().retry_on_initial_connect().custom_inbox_prefix("svc.inbox");
    let client = options.connect("127.0.0.1:1").await.unwrap();
    otel(&capture).publish(&client, client.new_inbox(), "{}".into()).await.unwrap();
    otel(&capture).with_client(&client).process(&message("svc.inbox.a", None, &[]), async {}).await;
    let names: Vec<_> = capture.spans().iter().map(|span| span.name.to_string()).collect();
    assert_eq!(names, ["publish svc.inbox", "process svc.inbox"], "ATTR-N-04, SPAN-19");
}

#[tokio::test]
async fn ids_are_read_from_the_headers() {
    let capture = Capture::new();
    let headers = HeaderMap::from_iter([
        ("Nats-Msg-Id".parse().unwrap(), "m1".parse().unwrap()),
        ("correlation-id".parse().unwrap(), "c1".parse().unwrap()),
    ]);
    otel(&capture).publish_with_headers(&client().await, "orders", headers, "{}".into()).await.unwrap();
    let expected = "destination.name=orders message.conversation_id=c1 message.id=m1";
    assert_eq!(only(&capture).3, expected, "ATTR-N-06, ATTR-N-08");
}

#[tokio::test]
async fn golden_x_08_a_supplied_context_is_linked() {
    let capture = Capture::new();
    let trace = TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
    let span = SpanId::from_hex("00f067aa0ba902b7").unwrap();
    let supplied = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
    let otel = otel(&capture).with_creation_context(CreationContext::Given(supplied));
    otel.publish(&client().await, "orders", "{}".into()).await.unwrap();
    let (_, kind, links, _) = only(&capture);
    assert_eq!((kind, links), (SpanKind::Client, 1), "GOLD-X-08");
}

#[tokio::test]
async fn golden_x_09_a_forwarded_message_keeps_its_context() {
    let capture = Capture::new();
    let headers = message("orders", None, &[("Traceparent", SUPPLIED)]).headers.unwrap();
    let otel = otel(&capture).with_creation_context(CreationContext::Kept);
    otel.publish_with_headers(&client().await, "orders.dead", headers, "{}".into()).await.unwrap();
    let (_, kind, links, _) = only(&capture);
    assert_eq!((kind, links), (SpanKind::Client, 1), "GOLD-X-09, SPAN-37");
}

#[tokio::test]
async fn what_the_client_refuses_has_the_error_types_of_attr_n_10() {
    let capture = Capture::new();
    let (otel, client) = (otel(&capture), client().await);
    otel.publish(&client, "a b", "{}".into()).await.unwrap_err();
    assert_eq!(error_type(&capture), "invalid_subject", "ATTR-N-10");
    capture.reset();
    otel.publish_with_reply(&client, "orders", "a b", "{}".into()).await.unwrap_err();
    assert_eq!(error_type(&capture), "invalid_subject", "ATTR-N-10");
    capture.reset();
    let request = Request::new().timeout(Some(Duration::from_millis(1)));
    let failed = otel.send_request(&client, "prices", request).await.unwrap_err();
    assert_eq!(failed.kind(), RequestErrorKind::TimedOut, "the client's own error is returned");
    assert_eq!(error_type(&capture), "timeout", "ATTR-N-10, SPAN-36");
    assert_eq!(only(&capture).0, "request prices", "SPAN-09");
}

#[tokio::test]
async fn a_stream_publish_lasts_until_the_answer() {
    let capture = Capture::new();
    let context = stored("orders", &[]).await.context;
    let ack = otel(&capture).publish(&context, "orders", "{}".into()).await.unwrap();
    assert!(capture.spans().is_empty(), "SPAN-35");
    assert_eq!(ack.await.unwrap_err().kind(), PublishErrorKind::TimedOut);
    assert_eq!(error_type(&capture), "timeout", "ATTR-J-07");
}

#[tokio::test]
async fn an_answer_that_nobody_awaits_is_no_error() {
    let capture = Capture::new();
    let context = stored("orders", &[]).await.context;
    drop(otel(&capture).publish(&context, "orders", "{}".into()).await.unwrap());
    assert_eq!(only(&capture).0, "publish orders");
    assert!(is_unset(&capture));
    let failed = otel(&capture).publish(&context, "a b", "{}".into()).await.unwrap_err();
    assert_eq!(failed.kind(), PublishErrorKind::Other);
    let tree = capture.tree();
    let refused = attributes(&tree.find("publish a b").attributes);
    assert_eq!(refused["error.type"].as_str(), "invalid_subject", "ATTR-N-10");
}

#[tokio::test]
async fn golden_n_02_process_through_a_wildcard() {
    let capture = Capture::new();
    let orders = otel(&capture).subscription(Subject::new("orders.*").queue_group("g"));
    let supplied = message("orders.42", None, &[("traceparent", SUPPLIED)]);
    let answer = orders.process(&supplied, async { Ok::<_, Infallible>(42) }).await;
    assert_eq!(answer, Ok(42));
    let expected = "consumer.group.name=g destination.name=orders.42 destination.template=orders.*";
    assert_eq!(
        only(&capture),
        ("process orders.*".to_owned(), SpanKind::Consumer, 1, expected.to_owned()),
        "GOLD-N-02"
    );
    assert_eq!(capture.spans()[0].parent_span_id.to_string(), "00f067aa0ba902b7", "LINK-06");
}

// SPAN-17, SPAN-20: what was subscribed to is not known, so the subject may be one of many.
#[tokio::test]
async fn without_a_subscription_only_a_template_counts() {
    let capture = Capture::new();
    otel(&capture).process(&message("orders.42", None, &[]), async {}).await;
    let expected = ("process".to_owned(), SpanKind::Consumer, 0, "destination.name=orders.42".to_owned());
    assert_eq!(only(&capture), expected);
    let is_named =
        |metric: &throughline_testing::MetricPoint| metric.attributes.contains_key("messaging.destination.name");
    assert!(!capture.metrics().iter().any(is_named), "METR-06");
    capture.reset();
    let otel = otel(&capture).with_template("orders.{id}");
    otel.process(&message("orders.42", None, &[]), async {}).await;
    assert_eq!(only(&capture).0, "process orders.{id}", "ATTR-N-02");
    capture.reset();
    otel.process(&message("bills.42", None, &[]), async {}).await;
    assert_eq!(only(&capture).0, "process");
}

// SPAN-20, ATTR-J-04: of several filters the one that matched, of none the operation alone.
#[tokio::test]
async fn a_message_of_a_consumer_with_several_filters_is_shown_by_the_one_it_matched() {
    let several = || Stream::new("ORDERS").durable("dur").filter("orders.>").filter("bills.*").filter("audit");
    for (subject, name) in [
        ("orders.1", "process orders.>"),
        ("orders.2", "process orders.>"),
        ("bills.1", "process bills.*"),
        ("audit", "process audit"),
        ("others.1", "process"),
    ] {
        let capture = Capture::new();
        let orders = otel(&capture).subscription(several());
        orders.process(&stored(subject, &[]).await, async {}).await;
        assert_eq!(only(&capture).0, name);
        capture.reset();
        let all = otel(&capture).subscription(Stream::new("ORDERS").durable("dur"));
        all.process(&stored(subject, &[]).await, async {}).await;
        assert_eq!(only(&capture).0, "process", "{subject}, without a filter");
    }
}

// SPAN-19, METR-09: an inbox prefix that nobody knows of.
#[tokio::test]
async fn an_answer_to_the_message_being_handled_has_no_name_of_its_own() {
    let capture = Capture::new();
    let (otel, client) = (otel(&capture), client().await);
    let prices = otel.subscription(Subject::new("prices"));
    for address in ["acme.replies.RhSk1", "acme.replies.RhSk2"] {
        let request = message("prices", Some(address), &[]);
        let answer = async { otel.publish(&client, request.reply.clone().unwrap(), "42".into()).await.unwrap() };
        prices.process(&request, answer).await;
    }
    let names: Vec<_> = capture.spans().into_iter().map(|span| span.name.to_string()).collect();
    assert_eq!(names, ["publish", "process prices", "publish", "process prices"]);
    let spans = capture.spans();
    let marked =
        spans.iter().filter_map(|span| throughline_testing::attribute(span, "messaging.destination.temporary"));
    assert_eq!(marked.collect::<Vec<_>>(), [&true.into(), &true.into()], "ATTR-C-20");
}

#[tokio::test]
async fn golden_j_01_process_of_a_consumer() {
    let capture = Capture::new();
    let orders = otel(&capture).subscription(Stream::new("ORDERS").durable("dur").filter("orders.>"));
    orders.process(&stored("orders.42", &[("traceparent", SUPPLIED)]).await, async {}).await;
    let expected = "destination.name=orders.42 destination.subscription.name=dur destination.template=orders.>";
    assert_eq!(
        only(&capture),
        ("process orders.>".to_owned(), SpanKind::Consumer, 1, expected.to_owned()),
        "GOLD-J-01"
    );
}

#[tokio::test]
async fn the_consumer_is_known_from_the_message() {
    let capture = Capture::new();
    otel(&capture).record_stream_position().process(&stored("orders.42", &[]).await, async {}).await;
    let expected = "destination.name=orders.42 destination.subscription.name=dur nats.sequence=42 nats.stream=ORDERS";
    assert_eq!(only(&capture).3, expected, "ATTR-J-02, ATTR-J-08");
}

#[tokio::test]
async fn golden_x_04_an_error_marks_the_span_and_is_returned() {
    let capture = Capture::new();
    let failed = otel(&capture).process(&message("orders", None, &[]), async { "x".parse::<u8>() }).await;
    assert!(failed.is_err());
    assert_eq!(error_type(&capture), "core::num::error::ParseIntError", "GOLD-X-04");
}

#[tokio::test]
async fn a_batch_has_one_span_and_the_baggage_of_all() {
    let capture = Capture::new();
    let orders = otel(&capture).subscription(Subject::new("orders.*"));
    let one = message("orders.1", None, &[("traceparent", SUPPLIED), ("baggage", "tenant=acme")]);
    let two = message("orders.2", None, &[("baggage", "region=eu")]);
    let processing = orders.start_batch(&[&one, &two]);
    assert_eq!(processing.get("tenant").as_deref(), Some("acme"), "BAGG-12");
    assert_eq!(processing.scope().messages()[1].get("region").as_deref(), Some("eu"));
    processing.run(async {}).await;
    let expected = "batch.message_count=2 destination.template=orders.*";
    assert_eq!(only(&capture), ("process orders.*".to_owned(), SpanKind::Consumer, 1, expected.to_owned()), "LINK-16");
}

#[tokio::test]
async fn golden_j_03_settlements_are_children_of_the_process_span() {
    let orders_42 = stored("orders.42", &[]).await;
    for (kind, name) in [
        (AckKind::Ack, "ack orders.>"),
        (AckKind::Nak(Some(Duration::from_secs(1))), "nak orders.>"),
        (AckKind::Term, "term orders.>"),
        (AckKind::Next, "ack orders.>"),
    ] {
        let delay = matches!(kind, AckKind::Nak(_)).then_some(1.0);
        let capture = Capture::new();
        let orders = otel(&capture).subscription(Stream::new("ORDERS").durable("dur").filter("orders.>"));
        orders.process(&orders_42, async { orders.ack_with(&orders_42, kind).await.unwrap() }).await;
        let tree = capture.tree();
        let settle = tree.find(name);
        assert_eq!(tree.parent(settle).map(|span| span.name.as_ref()), Some("process orders.>"), "GOLD-J-03, LINK-12");
        assert_eq!(settle.span_kind, SpanKind::Client, "SPAN-06");
        let mut set = attributes(&settle.attributes);
        assert_eq!(set["messaging.destination.subscription.name"].as_str(), "dur", "ATTR-J-02");
        assert_eq!(set.remove("throughline.retry.delay"), delay.map(Value::F64));
        assert_eq!(set.len(), 6, "{set:?}");
    }
}

#[tokio::test]
async fn progress_settles_nothing() {
    let capture = Capture::new();
    let orders = otel(&capture).subscription(Stream::new("ORDERS").durable("dur"));
    orders.ack_with(&stored("orders", &[]).await, AckKind::Progress).await.unwrap();
    assert!(capture.spans().is_empty(), "SPAN-34");
}

#[tokio::test]
async fn a_plain_ack_has_no_span_by_default_and_a_failed_one_has() {
    let capture = Capture::new();
    let otel = Instrumentation::from(capture.instrumentation().build());
    let message = stored("orders", &[]).await;
    otel.ack(&message).await.unwrap();
    assert!(capture.spans().is_empty(), "SPAN-32");
    otel.double_ack(&message).await.unwrap_err();
    let (name, ..) = only(&capture);
    assert_eq!((name.as_str(), error_type(&capture).as_str()), ("ack", "timeout"), "ATTR-J-06");
}

#[tokio::test]
async fn a_pull_that_gets_a_message_is_received_once() {
    let capture = Capture::new();
    let orders = otel(&capture).subscription(Subject::new("orders.*"));
    let one = message("orders.1", None, &[("traceparent", SUPPLIED)]);
    let mut messages = futures_util::stream::iter([one]);
    let taken = orders.next(&mut messages).await.unwrap();
    let expected = "destination.name=orders.1 destination.template=orders.*";
    assert_eq!(only(&capture), ("receive orders.*".to_owned(), SpanKind::Client, 1, expected.to_owned()), "GOLD-X-10");
    assert!(orders.next(&mut messages).await.is_none());
    orders.process(&taken, async {}).await;
    let consumed = capture.metrics().into_iter().filter(|metric| metric.name == "messaging.client.consumed.messages");
    assert_eq!(consumed.map(|metric| metric.sum).sum::<f64>(), 1.0, "METR-14");
}

#[tokio::test]
async fn the_futures_can_be_spawned() {
    let capture = Capture::new();
    let (otel, client, message) = (otel(&capture), client().await, stored("orders", &[]).await);
    let orders = otel.subscription(Subject::new("orders"));
    let work = async move {
        otel.publish(&client, "orders", "{}".into()).await.unwrap();
        drop(otel.publish(&message.context, "orders", "{}".into()).await.unwrap());
        orders.process(&message, async { tokio::task::yield_now().await }).await;
        orders.process_batch(std::slice::from_ref(&message), async {}).await;
        orders.ack(&message).await.unwrap();
    };
    tokio::spawn(work).await.unwrap();
    assert_eq!(capture.spans().len(), 4);
}

#[tokio::test]
async fn what_the_server_would_close_the_connection_for_is_an_error_before_it_is_sent() {
    let capture = Capture::new();
    let client = client().await;
    let context = async_nats::jetstream::new(client.clone());
    let otel = otel(&capture);
    let long = "a".repeat(5000);
    let bad = [long.as_str(), "a b", "a.*", "a..b", "a\u{0}b", ""];
    for subject in bad.map(async_nats::Subject::from) {
        let failed = otel.publish(&client, subject.clone(), "{}".into()).await.unwrap_err();
        assert_eq!(failed.kind(), async_nats::PublishErrorKind::InvalidSubject, "{subject:?}");
        let failed = otel.publish_with_reply(&client, "orders", subject.clone(), "{}".into()).await.unwrap_err();
        assert_eq!(failed.kind(), async_nats::PublishErrorKind::InvalidSubject, "{subject:?}");
        let failed = otel.request(&client, subject.clone(), "{}".into()).await.unwrap_err();
        assert_eq!(failed.kind(), RequestErrorKind::InvalidSubject, "{subject:?}");
        assert!(otel.publish(&context, subject.clone(), "{}".into()).await.is_err(), "{subject:?}");
    }
    // Each subject goes with a reply subject of its own, and both stand on one line.
    let half = async_nats::Subject::from("a".repeat(2500));
    assert!(otel.publish(&client, half.clone(), "{}".into()).await.is_ok());
    assert!(otel.publish_with_reply(&client, half.clone(), half.clone(), "{}".into()).await.is_err());
    assert!(otel.with_max_control_line(8192).publish(&client, long.clone(), "{}".into()).await.is_ok());

    let failed = capture.spans().into_iter().filter(|span| span.status != Status::Unset).collect::<Vec<_>>();
    assert_eq!(failed.len(), bad.len() * 4 + 1);
    let types = failed.iter().flat_map(|span| span.attributes.iter().filter(|pair| pair.key.as_str() == "error.type"));
    assert!(types.clone().all(|pair| pair.value.as_str() == "invalid_subject"), "ATTR-N-10");
    assert_eq!(types.count(), failed.len());
}

fn status(subject: &str) -> Message {
    let status = Some(async_nats::StatusCode::NO_RESPONDERS);
    Message { status, payload: Default::default(), ..message(subject, None, &[]) }
}

#[tokio::test]
async fn a_batch_of_an_unknown_subscription_is_shown_as_its_first_message() {
    let capture = Capture::new();
    let otel = otel(&capture);
    let one = stored("orders.1", &[("traceparent", SUPPLIED)]).await;
    otel.process_batch(&[&one, &one], async {}).await;
    let expected = "batch.message_count=2 destination.name=orders.1 destination.subscription.name=dur";
    assert_eq!(only(&capture), ("process".to_owned(), SpanKind::Consumer, 2, expected.to_owned()), "LINK-16");
}

#[tokio::test]
async fn parent_and_trust_hold_for_each_subscription() {
    let capture = Capture::new();
    let one = message("orders.1", None, &[("traceparent", SUPPLIED)]);
    let linked = otel(&capture).with_parent_mode(ParentMode::LinkOnly);
    linked.subscription(Subject::new("orders.*")).process(&one, async {}).await;
    let span = capture.spans().remove(0);
    assert_eq!((span.parent_span_id, span.links.len()), (SpanId::INVALID, 1), "LINK-10");
    capture.reset();
    otel(&capture).with_trust(Trust::Ignore).process(&one, async {}).await;
    let span = capture.spans().remove(0);
    assert_eq!((span.parent_span_id, span.links.len()), (SpanId::INVALID, 0), "PROP-22");
}

// METR-04: nothing was delivered.
#[tokio::test]
async fn a_status_of_the_server_is_processed_without_a_span() {
    let capture = Capture::new();
    let otel = otel(&capture);
    let orders = otel.subscription(Subject::new("orders.*"));
    let status = status("orders.1");
    for result in [Ok(42), Err("no")] {
        assert_eq!(orders.process(&status, async { result }).await, result);
        assert_eq!(otel.process(&status, async { result }).await, result);
        assert_eq!(orders.process_batch(&[&status, &status], async { result }).await, result);
        assert_eq!(orders.start(&status).run(async { result }).await, result);
        assert_eq!(otel.start_batch(&[&status]).run(async { result }).await, result);
    }
    assert!(capture.spans().is_empty() && capture.metrics().is_empty());

    let one = message("orders.2", None, &[("traceparent", SUPPLIED)]);
    orders.process_batch(&[&status, &one], async {}).await;
    let (name, _, links, attributes) = only(&capture);
    assert_eq!((name.as_str(), links), ("process orders.*", 1));
    assert!(attributes.contains("batch.message_count=1"), "ATTR-C-07: {attributes}");
    let with_a_body = Message { status: status.status, ..one };
    capture.reset();
    orders.process(&with_a_body, async {}).await;
    assert_eq!(capture.spans().len(), 1, "whatever its first line says, it is a message");
}
