//! Code of the user that panics where telemetry calls it: it is reported once and left out, and the message is handled and settled by what
//! the handler said.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{Counter, InstrumentBuilder, InstrumentProvider, Meter, MeterProvider, SyncInstrument};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{Link, SpanId, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord, SdkLoggerProvider};
use opentelemetry_sdk::trace::{
    IdGenerator, SamplingResult, SdkTracerProvider, ShouldSample, Span, SpanData, SpanProcessor,
};
use throughline_core::broker::{BoxFuture, BrokerErrorKind, Publish};
use throughline_core::extract::{Batch, ProcessSpan};
use throughline_core::message::{Answer, CreationContext, Native, OperationType, Operations, Source, System, Target};
use throughline_core::middleware::Retry;
use throughline_core::propagation::Propagators;
use throughline_core::telemetry::{Builder, Incoming, Instrumentation, Outgoing, SettleSpans};
use throughline_core::{
    App, BrokerError, CurrentSpan, Delivery, Destination, Envelope, Failure, Handler, Headers, IntoFailure,
    PublishError, Publisher, Receipt, RetryPolicy, Settlement,
};
use throughline_memory::Channel;
use throughline_testing::{AppTest, Capture, start_with};

use crate::support::{Log, SPAN, Seen, TRACE, TRACEPARENT, points, publish_remote, traceparent};

/// Panics with something that panics again when it is dropped.
fn fail() -> ! {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "and the payload of the panic");
        }
    }
    std::panic::panic_any(Bomb)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Broken {
    Filter,
    SpanName,
    Attributes,
    ErrorType,
    Sampler,
    IdGenerator,
    OnStart,
    OnEnd,
    Logger,
    Meter,
    Inject,
    Extract,
    AddedInject,
    AddedExtract,
}

const ALL: [Broken; 14] = [
    Broken::Filter,
    Broken::SpanName,
    Broken::Attributes,
    Broken::ErrorType,
    Broken::Sampler,
    Broken::IdGenerator,
    Broken::OnStart,
    Broken::OnEnd,
    Broken::Logger,
    Broken::Meter,
    Broken::Inject,
    Broken::Extract,
    Broken::AddedInject,
    Broken::AddedExtract,
];

impl Broken {
    fn break_in(self, builder: Builder<Instrumentation>) -> Builder<Instrumentation> {
        let provider = SdkTracerProvider::builder();
        match self {
            Self::Filter => builder.filter(|_| fail()),
            Self::SpanName => builder.span_name(|_| fail()),
            Self::Attributes => builder.attributes(|_, attributes| {
                attributes.clear();
                fail()
            }),
            Self::ErrorType => builder.error_type(|_| fail()),
            Self::Sampler => builder.tracer_provider(provider.with_sampler(Self::Sampler).build()),
            Self::IdGenerator => builder.tracer_provider(provider.with_id_generator(Self::IdGenerator).build()),
            Self::OnStart => builder.tracer_provider(provider.with_span_processor(Self::OnStart).build()),
            Self::OnEnd => builder.tracer_provider(provider.with_span_processor(Self::OnEnd).build()),
            Self::Logger => {
                builder.logger_provider(&SdkLoggerProvider::builder().with_log_processor(Self::Logger).build())
            }
            Self::Meter => builder.meter_provider(&Self::Meter),
            Self::Inject | Self::Extract => builder.propagator(self),
            Self::AddedInject | Self::AddedExtract => builder.propagator(Propagators::default().with(self)),
        }
    }

    /// Whether spans come out of the capture of the test all the same.
    const fn leaves_spans(self) -> bool {
        !matches!(self, Self::Sampler | Self::IdGenerator | Self::OnStart | Self::OnEnd)
    }

    /// Whether a message has the trace of the one it was published for.
    const fn keeps_trace(self) -> bool {
        !matches!(self, Self::Inject | Self::Extract)
    }
}

impl ShouldSample for Broken {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        fail()
    }
}

impl IdGenerator for Broken {
    fn new_trace_id(&self) -> TraceId {
        fail()
    }

    fn new_span_id(&self) -> SpanId {
        fail()
    }
}

impl SpanProcessor for Broken {
    fn on_start(&self, _: &mut Span, _: &Context) {
        if *self == Self::OnStart {
            fail()
        }
    }

