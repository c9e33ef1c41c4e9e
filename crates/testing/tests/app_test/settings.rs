//! The telemetry settings are those of the app; only the providers are replaced.

use std::borrow::Cow;

use throughline_core::propagation::{B3Propagator, Propagators};
use throughline_core::telemetry::{Builder, Instrumentation, SettleSpans};
use throughline_core::{App, Handler};
use throughline_memory::Channel;
use throughline_testing::{Capture, attribute, start, start_with};

async fn reserve(order: String) -> String {
    order
}

/// What a service sets, on its own providers.
fn settings(providers: &Capture) -> Builder<Instrumentation> {
    providers
        .instrumentation()
        .propagator(Propagators::none().with(B3Propagator::single()))
        .settle_spans(SettleSpans::Always)
        .span_name(|operation| Some(Cow::Owned(format!("shop {}", operation.operation_name))))
        .attributes(|_, attributes| attributes.push(opentelemetry::KeyValue::new("shop", "acme")))
}

fn app() -> App {
    App::new().subscribe(Channel::new("orders"), reserve.reply_to("reserved"))
}

#[tokio::test]
async fn the_settings_of_the_app_stay_and_its_providers_do_not() {
    let own = Capture::new();
    let test = start(app().telemetry(settings(&own).build())).await;
    test.publish("orders", "42").await;

    let reply = test.next_delivery("reserved").await;
    assert!(reply.headers().contains("b3") && !reply.headers().contains("traceparent"), "{:?}", reply.headers());
    let tree = test.trace().await;
    // The test's own publish has the same propagator: the app finds the trace in it.
    tree.assert_tree(
        "
        shop publish
        └─ shop process
           ├─ shop publish
           └─ shop ack
    ",
    );
    assert_eq!(attribute(tree.find("shop process"), "shop").map(ToString::to_string).as_deref(), Some("acme"));
    assert!(own.spans().is_empty() && own.metrics().is_empty(), "nothing goes to the app's own providers");
}

#[tokio::test]
async fn a_test_changes_settings_on_top() {
    let test = start_with(app().telemetry(settings(&Capture::new()).build()), |telemetry| {
        telemetry.settle_spans(SettleSpans::Never)
    })
    .await;
    test.publish("orders", "42").await;
    test.trace().await.assert_tree(
        "
        shop publish
        └─ shop process
           └─ shop publish
    ",
    );
}

#[tokio::test]
async fn an_app_without_telemetry_stays_without() {
    let test = start(app().without_telemetry()).await;
    test.publish("orders", "42").await;
    assert!(!test.next_delivery("reserved").await.headers().contains("traceparent"));
    test.trace().await.assert_tree("publish orders");
}

#[tokio::test]
async fn an_app_on_the_global_providers_is_captured_with_every_default() {
    let test = start(app()).await;
    test.publish("orders", "42").await;
    assert!(test.next_delivery("reserved").await.headers().contains("traceparent"));
    test.trace().await.assert_tree(
        "
        publish orders
        └─ process orders
           └─ publish reserved
    ",
    );
}
