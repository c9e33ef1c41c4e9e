//! No SDK, no sampling, no telemetry: the headers still do what they must (GEN-07, PROP-20, METR-12).

use std::time::Duration;

use opentelemetry::trace::TraceContextExt;
use opentelemetry::trace::noop::NoopTracerProvider;
use opentelemetry_sdk::trace::Sampler;
use throughline_core::extract::{Baggage, Batch, ProcessSpan};
use throughline_core::middleware::{Retry, TelemetryMiddleware};
use throughline_core::serve::Running;
use throughline_core::telemetry::{ParentMode, Trust};
use throughline_core::{
    App, CurrentBaggage, CurrentSpan, Delivery, Envelope, Handler, PublishError, Publisher, RetryPolicy, serve,
};
use throughline_memory::{Channel, Memory};
use throughline_testing::{AppTest, Capture, start_with};

use crate::support::{SPAN, TRACE, TRACEPARENT, ids, links, point, publish_remote, traceparent};

async fn forward(publisher: Publisher, baggage: Baggage, span: ProcessSpan) -> Result<(), PublishError> {
    span.set_attribute("order.items", 3);
    span.add_event("forwarding", []);
    span.record_error(&std::fmt::Error);
    baggage.set("warehouse", "north");
    publisher.publish("forwarded", "42").await.map(drop)
}

async fn without_sdk(app: App, mode: ParentMode) -> AppTest {
    start_with(app, |telemetry| telemetry.tracer_provider(NoopTracerProvider::new()).parent_mode(mode)).await
}

/// GEN-07, PROP-20: in every link mode, from the first message on.
#[tokio::test]
async fn without_an_sdk_the_upstream_trace_and_its_baggage_are_passed_on_in_every_parent_mode() {
    for mode in [ParentMode::Auto, ParentMode::LinkOnly, ParentMode::Parent] {
        let test = without_sdk(App::new().subscribe(Channel::new("orders"), forward), mode).await;
        for _ in 0..2 {
            publish_remote(&test, "orders", "tenant=acme").await;
            let forwarded = test.next_delivery("forwarded").await;
            assert_eq!(traceparent(&forwarded), (TRACE.to_owned(), SPAN.to_owned()), "{mode:?}");
            assert_eq!(forwarded.headers().get("baggage"), Some("tenant=acme,warehouse=north"), "{mode:?}");
        }
        test.settle().await;
        assert!(test.capture().spans().is_empty());
        assert_eq!(point(test.capture(), "messaging.process.duration", &[]).count, 2, "METR-12");
    }
}

/// PROP-22: what may only link is not passed on, since nothing is left to link.
#[tokio::test]
async fn without_an_sdk_untrusted_headers_are_not_passed_on() {
    let test =
        without_sdk(App::new().subscribe(Channel::new("orders"), forward.trust(Trust::Link)), ParentMode::Auto).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    let forwarded = test.next_delivery("forwarded").await;
    assert_eq!(
        (forwarded.headers().get("traceparent"), forwarded.headers().get("baggage")),
        (None, Some("warehouse=north"))
    );
}

/// GEN-07: a message that carries nothing goes on with nothing.
#[tokio::test]
async fn without_an_sdk_a_message_without_a_trace_starts_none() {
    let test = without_sdk(App::new().subscribe(Channel::new("orders"), forward), ParentMode::Auto).await;
    test.publish("orders", "42").await;
    let forwarded = test.next_delivery("forwarded").await;
    assert!(!forwarded.headers().contains("traceparent") && !forwarded.headers().contains("tracestate"));
}

/// GEN-07, PROP-20: in a batch each message passes on its own trace; retries and failures work as ever.
#[tokio::test(start_paused = true)]
async fn without_an_sdk_the_messages_of_a_batch_pass_on_their_own_traces() {
    async fn forward_each(
        batch: Batch<String>,
        publisher: Publisher,
        delivery: Delivery,
    ) -> Result<(), std::fmt::Error> {
        if delivery.attempt() == 1 {
            return Err(std::fmt::Error);
        }
        for message in batch {
            message.run(async |_| publisher.publish("forwarded", "42").await.map(drop)).await;
        }
        Ok(())
    }
    let orders = Channel::new("orders").batch(2, Duration::from_secs(5));
    let handler = forward_each.middleware(Retry::new(RetryPolicy::new().first_delay(Duration::from_millis(1))));
    let test = without_sdk(App::new().subscribe(orders, handler), ParentMode::Auto).await;
    publish_remote(&test, "orders", "tenant=acme").await;
    publish_remote(&test, "orders", "tenant=globex").await;
    for tenant in ["tenant=acme", "tenant=globex"] {
        let forwarded = test.next_delivery("forwarded").await;
        assert_eq!((traceparent(&forwarded).1.as_str(), forwarded.headers().get("baggage")), (SPAN, Some(tenant)));
    }
}