    fn on_end(&self, _: SpanData) {
        if *self == Self::OnEnd {
            fail()
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl LogProcessor for Broken {
    fn emit(&self, _: &mut SdkLogRecord, _: &InstrumentationScope) {
        fail()
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
}

impl MeterProvider for Broken {
    fn meter_with_scope(&self, _: InstrumentationScope) -> Meter {
        Meter::new(Arc::new(*self))
    }
}

impl InstrumentProvider for Broken {
    fn u64_counter(&self, _: InstrumentBuilder<'_, Counter<u64>>) -> Counter<u64> {
        Counter::new(Arc::new(*self))
    }
}

impl SyncInstrument<u64> for Broken {
    fn measure(&self, _: u64, _: &[KeyValue]) {
        fail()
    }
}

impl TextMapPropagator for Broken {
    fn inject_context(&self, _: &Context, _: &mut dyn Injector) {
        if matches!(self, Self::Inject | Self::AddedInject) {
            fail()
        }
    }

    fn extract_with_context(&self, context: &Context, _: &dyn Extractor) -> Context {
        if matches!(self, Self::Extract | Self::AddedExtract) { fail() } else { context.clone() }
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&[])
    }
}

/// Forwards a good order; a bad one is given up, after a second attempt in place.
async fn handle(
    order: String,
    delivery: Delivery,
    span: ProcessSpan,
    publisher: Publisher,
    seen: throughline_core::extract::State<Seen<String>>,
) -> Result<(), Failure> {
    seen.0.push(format!("{order} {}", delivery.attempt()));
    span.set_attribute("order", order.clone());
    if order == "bad" {
        return Err(Failure::new("bad_order", "the order is bad"));
    }
    publisher.publish("forwarded", order).await.map_err(Failure::from_error)?;
    Ok(())
}

async fn handle_all(orders: Batch<String>, publisher: Publisher) -> Result<(), PublishError> {
    let each: Vec<String> = orders.into_iter().map(|order| format!("batched {}", order.body())).collect();
    publisher.publish_batch("forwarded", each).await.map(drop)
}

async fn run(broken: Option<Broken>, concurrency: usize) -> (AppTest, Seen<String>) {
    let seen = Seen::new();
    let retry = Retry::new(RetryPolicy::new().first_delay(Duration::from_millis(1)).attempts(2));
    let app = App::new()
        .subscribe(Channel::new("orders"), handle.concurrency(concurrency).middleware(retry).dead_letter("dead"))
        .subscribe(Channel::new("batched").batch(2, Duration::from_secs(5)), handle_all);
    let test = start_with(app.with_state(seen.clone()), |builder| {
        let builder = builder.receive_spans(true).settle_spans(SettleSpans::Always);
        match broken {
            Some(broken) => broken.break_in(builder),
            None => builder,
        }
    });
    (test.await, seen)
}

/// Design, section 5: whatever panics, and however many messages are handled at a time.
#[tokio::test(start_paused = true)]
async fn the_framework_handles_and_settles_each_message_whatever_of_the_users_code_panics() {
    for broken in ALL {
        for concurrency in [1, 4] {
            let log = Log::listen();
            let (test, seen) = run(Some(broken), concurrency).await;
            for _ in 0..3 {
                publish_remote(&test, "orders", "tenant=acme").await;
            }
            crate::support::untraced(&test).publish("orders", "bad").await.unwrap();
            for order in ["1", "2"] {
                crate::support::untraced(&test)
                    .publish("batched", order)
                    .header("traceparent", TRACEPARENT)
                    .await
                    .unwrap();
            }
            for _ in 0..5 {
                let forwarded = test.next_delivery("forwarded").await;
                let is_traced = broken.keeps_trace() && !forwarded.payload().starts_with(b"batched");
                if is_traced {
                    assert_eq!(traceparent(&forwarded).0, TRACE, "{broken:?}");
                    assert_eq!(forwarded.headers().get("baggage"), Some("tenant=acme"), "{broken:?}");
                }
                if is_traced && !broken.leaves_spans() && broken != Broken::OnEnd {
                    assert_eq!(traceparent(&forwarded).1, SPAN, "{broken:?}: what came in is passed on, PROP-20");
                }
            }
            assert_eq!(test.next_delivery("dead").await.payload(), "bad", "{broken:?}");
            test.settle().await;
            let mut seen = seen.take();
            seen.sort();
            assert_eq!(seen, ["42 1", "42 1", "42 1", "bad 1", "bad 2"], "{broken:?}");
            let measured: u64 = points(test.capture(), "messaging.process.duration", &[]).iter().map(|p| p.count).sum();
            let expected = if broken == Broken::Meter { 0 } else { 5 };
            assert_eq!(measured, expected, "{broken:?}: METR-02");
            let names: Vec<_> = test.capture().spans().into_iter().map(|span| span.name).collect();
            assert_eq!(names.contains(&"process orders".into()), broken.leaves_spans(), "{broken:?}: {names:?}");
            let reports =
                log.errors().iter().filter(|line| line.contains("user code that the framework calls panicked")).count();
            assert_eq!(reports, 1, "{broken:?}: {:?}", log.errors());
        }
    }
}

fn system() -> Arc<System> {
    let operations = Operations::DEFAULT.with_ack("ack").with_retry("nack").with_reject("nack");
    Arc::new(System::new("raw", operations))
}

struct Row;

impl Native for Row {
    fn attributes(&self, _: OperationType, attributes: &mut Vec<KeyValue>) {
        attributes.push(KeyValue::new("half", "done"));
        fail()
    }
}

/// Every call of the raw door; each is to return.
async fn go_through(engine: &Instrumentation) -> Headers {
    let consumer = engine.consumer(Arc::new(Source::new(system()).with_destination("orders")));
    let producer = engine.producer(system());
    let arrived = Headers::from_iter([("traceparent", TRACEPARENT), ("baggage", "tenant=acme")]);
    let message = Incoming::new("orders", &arrived).with_native(&Row);
    let error = BrokerError::new(BrokerErrorKind::Timeout, "timeout", "no answer");
    let refused = PublishError::new(throughline_core::broker::PublishErrorKind::Timeout, "timeout", "no answer");
    consumer.receive().finish(&message);
    consumer.receive().finish_batch(&[message, message]);
    consumer.receive().fail(&error);
    let target = Target::new("stock");
    let mut headers = Headers::new();
    let processing = consumer.process(&message);
    processing
        .run(async {
            producer.send(&target, Outgoing::new(&mut headers)).finish(Vec::new(), None);
            let (mut one, mut two) = (Headers::new(), Headers::new());
            let both = vec![Outgoing::new(&mut one), Outgoing::new(&mut two)];
            producer.send_batch(&target, both).finish_batch(2, &[&refused]);
            producer.request(&target, Outgoing::new(&mut Headers::new())).finish(Vec::new(), Some(&refused));
            let mut kept = arrived.clone();
            let forward = Outgoing::new(&mut kept).with_creation(CreationContext::Kept);
            drop(producer.send(&target, forward));
            consumer.settle(&Settlement::Ack, &Context::current()).finish(&[message], Some(&error));
        })
        .await;
    assert!(consumer.process(&message).run(async { Err::<(), _>(Mute) }).await.is_err());
    consumer.process_batch(&[message, message]).fail(&Failure::new("bad_order", "no"));
    consumer.process(&message).scope().record_error(&Mute);
    drop(consumer.process(&message));
    let panics = async {
        if true {
            panic!("the handler's own")
        }
    };
    let panicked = tokio::spawn(consumer.process(&message).run(panics));
    assert!(panicked.await.is_err_and(|error| error.is_panic()));
    headers
}

/// The same through the raw door, where an operation may also be dropped in the middle of a panic.
#[tokio::test]
async fn every_call_of_the_raw_door_returns_whatever_of_the_users_code_panics() {
    for broken in ALL {
        let capture = Capture::new();
        let engine = broken.break_in(capture.instrumentation().settle_spans(SettleSpans::Always)).build();
        let sent = go_through(&engine).await;
        if broken.keeps_trace() {
            assert!(sent.get("traceparent").is_some_and(|text| text.contains(TRACE)), "{broken:?}: {sent:?}");
        }
        let processed = capture.spans().into_iter().filter(|span| span.name == "process orders").count();
        assert_eq!(processed, if broken.leaves_spans() { 6 } else { 0 }, "{broken:?}");
    }
}

/// An error whose text cannot be made.
struct Mute;

impl fmt::Debug for Mute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mute")
    }
}

impl fmt::Display for Mute {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        fail()
    }
}

