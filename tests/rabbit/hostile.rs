//! What strangers may send over a real server: names and values of any bytes, fields of any type, and headers of any size.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, DecimalValue, FieldTable};
use lapin::{BasicProperties, Consumer};
use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_sdk::trace::{Sampler, SpanData};
use throughline_core::extract::Baggage;
use throughline_core::telemetry::SettleSpans;
use throughline_core::{App, CurrentBaggage, Handler, Headers, Settlement, serve};
use throughline_rabbit::{Instrumentation, Queue};
use throughline_testing::conformance::hostile::{MARKER, check, small_corpus};
use throughline_testing::conformance::{Given, HeaderSet, Stranger, Strangers};
use throughline_testing::{Capture, attribute};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::harness::Queues;
use crate::server::{self, PATIENCE, Plain, unique};
use crate::wire::{Answer, Properties, Wire, field, long};

/// The most bytes of headers in a set that is tried: a handler copies them, and both it and the server add some.
const ROOM: usize = 120_000;

/// How many generated sets the raw door takes.
const SOME: usize = 1_800;

/// A program of somebody else: writes what no client does.
pub(crate) struct Outsider {
    wire: Mutex<Wire>,
    sets: AtomicUsize,
}

impl Outsider {
    pub(crate) async fn connect(url: &str) -> Self {
        Self { wire: Mutex::new(Wire::connect(url).await), sets: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl Stranger for Outsider {
    /// Values are long strings in one set and byte arrays in the next one.
    async fn send(&self, destination: &str, set: &HeaderSet, body: Bytes) -> Given {
        let kind = if self.sets.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { b'S' } else { b'x' };
        if set.headers.iter().any(|(name, _)| name.len() > 255) {
            return Given::Refused;
        }
        if set.headers.iter().any(|(name, _)| std::str::from_utf8(name).is_err()) {
            return Given::HeldBack;
        }
        let fields: Vec<u8> = set.headers.iter().flat_map(|(name, value)| field(name, kind, &long(value))).collect();
        if fields.len() > ROOM {
            return Given::Refused;
        }
        let names: BTreeSet<_> = set.headers.iter().map(|(name, _)| name).collect();
        let given = if names.len() == set.headers.len() { Given::AsItIs } else { Given::ByHand };
        match self.wire.lock().await.publish(destination, &Properties::headers(&fields), &body).await {
            Answer::Stored => given,
            answer => panic!("the server takes any string, and refuses one of {}: {answer:?}", set.class),
        }
    }

    /// What the server writes; it knows names by their exact letters.
    fn is_reserved(&self, name: &str) -> bool {
        ["x-death", "x-delivery-count", "x-acquired-count", "x-stream-offset", "CC", "BCC"].contains(&name)
            || ["x-first-death-", "x-last-death-"].iter().any(|start| name.starts_with(start))
    }

    /// The client logs frames on level trace.
    fn client_log_targets(&self) -> &'static [&'static str] {
        &["lapin"]
    }
}

#[async_trait]
impl Strangers for Queues {
    async fn stranger(&self) -> Box<dyn Stranger> {
        Box::new(Outsider::connect(&self.url).await)
    }
}

mod sets {
    use super::Queues;
    throughline_testing::conformance_hostile!(
        Queues,
        ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"
    );
}

/// The raw door, one message after the other: a handler publishes one of its own and one with the headers it was given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn no_headers_of_strangers_can_hurt_the_raw_door() {
    let both = Both::start().await;
    let (capture, channel) = (Capture::with_sampler(Sampler::AlwaysOn), &both.plain.channel);
    let otel = Instrumentation::from(capture.instrumentation().settle_spans(SettleSpans::Always).build());
    let telemetry = otel.subscription(Queue::new(both.inlet.as_str()));
    let (mut messages, mut passed_on) = (both.consume(&both.inlet).await, both.consume(&both.outlet).await);
    let (stranger, mut handled) = (Outsider::connect(&server::url()).await, 0);
    for (number, set) in small_corpus(SOME).iter().enumerate() {
        let given = stranger.send(&both.inlet, set, number.to_string().into()).await;
        if matches!(given, Given::HeldBack | Given::Refused) {
            continue;
        }
        let message = next(&mut messages).await;
        let forward = async {
            for properties in [BasicProperties::default(), message.properties.clone()] {
                let (to, options) = (both.outlet.as_str().into(), BasicPublishOptions::default());
                otel.basic_publish(channel, "".into(), to, options, &message.data, properties).await?.await?;
            }
            Ok::<(), lapin::Error>(())
        };
        let done = telemetry.process(&message, forward).await;
        done.unwrap_or_else(|failed| panic!("{number}, {}: {failed}", set.class));
        telemetry.basic_ack(channel, message.delivery_tag, BasicAckOptions::default()).await.expect("a settlement");
        let (own, copy) = (next(&mut passed_on).await, next(&mut passed_on).await);
        assert_eq!([&own.data, &copy.data], [number.to_string().as_bytes(); 2]);
        if let Err(why) = check(set, given, &headers_of(&own), &headers_of(&copy)) {
            panic!("{number}, {}: {why}\n{:?}", set.class, set.headers);
        }
        handled += 1;
        let spans = capture.spans();
        let kinds: Vec<_> = spans.iter().map(|span| span.span_kind.clone()).collect();
        assert_eq!(kinds, [SpanKind::Producer, SpanKind::Producer, SpanKind::Consumer, SpanKind::Client], "{number}");
        assert!(spans.iter().all(|span| span.status == Status::Unset), "{number}: {spans:?}");
        let mut attributes = spans.iter().flat_map(|span| &span.attributes);
        assert!(!attributes.any(|attribute| attribute.value.as_str().contains(MARKER)), "BAGG-13: {number}");
        capture.reset();
    }
    assert!(handled > SOME, "only {handled} sets could be tried");
    both.stop().await;
}

/// The strings of a message's headers.
fn headers_of(message: &Delivery) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in message.properties.headers().iter().flatten() {
        let value = match value {
            AMQPValue::LongString(text) => text.as_bytes(),
            AMQPValue::ByteArray(bytes) => bytes.as_slice(),
            _ => continue,
        };
        headers.append(name.as_str().to_owned(), Bytes::copy_from_slice(value));
    }
    headers
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SPAN: &str = "00f067aa0ba902b7";

/// A message with propagation headers of some types, and what is read of them.
struct Typed {
    id: String,
    headers: FieldTable,
    continues: bool,
    tenant: Option<&'static str>,
}

/// PROP-R-03 to -05, -08: each propagation header with each type that is no string, beside good ones; and all three in bytes.
fn typed() -> Vec<Typed> {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let bytes = |bytes: &[u8]| AMQPValue::ByteArray(bytes.into());
    let good = [("traceparent", PARENT), ("tracestate", "a=1"), ("baggage", "tenant=acme")];
    let mut all = Vec::new();
    for (name, value) in good {
        let mut table = FieldTable::default();
        table.insert(name.into(), text(value));
        let odd = [
            ("array", AMQPValue::FieldArray(vec![text(value)].into())),
            ("bool", AMQPValue::Boolean(true)),
            ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 })),
            ("double", AMQPValue::Double(0.5)),
            ("f32", AMQPValue::Float(0.5)),
            ("i16", AMQPValue::ShortInt(-1)),
            ("i32", AMQPValue::LongInt(i32::MIN)),
            ("i64", AMQPValue::LongLongInt(i64::MIN)),
            ("i8", AMQPValue::ShortShortInt(-1)),
            ("not utf8", bytes(&[value.as_bytes(), b"\xff"].concat())),
            ("table", AMQPValue::FieldTable(table)),
            ("time", AMQPValue::Timestamp(u64::MAX)),
            ("u16", AMQPValue::ShortUInt(u16::MAX)),
            ("u32", AMQPValue::LongUInt(u32::MAX)),
            ("u8", AMQPValue::ShortShortUInt(u8::MAX)),
            ("void", AMQPValue::Void),
        ];
        for (kind, odd) in odd {
            let mut headers = FieldTable::default();
            for (other, value) in good {
                headers.insert(other.into(), if other == name { odd.clone() } else { text(value) });
            }
            let tenant = (name != "baggage").then_some("acme");
            all.push(Typed { id: format!("{name} {kind}"), headers, continues: name != "traceparent", tenant });
        }
    }
    let mut headers = FieldTable::default();
    for (name, value) in good {
        headers.insert(name.into(), bytes(value.as_bytes()));
    }
    all.push(Typed { id: "bytes".to_owned(), headers, continues: true, tenant: Some("acme") });
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), bytes(&[&[0; 2][..], &[1; 16], &[2; 8], &[1; 3]].concat()));
    all.push(Typed { id: "binary".to_owned(), headers, continues: false, tenant: None });
    all
}

