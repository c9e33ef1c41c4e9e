//! Middleware that changes the baggage, publishes, puts a context of its own around the handler, or cuts it off.

use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracer;
use throughline_core::extract::{Baggage, ProcessSpan, State as AppState};
use throughline_core::middleware::{Next, Timeout};
use throughline_core::{
    App, CurrentBaggage, CurrentSpan, Delivery, Handler, Middleware, Outcome, PublishError, Publisher,
};
use throughline_memory::Channel;
use throughline_testing::{Capture, attribute};

use super::states::{AS_IT_CAME, CHANGED, Carried, Own, State};

/// Changes the baggage of the message, and publishes around its handling.
#[derive(Clone)]
struct Change(Own);

#[async_trait::async_trait]
impl Middleware for Change {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        self.0.publish("unchanged").await.expect("published");
        delivery.baggage().set("warehouse", "north");
        delivery.baggage().remove("user");
        self.0.publish("before").await.expect("published");
        let outcome = next.run(delivery).await;
        self.0.publish("after").await.expect("published");
        outcome
    }
}

/// Further middleware: it sees what the first has changed, and changes more.
#[derive(Clone)]
struct Shelf;

#[async_trait::async_trait]
impl Middleware for Shelf {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        let warehouse = delivery.baggage().get("warehouse");
        assert_eq!(warehouse.as_deref(), Some("north"));
        delivery.baggage().set("shelf", "a1");
        next.run(delivery).await
    }
}

async fn handle(_order: String, AppState(own): AppState<Own>) -> Result<String, PublishError> {
    own.publish("inside").await.map(|()| "reply".to_owned())
}

#[tokio::test]
async fn what_middleware_changes_is_carried_by_a_handler_that_asks_for_nothing() {
    for state in State::ALL {
        for on_the_route in [true, false] {
            let own = Own::new();
            let change = Change(own.clone());
            let route = handle.reply_to("replies");
            let app = if on_the_route {
                App::new().subscribe(Channel::new("orders"), route.middleware(change))
            } else {
                App::new().subscribe(Channel::new("orders"), route).middleware(change)
            };
            let world = state.start_with(app, own).await;
            world.arrive().await;
            world.sent("unchanged", AS_IT_CAME).await;
            for destination in ["before", "inside", "after", "replies"] {
                world.sent(destination, CHANGED).await;
            }
        }
    }
}

#[tokio::test]
async fn what_two_middlewares_change_is_carried_from_then_on() {
    const BOTH: Carried = ("shelf=a1,tenant=acme,warehouse=north", "shelf=a1,warehouse=north");
    for state in State::ALL {
        let own = Own::new();
        let app = App::new().subscribe(Channel::new("orders"), handle.middleware(Shelf).reply_to("replies"));
        let world = state.start_with(app.middleware(Change(own.clone())), own).await;
        world.arrive().await;
        world.sent("before", CHANGED).await;
        for destination in ["inside", "after", "replies"] {
            world.sent(destination, BOTH).await;
        }
    }
}

/// Runs the handler with baggage that is not of the message.
struct Within;

#[async_trait::async_trait]
impl Middleware for Within {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        Baggage::new().with("shelf", "a1").scope(next.run(delivery)).await
    }
}

/// What middleware has made current stays so, whatever the handler takes.
#[tokio::test]
async fn a_context_that_middleware_puts_around_the_handler_stays_current() {
    async fn nothing(_order: String, AppState(own): AppState<Own>) -> Result<(), PublishError> {
        own.publish("state").await
    }
    async fn publisher(publisher: Publisher, own: AppState<Own>) -> Result<(), PublishError> {
        publisher.publish("extracted", "42").await?;
        nothing(String::new(), own).await
    }
    async fn delivery(_delivery: Delivery, own: AppState<Own>) -> Result<(), PublishError> {
        nothing(String::new(), own).await
    }
    for state in State::ALL {
        let apps = [
            (App::new().subscribe(Channel::new("orders"), nothing), false),
            (App::new().subscribe(Channel::new("orders"), publisher), true),
            (App::new().subscribe(Channel::new("orders"), delivery), false),
        ];
        for (app, extracts) in apps {
            let world = state.start(app.middleware(Within)).await;
            world.arrive().await;
            if extracts {
                world.sent("extracted", ("shelf=a1", "shelf=a1")).await;
            }
            let sent = world.test.next_delivery("state").await;
            assert_eq!(sent.headers().get("baggage"), Some("shelf=a1"), "{state:?}");
        }
    }
}

/// Runs the handler in a span of the user's own.
struct InSpan(SdkTracer);

#[async_trait::async_trait]
impl Middleware for InSpan {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        let context = Context::current_with_span(self.0.start("of the user"));
        next.run(delivery).with_context(context.clone()).await
    }
}

/// Where telemetry is off, the user's own context is none of our business.
#[tokio::test]
async fn without_telemetry_the_context_of_the_user_stays_current() {
    async fn publish(_delivery: Delivery, span: AppState<SdkTracer>) {
        span.0.in_span("in the handler", |_| ());
    }
    async fn ask(_baggage: Baggage, span: AppState<SdkTracer>) {
        span.0.in_span("in the handler", |_| ());
    }
    let apps =
        [App::new().subscribe(Channel::new("orders"), publish), App::new().subscribe(Channel::new("orders"), ask)];
    for app in apps {
        let capture = Capture::new();
        let tracer = capture.tracer_provider().tracer("service");
        let broker = throughline_memory::Memory::recording();
        let app = app.without_telemetry().middleware(InSpan(tracer.clone())).with_state(tracer);
        let _running = throughline_core::serve(broker.clone(), app).start().await.unwrap();
        broker.publisher().without_telemetry().publish("orders", "42").await.unwrap();
        broker.idle().await;
        let tree = capture.tree();
        let inner = tree.find("in the handler");
        assert_eq!(tree.parent(inner).map(|span| span.name.as_ref()), Some("of the user"));
    }
}

/// GEN-06: what was set before the handler was cut off is on the span, once.
#[tokio::test(start_paused = true)]
async fn a_handler_that_is_cut_off_leaves_its_last_values() {
    async fn handle(
        delivery: Delivery,
        span: ProcessSpan,
        baggage: Baggage,
        AppState(own): AppState<Own>,
    ) -> Result<(), PublishError> {
        if delivery.attempt() > 1 {
            return Ok(());
        }
        span.set_attribute("order.items", 1);
        baggage.set("warehouse", "north");
        CurrentBaggage::remove(&baggage, "user");
        own.publish("state").await?;
        span.set_attribute("order.items", 2);
        std::future::pending().await
    }
    for state in State::ALL {
        let route = handle.middleware(Timeout::secs(3));
        let world = state.start(App::new().subscribe(Channel::new("orders"), route)).await;
        world.arrive().await;
        world.sent("state", CHANGED).await;
        world.test.settle().await;
        let tree = world.test.capture().tree();
        let handled = tree.find_all("process orders");
        assert_eq!(handled.len(), if state == State::Sampled { 2 } else { 0 }, "{state:?}");
        for span in handled.into_iter().take(1) {
            let own = span.attributes.iter().filter(|attribute| attribute.key.as_str() == "order.items");
            assert_eq!(own.map(|attribute| attribute.value.clone()).collect::<Vec<_>>(), [2.into()]);
            assert_eq!(attribute(span, "error.type"), Some(&"timeout".into()));
        }
    }
}
