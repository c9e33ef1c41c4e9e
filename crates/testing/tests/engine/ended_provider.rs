//! A span that was asked for and is none, as of a provider that was shut down: the message goes on as without an SDK, and the next one is
//! looked at afresh (PROP-20).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{SpanBuilder, SpanContext, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};
use throughline_core::extract::{Baggage, Batch};
use throughline_core::message::{Operations, Source, System, Target};
use throughline_core::middleware::Retry;
use throughline_core::telemetry::{Incoming, Instrumentation, Outgoing, ParentMode, SettleSpans, Trust};
use throughline_core::{App, CurrentBaggage, Delivery, Handler, Headers, PublishError, Publisher, RetryPolicy};
use throughline_memory::Channel;
use throughline_testing::{AppTest, Capture, start_with};

use crate::support::{SPAN, TRACE, TRACEPARENT, ids, point, publish_remote, traceparent};

/// Fails at first, so that there is a second attempt, and answers then.
async fn answer(
    order: String,
    delivery: Delivery,
    publisher: Publisher,
    baggage: Baggage,
) -> Result<String, PublishError> {
    if delivery.attempt() == 1 {
        return Err(PublishError::new(throughline_core::broker::PublishErrorKind::Timeout, "timeout", "not yet"));
    }
    baggage.set("warehouse", "north");
    publisher.publish("forwarded", "1").await?;
    publisher.publish_batch("forwarded", ["2", "3"]).await?;
    Ok(order)
}

async fn serving(mode: ParentMode, trust: Trust) -> AppTest {
    let retry = Retry::new(RetryPolicy::new().first_delay(Duration::from_millis(1)));
    let app = App::new().subscribe(Channel::new("orders"), answer.reply_to("answers").middleware(retry).trust(trust));
    start_with(app, |telemetry| telemetry.parent_mode(mode).receive_spans(true).settle_spans(SettleSpans::Always)).await
}

#[tokio::test(start_paused = true)]
async fn after_the_end_of_the_provider_the_upstream_trace_is_passed_on_in_every_parent_mode() {
    for mode in [ParentMode::Auto, ParentMode::LinkOnly, ParentMode::Parent] {
        let test = serving(mode, Trust::Continue).await;
        publish_remote(&test, "orders", "tenant=acme").await;
        let before = test.next_delivery("answers").await;
        assert_ne!(traceparent(&before).1, SPAN, "{mode:?}: a span of its own, while there is a provider");
        for _ in 0..3 {
            test.next_delivery("forwarded").await;
        }
        test.capture().tracer_provider().shutdown().unwrap();
        for _ in 0..2 {
            publish_remote(&test, "orders", "tenant=acme").await;
            for destination in ["forwarded", "forwarded", "forwarded", "answers"] {
                let sent = test.next_delivery(destination).await;
                assert_eq!(traceparent(&sent), (TRACE.to_owned(), SPAN.to_owned()), "{mode:?} {destination}");
                assert_eq!(sent.headers().get("baggage"), Some("tenant=acme,warehouse=north"), "{mode:?}");
            }
        }
        test.settle().await;
        assert_eq!(point(test.capture(), "messaging.process.duration", &[]).count, 3, "METR-12");
    }
}

