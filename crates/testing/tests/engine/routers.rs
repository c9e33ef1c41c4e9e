//! Routers, prefixes, and the order of middleware (design, section 3; issue 3, section 2).

use std::time::Duration;

use async_trait::async_trait;
use throughline_core::extract::{Batch, State};
use throughline_core::middleware::{Next, NextPublish};
use throughline_core::{
    App, Delivery, Envelope, Handler, Middleware, Outcome, PublishError, Publisher, Receipt, Router,
};
use throughline_memory::Channel;
use throughline_testing::start;

use crate::support::Seen;

/// Writes down when a delivery or a publish passes it, on the way in and on the way out.
struct Trace(&'static str, Seen<String>);

#[async_trait]
impl Middleware for Trace {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        self.1.push(format!("{} in {}", self.0, delivery.messages().len()));
        let outcome = next.run(delivery).await;
        self.1.push(format!("{} out", self.0));
        outcome
    }

    async fn publish(&self, envelope: Envelope, next: NextPublish<'_>) -> Result<Receipt, PublishError> {
        self.1.push(format!("{} publishes {}", self.0, envelope.messages().len()));
        next.run(envelope.with_header("passed", self.0)).await
    }
}

fn note(name: &'static str, seen: &Seen<String>) -> Trace {
    Trace(name, seen.clone())
}

async fn handle(_order: String, State(seen): State<Seen<String>>) {
    seen.push("handler".to_owned());
}

/// As written: app, router, route, each in its own order, whatever was written before the subscription.
#[tokio::test]
async fn middleware_runs_in_the_order_written_from_the_app_to_the_route() {
    let seen = Seen::new();
    let route = handle.middleware(note("route 1", &seen)).middleware(note("route 2", &seen));
    let inner = Router::new().subscribe(Channel::new("placed"), route).middleware(note("inner", &seen));
    let outer = Router::new().middleware(note("outer", &seen)).nest("eu.", inner);
    let app = App::new()
        .middleware(note("app 1", &seen))
        .nest("orders.", outer)
        .middleware(note("app 2", &seen))
        .with_state(seen.clone());
    let test = start(app).await;
    test.publish("orders.eu.placed", "42").await;
    test.settle().await;
    let expected = ["app 1 in 1", "app 2 in 1", "outer in 1", "inner in 1", "route 1 in 1", "route 2 in 1", "handler"];
    let back = ["route 2 out", "route 1 out", "inner out", "outer out", "app 2 out", "app 1 out"];
    assert_eq!(seen.take(), Vec::from_iter(expected.into_iter().chain(back)));
}

/// A router's middleware is around its own subscriptions and no others.
#[tokio::test]
async fn a_routers_middleware_is_around_its_own_subscriptions() {
    let seen = Seen::new();
    let router = Router::new().subscribe(Channel::new("placed"), handle).middleware(note("router", &seen));
    let app = App::new().nest("orders.", router).subscribe(Channel::new("bills"), handle).with_state(seen.clone());
    let test = start(app).await;
    test.publish("bills", "1").await;
    test.settle().await;
    assert_eq!(seen.take(), ["handler"]);
    test.publish("orders.placed", "1").await;
    test.settle().await;
    assert_eq!(seen.take(), ["router in 1", "handler", "router out"]);
}

/// ATTR-M-01: a prefix is part of the subscribed name, also in telemetry and with placeholders.
#[tokio::test]
async fn a_prefix_is_part_of_the_name() {
    async fn reply(order: String) -> String {
        order
    }
    let router = Router::new().subscribe(Channel::new("{id}.placed"), reply.reply_to("replies"));
    let test = start(App::new().nest("orders.", router)).await;
    test.publish("orders.42.placed", "42").await;
    test.trace().await.assert_tree(
        "
        publish orders.42.placed
        └─ process orders.{id}.placed
           └─ publish replies
        ",
    );
}

/// Design, section 3: one chain for messages and batches; a batch never bypasses middleware.
#[tokio::test]
async fn middleware_is_around_batches_too() {
    async fn handle(_orders: Batch<String>, State(seen): State<Seen<String>>) {
        seen.push("handler".to_owned());
    }
    let seen = Seen::new();
    let batches = Channel::new("orders").batch(3, Duration::from_secs(5));
    let app = App::new().subscribe(batches, handle.middleware(note("route", &seen)));
    let test = start(app.middleware(note("app", &seen)).with_state(seen.clone())).await;
    test.publisher().publish_batch("orders", ["1", "2", "3"]).await.unwrap();
    test.settle().await;
    assert_eq!(seen.take(), ["app in 3", "route in 3", "handler", "route out", "app out"]);
}

/// Middleware is around what handlers publish: single messages, batches, replies and dead letters.
#[tokio::test]
async fn middleware_is_around_everything_a_handler_publishes() {
    async fn publish(order: String, publisher: Publisher) -> Result<String, PublishError> {
        publisher.publish("single", "1").await?;
        publisher.publish_batch("several", ["1", "2"]).await?;
        Ok(order)
    }
    async fn reject(_order: String) -> throughline_core::Settlement {
        throughline_core::Settlement::reject("no")
    }
    let seen = Seen::new();
    let app = App::new()
        .subscribe(Channel::new("orders"), publish.reply_to("replies").middleware(note("route", &seen)))
        .subscribe(Channel::new("bills"), reject.dead_letter("dead"))
        .middleware(note("app", &seen));
    let test = start(app).await;
    test.publish("orders", "42").await;
    for destination in ["single", "several", "several", "replies"] {
        assert_eq!(test.next_delivery(destination).await.headers().get("passed"), Some("route"), "{destination}");
    }
    test.settle().await;
    let publishes =
        |seen: &Seen<String>| Vec::from_iter(seen.take().into_iter().filter(|line| line.contains("publishes")));
    let expected = [1, 2, 1].map(|count| [format!("app publishes {count}"), format!("route publishes {count}")]);
    assert_eq!(publishes(&seen), expected.as_flattened());
    test.publish("bills", "42").await;
    assert_eq!(test.next_delivery("dead").await.headers().get("passed"), Some("app"));
    test.settle().await;
    assert_eq!(publishes(&seen), ["app publishes 1"]);
}

/// PROP-05: a header that middleware or a user copies from an incoming message does not mislead the next reader.
#[tokio::test]
async fn copied_propagation_headers_are_overwritten() {
    async fn copy(delivery: Delivery, publisher: Publisher) -> Result<(), PublishError> {
        let mut copy = Envelope::new("copied", delivery.payload().clone());
        *copy.headers_mut() = delivery.headers().clone();
        copy.headers_mut().append("Traceparent", "00-11111111111111111111111111111111-1111111111111111-01");
        publisher.publish_envelope(copy).await.map(drop)
    }
    let test = start(App::new().subscribe(Channel::new("orders"), copy)).await;
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    let copied = test.next_delivery("copied").await;
    assert_eq!(crate::support::traceparent(&copied), crate::support::ids(tree.find("publish copied")));
    let names = copied.headers().iter().filter(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
    assert_eq!(names.count(), 1);
}