impl std::error::Error for Mute {}

/// STAT-06, STAT-16: the type says it.
#[tokio::test(start_paused = true)]
async fn an_error_whose_text_panics_is_a_failure_like_any_other() {
    async fn give_up(_order: String) -> throughline_core::Outcome {
        Failure::from_error(Mute).permanent().into_failure()
    }
    let app = App::new().subscribe(Channel::new("orders"), give_up.dead_letter("dead"));
    let test = start_with(app, |telemetry| telemetry.error_descriptions(true)).await;
    test.publish("orders", "1").await;
    assert_eq!(test.next_delivery("dead").await.payload(), "1");
    let tree = test.trace().await;
    let error_type = throughline_testing::attribute(tree.find("process orders"), "error.type").unwrap().as_str();
    assert!(error_type.ends_with("Mute"), "{error_type}");
    let logs = test.capture().logs();
    assert!(logs.iter().any(|log| log.event_name.as_deref() == Some("messaging.process.exception")), "{logs:?}");
}

/// What an adapter of somebody else says about a publish and its answer.
struct Careless;

struct CarelessAnswer;

impl Answer for CarelessAnswer {
    fn native(&self) -> &dyn std::any::Any {
        self
    }

    fn attributes(&self, _: &mut Vec<KeyValue>) {
        fail()
    }
}