/// METR-12, PROP-15: an unsampled message is measured, and what it causes is unsampled too.
#[tokio::test]
async fn an_unsampled_trace_goes_on_unsampled_and_is_measured() {
    let unsampled = Capture::with_sampler(Sampler::AlwaysOff);
    let app = App::new().subscribe(Channel::new("orders"), forward);
    let test = start_with(app, |telemetry| telemetry.tracer_provider(unsampled.tracer_provider())).await;
    test.publish("orders", "42").await;
    let forwarded = test.next_delivery("forwarded").await;
    test.settle().await;
    let order = test.next_delivery("orders").await;
    assert_eq!(traceparent(&forwarded).0, traceparent(&order).0);
    assert_ne!(traceparent(&forwarded).1, traceparent(&order).1, "a span of its own");
    assert!(forwarded.headers().get("traceparent").unwrap().ends_with("-00"));
    assert!(unsampled.spans().is_empty());
    assert_eq!(point(test.capture(), "messaging.process.duration", &[]).count, 1);
    assert_eq!(test.capture().metrics().iter().filter(|p| p.name == "messaging.client.sent.messages").count(), 2);
}

/// PROP-15: the random flag of a trace that goes on stays, with a span of the SDK's own in between; one that is not sampled has no flags.
#[tokio::test]
async fn the_random_flag_of_a_trace_is_passed_on() {
    let test = start_with(App::new().subscribe(Channel::new("orders"), forward), |t| t).await;
    for (flags, expected) in [("-03", "-03"), ("-02", "-00"), ("-01", "-01")] {
        let header = TRACEPARENT.replace("-01", flags);
        crate::support::untraced(&test).publish("orders", "42").header("traceparent", header).await.unwrap();
        let forwarded = test.next_delivery("forwarded").await;
        assert_eq!(traceparent(&forwarded).0, TRACE);
        assert_ne!(traceparent(&forwarded).1, SPAN, "a span of its own");
        assert!(forwarded.headers().get("traceparent").unwrap().ends_with(expected), "{flags}");
    }
}

/// PROP-15: the sampled flag of a remote producer decides.
#[tokio::test]
async fn an_unsampled_producer_is_followed() {
    let test = start_with(App::new().subscribe(Channel::new("orders"), forward), |t| t).await;
    let header = TRACEPARENT.replace("-01", "-00");
    crate::support::untraced(&test).publish("orders", "42").header("traceparent", header).await.unwrap();
    let forwarded = test.next_delivery("forwarded").await;
    assert_eq!(traceparent(&forwarded).0, TRACE);
    assert!(forwarded.headers().get("traceparent").unwrap().ends_with("-00"));
    test.settle().await;
    assert!(test.capture().spans().is_empty());
}

/// An app of the user's own making, and a look at what it publishes.
struct Bare {
    memory: Memory,
    forwarded: Box<dyn throughline_core::broker::Subscriber>,
    _running: Running,
}

impl Bare {
    async fn start(app: App) -> Self {
        use throughline_core::broker::Broker;
        let memory = Memory::new();
        let forwarded = memory.subscribe(&Channel::new("forwarded").into()).await.unwrap();
        let running = serve(memory.clone(), app).start().await.unwrap();
        Self { memory, forwarded, _running: running }
    }

    async fn publish(&self, baggage: &'static str) {
        let publisher = self.memory.publisher().without_telemetry();
        let order =
            Envelope::new("orders", "42").with_header("traceparent", TRACEPARENT).with_header("baggage", baggage);
        publisher.publish_envelope(order).await.unwrap();
    }

    async fn next(&mut self) -> Delivery {
        self.forwarded.receive().await.unwrap().delivery.clone()
    }
}