/// Whether a process span is that of a message with these headers.
fn check_span(span: &SpanData, typed: &Typed) {
    let (trace, parent) = (span.span_context.trace_id().to_string(), span.parent_span_id);
    if typed.continues {
        assert_eq!((trace.as_str(), parent.to_string().as_str()), (TRACE, SPAN), "PROP-R-03: {}", typed.id);
    } else {
        assert!(trace != TRACE && parent == SpanId::INVALID && span.links.is_empty(), "PROP-R-04: {}", typed.id);
    }
    assert_eq!(span.status, Status::Unset, "{}", typed.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn propagation_headers_are_strings_or_bytes_and_all_else_is_ignored_by_the_framework() {
    let (both, capture) = (Both::start().await, Capture::new());
    let (seen, mut handled) = mpsc::unbounded_channel();
    let handle = move |delivery: throughline_core::Delivery, baggage: Baggage| {
        let id = delivery.id().expect("an id").to_owned();
        seen.send((id, baggage.get("tenant"))).expect("the test listens");
        async {}
    };
    let app = App::new().telemetry(capture.instrumentation().build());
    let app = app.subscribe(Queue::new(both.inlet.as_str()).no_declare(), handle);
    let running = serve(server::connect().await, app).start().await.expect("the app starts");
    let mut tenants = BTreeMap::new();
    let all = typed();
    for typed in &all {
        both.publish(typed).await;
        let (id, tenant) = timeout(PATIENCE, handled.recv()).await.expect("a message in time").expect("the app lives");
        tenants.insert(id, tenant);
    }
    running.shutdown().await.expect("an end");
    let spans = capture.spans();
    assert_eq!(spans.len(), all.len(), "each was handled once");
    for (span, typed) in spans.iter().zip(&all) {
        check_span(span, typed);
        assert_eq!(tenants[&typed.id].as_deref(), typed.tenant, "{}", typed.id);
    }
    both.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn propagation_headers_are_strings_or_bytes_and_all_else_is_ignored_by_the_raw_door() {
    let (both, capture) = (Both::start().await, Capture::new());
    let otel = Instrumentation::from(capture.instrumentation().build());
    let telemetry = otel.subscription(Queue::new(both.inlet.as_str()));
    let mut messages = both.consume(&both.inlet).await;
    for typed in typed() {
        both.publish(&typed).await;
        let message = next(&mut messages).await;
        let tenant = async { Ok::<_, Infallible>(Baggage::current().get("tenant")) };
        let Ok(tenant) = telemetry.process(&message, tenant).await;
        assert_eq!(tenant.as_deref(), typed.tenant, "{}", typed.id);
        check_span(&capture.spans()[0], &typed);
        capture.reset();
    }
    both.stop().await;
}

/// The server takes no message with a type that it does not know, so none can reach a consumer.
#[tokio::test]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn the_server_refuses_short_strings_and_unknown_types_in_headers() {
    let (both, mut wire) = (Both::start().await, Wire::connect(&server::url()).await);
    let nan = f64::NAN.to_be_bytes();
    let refused: [(u8, &[u8]); 5] =
        [(b'_', b"\x04text"), (b's', b"\x04text"), (b'U', b"\0\x01"), (b'Z', b""), (b'd', &nan)];
    for (kind, value) in refused {
        let headers = Properties::headers(&field(b"traceparent", kind, value));
        assert_eq!(wire.publish(&both.inlet, &headers, b"x").await, Answer::Closed(Some(541)), "PROP-R-02: {kind}");
    }
    assert_eq!(both.plain.count(&both.inlet).await.0, 0);
    both.stop().await;
}

/// Headers that leave no room in their frame for those of a dead letter: the message is handled, and what can never be published is rejected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_message_whose_headers_fill_a_frame_is_handled_and_rejected() {
    let (both, capture) = (Both::start().await, Capture::new());
    let reject = async |_: throughline_core::Delivery| Settlement::reject("unwanted");
    let route = Handler::<(throughline_core::Delivery,), ()>::dead_letter(reject, both.outlet.clone());
    let app = App::new()
        .telemetry(capture.instrumentation().settle_spans(SettleSpans::Always).build())
        .subscribe(Queue::new(both.inlet.as_str()).no_declare(), route);
    let running = serve(server::connect().await, app).start().await.expect("the app starts");
    let mut wire = Wire::connect(&server::url()).await;
    for (size, passes) in [(131_000, false), (1_000, true)] {
        let full = Properties::headers(&field(b"x-note", b'S', &long(&vec![b'x'; size])));
        assert_eq!(wire.publish(&both.inlet, &full, b"x").await, Answer::Stored);
        let spans = capture.wait_for_spans(3, PATIENCE).await;
        let of = |kind| spans.iter().find(|span| span.span_kind == kind).expect("such a span");
        let error_type = attribute(of(SpanKind::Producer), "error.type").map(|value| value.as_str().into_owned());
        assert_eq!(error_type.as_deref(), (!passes).then_some("too_large"), "PROP-R-07");
        let verb = if passes { "ack" } else { "reject" };
        assert_eq!(of(SpanKind::Client).name, format!("{verb} {}", both.inlet));
        capture.reset();
    }
    running.shutdown().await.expect("an end");
    assert_eq!((both.plain.count(&both.inlet).await.0, both.plain.count(&both.outlet).await.0), (0, 1));
    both.stop().await;
}

/// A queue for strangers, another one for what is passed on, and the plain client with confirms.
struct Both {
    plain: Plain,
    inlet: String,
    outlet: String,
}

impl Both {
    async fn start() -> Self {
        let (plain, inlet, outlet) = (Plain::connect(&server::url()).await, unique("in"), unique("out"));
        plain.declare(&inlet, &[]).await;
        plain.declare(&outlet, &[]).await;
        plain.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Self { plain, inlet, outlet }
    }

    async fn consume(&self, queue: &str) -> Consumer {
        let options = BasicConsumeOptions::default();
        let consumer = self.plain.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        consumer.await.expect("a consumer")
    }

    async fn publish(&self, typed: &Typed) {
        let properties =
            BasicProperties::default().with_message_id(typed.id.as_str().into()).with_headers(typed.headers.clone());
        let (queue, options) = (self.inlet.as_str().into(), BasicPublishOptions::default());
        let sent = self.plain.channel.basic_publish("".into(), queue, options, b"x", properties).await;
        sent.expect("a publish").await.expect("a confirmation");
    }

    async fn stop(self) {
        self.plain.delete(&self.inlet).await;
        self.plain.delete(&self.outlet).await;
    }
}

async fn next(consumer: &mut Consumer) -> Delivery {
    timeout(PATIENCE, consumer.next()).await.expect("a message in time").expect("a message").expect("a message")
}