impl Publish for Careless {
    fn system(&self) -> Arc<System> {
        system()
    }

    fn target<'a>(&self, _: &'a Destination) -> Target<'a> {
        fail()
    }

    fn attributes(&self, _: &Envelope, _: &mut Vec<KeyValue>) {
        fail()
    }

    fn publish(&self, _: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move { Ok(Receipt::from_answer(Arc::new(CarelessAnswer))) })
    }
}

/// SPAN-22: the publish counts, with what is known without the adapter.
#[tokio::test]
async fn an_adapter_that_panics_when_it_is_asked_for_telemetry_publishes_all_the_same() {
    let capture = Capture::new();
    let publisher = Publisher::from_transport(Arc::new(Careless)).telemetry(capture.instrumentation().build());
    publisher.publish("orders", "1").await.unwrap();
    publisher.publish_batch("orders", ["1", "2"]).await.unwrap();
    assert!(publisher.request::<String>("orders", "1").await.is_err(), "unsupported");
    let names: Vec<_> = capture.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["publish orders", "create orders", "create orders", "publish orders", "request orders"]);
}

/// TRAP-03: a processor that panics at one span takes no other with it, nor the lock of the context.
#[tokio::test]
async fn a_span_whose_end_panics_can_still_be_looked_at() {
    let capture = Capture::new();
    let engine = Broken::OnEnd.break_in(capture.instrumentation()).build();
    let consumer = engine.consumer(Arc::new(Source::new(system()).with_destination("orders")));
    let headers = Headers::new();
    let processing = consumer.process(&Incoming::new("orders", &headers));
    let context = processing.scope().context().clone();
    assert!(context.span().is_recording());
    processing.succeed();
    assert!(!context.span().is_recording());
    context.span().set_attribute(KeyValue::new("late", true));
    assert!(context.span().span_context().is_valid());
}

/// SPAN-13: without the hook's work the spans are the conventional ones.
#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_leaves_the_conventional_span() {
    for broken in [Broken::Filter, Broken::SpanName, Broken::Attributes] {
        let (test, _) = run(Some(broken), 1).await;
        let (plain, _) = run(None, 1).await;
        for test in [&test, &plain] {
            publish_remote(test, "orders", "").await;
            test.settle().await;
        }
        let shown = |test: &AppTest| {
            let spans = test.capture().spans().into_iter();
            let mut shown: Vec<_> = spans.map(|span| format!("{} {:?}", span.name, keys(&span))).collect();
            shown.sort();
            shown
        };
        assert_eq!(shown(&test), shown(&plain), "{broken:?}");
    }
}

fn keys(span: &SpanData) -> Vec<String> {
    let mut keys: Vec<_> = span.attributes.iter().map(|attribute| attribute.key.to_string()).collect();
    keys.sort();
    keys
}