/// Design, section 3: without telemetry headers are neither read nor written.
#[tokio::test]
async fn without_telemetry_headers_are_left_alone() {
    async fn look(
        delivery: Delivery,
        span: ProcessSpan,
        baggage: Baggage,
        publisher: Publisher,
    ) -> Result<(), PublishError> {
        assert_eq!(delivery.headers().get("traceparent"), Some(TRACEPARENT));
        assert!(!span.span_context().is_valid() && baggage.get_all().is_empty());
        assert!(!opentelemetry::Context::current().has_active_span());
        publisher.publish("forwarded", "42").header("traceparent", "as it is").await.map(drop)
    }
    let mut bare = Bare::start(App::new().subscribe(Channel::new("orders"), look).without_telemetry()).await;
    bare.publish("tenant=acme").await;
    let forwarded = bare.next().await;
    let headers: Vec<_> = forwarded.headers().iter().map(|(name, _)| name).collect();
    assert_eq!(
        (headers, forwarded.headers().get("traceparent")),
        (vec!["traceparent", "content-type"], Some("as it is"))
    );
}

/// Design, section 3: removed and placed elsewhere, it is middleware like any other.
#[tokio::test]
async fn telemetry_can_be_placed_as_ordinary_middleware() {
    async fn forward_from_a_task(publisher: Publisher, baggage: Baggage) -> Result<(), PublishError> {
        baggage.set("warehouse", "north");
        let task = tokio::spawn(async move { publisher.publish("forwarded", "42").await.map(drop) });
        task.await.expect("the task does not panic")
    }
    let capture = Capture::new();
    let telemetry = TelemetryMiddleware::from(capture.instrumentation().build());
    let app =
        App::new().subscribe(Channel::new("orders"), forward_from_a_task).without_telemetry().middleware(telemetry);
    let mut bare = Bare::start(app).await;
    bare.publish("tenant=acme").await;
    let forwarded = bare.next().await;
    let tree = capture.tree();
    let send = tree.find("publish forwarded");
    assert_eq!(traceparent(&forwarded), ids(send));
    assert_eq!(forwarded.headers().get("baggage"), Some("tenant=acme,warehouse=north"));
    let spans = capture.wait_until(|spans| spans.len() == 2, Duration::from_secs(10)).await;
    let process = spans.iter().find(|span| span.name == "process orders").unwrap();
    assert_eq!(send.parent_span_id, process.span_context.span_id());
    assert_eq!((process.parent_span_id.to_string(), links(process)), (SPAN.into(), vec![(TRACE.into(), SPAN.into())]));
}

/// Design, section 3: what a subscription says about its parent and its trust holds there too.
#[tokio::test]
async fn telemetry_placed_as_ordinary_middleware_honours_the_subscriptions_settings() {
    let capture = Capture::new();
    let telemetry = TelemetryMiddleware::from(capture.instrumentation().build());
    let handler = forward.parent_mode(ParentMode::LinkOnly).trust(Trust::Ignore);
    let app = App::new().subscribe(Channel::new("orders"), handler).without_telemetry().middleware(telemetry);
    let mut bare = Bare::start(app).await;
    bare.publish("tenant=acme").await;
    let forwarded = bare.next().await;
    assert_ne!(traceparent(&forwarded).0, TRACE);
    assert_eq!(forwarded.headers().get("baggage"), Some("warehouse=north"));
}

/// SPAN-38: and replies are below its process span.
#[tokio::test]
async fn replies_are_below_the_process_span_of_telemetry_placed_as_ordinary_middleware() {
    async fn reply(order: String) -> String {
        order
    }
    let capture = Capture::new();
    let telemetry = TelemetryMiddleware::from(capture.instrumentation().build());
    let app = App::new().subscribe(Channel::new("orders"), reply.reply_to("forwarded"));
    let mut bare = Bare::start(app.without_telemetry().middleware(telemetry)).await;
    bare.publish("tenant=acme").await;
    let forwarded = bare.next().await;
    assert_eq!((traceparent(&forwarded).0.as_str(), forwarded.headers().get("baggage")), (TRACE, Some("tenant=acme")));
    let tree = capture.tree();
    assert_eq!(tree.parent(tree.find("publish forwarded")).unwrap().name, "process orders");
}