/// PROP-22: what may only link is not passed on, since nothing is left to link.
#[tokio::test(start_paused = true)]
async fn after_the_end_of_the_provider_untrusted_headers_are_not_passed_on() {
    for trust in [Trust::Link, Trust::Ignore] {
        let test = serving(ParentMode::Auto, trust).await;
        test.capture().tracer_provider().shutdown().unwrap();
        publish_remote(&test, "orders", "tenant=acme").await;
        let answer = test.next_delivery("answers").await;
        assert_eq!(answer.headers().get("traceparent"), None, "{trust:?}");
        assert_eq!(answer.headers().get("baggage"), Some("warehouse=north"), "{trust:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_end_of_the_provider_the_messages_of_a_batch_pass_on_their_own_traces() {
    async fn forward_each(batch: Batch<String>, publisher: Publisher) {
        for message in batch {
            message.run(async |_| publisher.publish("forwarded", "42").await.map(drop)).await;
        }
    }
    let orders = Channel::new("orders").batch(2, Duration::from_secs(5));
    let test = start_with(App::new().subscribe(orders, forward_each), |telemetry| telemetry).await;
    test.capture().tracer_provider().shutdown().unwrap();
    publish_remote(&test, "orders", "tenant=acme").await;
    publish_remote(&test, "orders", "tenant=globex").await;
    for tenant in ["tenant=acme", "tenant=globex"] {
        let forwarded = test.next_delivery("forwarded").await;
        assert_eq!((traceparent(&forwarded).1.as_str(), forwarded.headers().get("baggage")), (SPAN, Some(tenant)));
    }
}

/// A provider that has no spans for a while.
#[derive(Clone, Debug)]
struct Switched {
    is_on: Arc<AtomicBool>,
    on: SdkTracer,
    off: SdkTracer,
}

impl Switched {
    fn of(capture: &Capture) -> Self {
        let ended = SdkTracerProvider::builder().build();
        ended.shutdown().unwrap();
        Self { is_on: Arc::default(), on: capture.tracer_provider().tracer("switched"), off: ended.tracer("switched") }
    }
}

impl TracerProvider for Switched {
    type Tracer = Self;

    fn tracer_with_scope(&self, _: InstrumentationScope) -> Self {
        self.clone()
    }
}

impl Tracer for Switched {
    type Span = Span;

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> Span {
        let tracer = if self.is_on.load(Ordering::Relaxed) { &self.on } else { &self.off };
        tracer.build_with_context(builder, parent)
    }
}

struct Raw {
    engine: Instrumentation,
    system: Arc<System>,
}

impl Raw {
    fn new(engine: Instrumentation) -> Self {
        Self { engine, system: Arc::new(System::new("raw", Operations::DEFAULT)) }
    }

    /// Handles a message of the remote producer and returns what it published: one message, and two in a batch.
    async fn pass_on(&self) -> [Headers; 3] {
        let source = Source::new(Arc::clone(&self.system)).with_destination("orders");
        let arrived = Headers::from_iter([("traceparent", TRACEPARENT), ("baggage", "tenant=acme")]);
        let processing = self.engine.consumer(Arc::new(source)).process(&Incoming::new("orders", &arrived));
        let producer = self.engine.producer(Arc::clone(&self.system));
        processing
            .run(async {
                let mut sent = [Headers::new(), Headers::new(), Headers::new()];
                let [one, two, three] = &mut sent;
                producer.send(&Target::new("stock"), Outgoing::new(one)).finish(Vec::new(), None);
                let both = vec![Outgoing::new(two), Outgoing::new(three)];
                producer.send_batch(&Target::new("stock"), both).finish_batch(2, &[]);
                Ok::<_, Infallible>(sent)
            })
            .await
            .unwrap()
    }
}

/// Whether one message has a span says nothing about the next.
#[tokio::test]
async fn each_message_of_the_raw_door_is_looked_at_afresh() {
    let capture = Capture::new();
    let provider = Switched::of(&capture);
    let raw = Raw::new(capture.instrumentation().tracer_provider(provider.clone()).build());
    for is_on in [false, true, false, true] {
        provider.is_on.store(is_on, Ordering::Relaxed);
        capture.reset();
        for sent in raw.pass_on().await {
            let traceparent = sent.get("traceparent").expect("the trace goes on");
            assert!(traceparent.contains(TRACE), "{traceparent}");
            assert_eq!(traceparent.contains(SPAN), !is_on, "{traceparent}");
            assert_eq!(sent.get("baggage"), Some("tenant=acme"));
        }
        assert_eq!(capture.spans().len(), if is_on { 5 } else { 0 });
    }
}

/// A first message for which telemetry is suppressed is no sign that there is no SDK.
#[tokio::test]
async fn a_message_under_suppressed_telemetry_passes_on_what_came_in_and_decides_nothing() {
    let capture = Capture::new();
    let raw = Raw::new(capture.instrumentation().build());
    let suppressed = Context::new().with_telemetry_suppressed();
    let sent = opentelemetry::context::FutureExt::with_context(raw.pass_on(), suppressed).await;
    assert!(sent.iter().all(|sent| sent.get("traceparent").is_some_and(|text| text.contains(SPAN))), "{sent:?}");
    assert!(capture.spans().is_empty());
    raw.pass_on().await;
    assert_eq!(capture.spans().len(), 5);
}

/// A span of other instrumentation that is none is no parent, and does not hide the message's own context.
#[tokio::test]
async fn an_invalid_span_that_is_current_hides_nothing() {
    for mode in [ParentMode::Auto, ParentMode::LinkOnly, ParentMode::Parent] {
        let capture = Capture::new();
        let raw = Raw::new(capture.instrumentation().parent_mode(mode).build());
        let invalid = || Context::new().with_remote_span_context(SpanContext::empty_context());
        let sent = opentelemetry::context::FutureExt::with_context(raw.pass_on(), invalid()).await;
        assert!(sent.iter().all(|sent| sent.get("traceparent").is_some_and(|text| !text.contains(SPAN))), "{mode:?}");
        capture.tracer_provider().shutdown().unwrap();
        let sent = opentelemetry::context::FutureExt::with_context(raw.pass_on(), invalid()).await;
        assert!(sent.iter().all(|sent| sent.get("traceparent").is_some_and(|text| text.contains(SPAN))), "{mode:?}");
    }
}

/// A span that a handler asked for and did not get does not cut its publishes off.
#[tokio::test]
async fn an_invalid_span_of_the_handler_does_not_end_the_trace() {
    async fn forward(_order: String, publisher: Publisher) -> Result<(), PublishError> {
        let invalid = Context::current().with_remote_span_context(SpanContext::empty_context());
        let publishing = async { publisher.publish("forwarded", "1").await };
        opentelemetry::context::FutureExt::with_context(publishing, invalid).await.map(drop)
    }
    let test = start_with(App::new().subscribe(Channel::new("orders"), forward), |telemetry| telemetry).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    let forwarded = test.next_delivery("forwarded").await;
    let tree = test.trace().await;
    assert_eq!(traceparent(&forwarded), ids(tree.find("publish forwarded")));
    assert_eq!(tree.parent(tree.find("publish forwarded")).unwrap().name, "process orders");
}
