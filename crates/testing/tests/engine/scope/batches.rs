//! Batches: each message has a scope of its own within that of the batch.

use std::time::Duration;

use throughline_core::extract::{Baggage, Batch, State as AppState};
use throughline_core::middleware::Next;
use throughline_core::{App, CurrentBaggage, Delivery, Handler, Middleware, Outcome, PublishError, Publisher};
use throughline_memory::Channel;

use super::states::{Own, State, World};
use crate::support::{SPAN, TRACE, TRACEPARENT, traceparent};

fn orders() -> Channel {
    Channel::new("orders").batch(2, Duration::from_secs(5))
}

async fn arrive(world: &World) {
    world.arrive_with("1", "tenant=acme").await;
    world.arrive_with("2", "tenant=globex").await;
    world.test.settle().await;
}

/// What is published for one message: in its trace, with its baggage.
async fn assert_of_message(world: &World, destination: &str, baggage: [&'static str; 2]) {
    let state = world.state;
    let message = world.test.next_delivery(destination).await;
    let found = message.headers().get("baggage").unwrap_or_default();
    assert_eq!(found, if state.has_headers() { baggage[0] } else { baggage[1] }, "`{destination}`, {state:?}");
    assert_eq!(message.headers().contains("traceparent"), state.has_headers(), "`{destination}`, {state:?}");
    if state.has_headers() {
        assert_eq!(traceparent(&message).0, TRACE, "`{destination}`, {state:?}");
    }
    if state == State::NoSdk {
        assert_eq!(message.headers().get("traceparent"), Some(TRACEPARENT));
    }
    if state == State::Sampled {
        let spans = world.test.capture().spans();
        let send = spans.iter().find(|span| crate::support::ids(span) == traceparent(&message)).unwrap();
        assert_eq!(send.parent_span_id.to_string(), SPAN);
    }
}

/// Issue 3: changes to one message's baggage do not leak into another's, nor into the batch's.
#[tokio::test]
async fn each_message_keeps_its_changes_to_itself() {
    async fn handle(batch: Batch<String>, publisher: Publisher, own: AppState<Own>) -> Result<String, PublishError> {
        for message in batch {
            let delivery = message.delivery().clone();
            message.set("seen", message.body().clone());
            let (own, publisher) = (own.0.clone(), publisher.clone());
            let work = async |body: String| {
                own.publish("state").await?;
                delivery.baggage().set("late", body);
                own.publish("state").await?;
                publisher.publish("extracted", "42").await?;
                Ok::<_, PublishError>("one".to_owned())
            };
            assert!(message.run(work).await);
        }
        own.0.publish("batch").await?;
        Ok("all".to_owned())
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(orders(), handle.reply_to("replies"))).await;
        arrive(&world).await;
        for (seen, late) in [
            (["seen=1,tenant=acme", "seen=1"], ["late=1,seen=1,tenant=acme", "late=1,seen=1"]),
            (["seen=2,tenant=globex", "seen=2"], ["late=2,seen=2,tenant=globex", "late=2,seen=2"]),
        ] {
            assert_of_message(&world, "state", seen).await;
            assert_of_message(&world, "state", late).await;
            assert_of_message(&world, "extracted", late).await;
        }
        let merged = state.has_headers().then_some("tenant=globex");
        assert_eq!(world.test.next_delivery("batch").await.headers().get("baggage"), merged, "{state:?}");
        assert_eq!(world.test.next_delivery("replies").await.headers().get("baggage"), merged, "{state:?}");
        assert_of_message(&world, "replies", ["late=1,seen=1,tenant=acme", "late=1,seen=1"]).await;
        assert_of_message(&world, "replies", ["late=2,seen=2,tenant=globex", "late=2,seen=2"]).await;
    }
}

/// A message nobody asks anything before its work begins.
#[tokio::test]
async fn a_message_that_is_asked_only_in_its_own_work_carries_the_changes() {
    async fn handle(batch: Batch<String>, own: AppState<Own>) -> Result<(), PublishError> {
        for message in batch {
            let delivery = message.delivery().clone();
            let work = async |body: String| {
                delivery.baggage().set("seen", body);
                own.0.publish("state").await
            };
            message.run(work).await;
        }
        own.0.publish("batch").await
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(orders(), handle)).await;
        arrive(&world).await;
        assert_of_message(&world, "state", ["seen=1,tenant=acme", "seen=1"]).await;
        assert_of_message(&world, "state", ["seen=2,tenant=globex", "seen=2"]).await;
        let merged = state.has_headers().then_some("tenant=globex");
        assert_eq!(world.test.next_delivery("batch").await.headers().get("baggage"), merged, "{state:?}");
    }
}

/// Hands on a batch of its own making, and publishes when that was handled.
struct Rebatch(Own);

#[async_trait::async_trait]
impl Middleware for Rebatch {
    async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
        let outcome = next.run(Delivery::batch(delivery.messages().to_vec())).await;
        self.0.publish("after").await.expect("published");
        outcome
    }
}

/// What is current recognises the message, also where the delivery does not.
#[tokio::test]
async fn changes_are_those_of_the_batch_also_where_middleware_made_it_anew() {
    async fn handle(_batch: Batch<String>, baggage: Baggage, own: AppState<Own>) -> Result<(), PublishError> {
        baggage.set("warehouse", "north");
        own.0.publish("inside").await
    }
    for state in State::ALL {
        let own = Own::new();
        let route = handle.middleware(Rebatch(own.clone()));
        let world = state.start_with(App::new().subscribe(orders(), route), own).await;
        arrive(&world).await;
        let merged = if state.has_headers() { "tenant=globex,warehouse=north" } else { "warehouse=north" };
        for destination in ["inside", "after"] {
            let sent = world.test.next_delivery(destination).await;
            assert_eq!(sent.headers().get("baggage"), Some(merged), "`{destination}`, {state:?}");
        }
    }
}

/// BAGG-12: the handler's changes are those of the batch, and stay out of the messages.
#[tokio::test]
async fn changes_to_the_baggage_of_a_batch_are_carried_by_what_the_batch_publishes() {
    async fn handle(batch: Batch<String>, baggage: Baggage, own: AppState<Own>) -> Result<String, PublishError> {
        baggage.set("warehouse", "north");
        own.0.publish("batch").await?;
        for message in batch {
            assert_eq!(message.get("warehouse"), None);
            message.run(async |_| own.0.publish("state").await).await;
        }
        Ok("all".to_owned())
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(orders(), handle.reply_to("replies"))).await;
        arrive(&world).await;
        let merged = if state.has_headers() { "tenant=globex,warehouse=north" } else { "warehouse=north" };
        for destination in ["batch", "replies"] {
            let sent = world.test.next_delivery(destination).await;
            assert_eq!(sent.headers().get("baggage"), Some(merged), "{state:?}");
        }
        assert_of_message(&world, "state", ["tenant=acme", ""]).await;
        assert_of_message(&world, "state", ["tenant=globex", ""]).await;
    }
}

/// The scopes of the messages are found through the batch's as well.
#[tokio::test]
async fn the_scope_of_a_message_can_be_made_current_by_hand() {
    use opentelemetry::context::FutureExt;
    async fn handle(batch: Baggage, own: AppState<Own>) -> Result<(), PublishError> {
        for (index, scope) in batch.baggage_scope().messages().iter().enumerate() {
            let work = async {
                scope.set("seen", index.to_string());
                own.0.publish("state").await
            };
            work.with_context(scope.context().clone()).await?;
        }
        Ok(())
    }
    async fn with_batch(_batch: Batch<String>, baggage: Baggage, own: AppState<Own>) -> Result<(), PublishError> {
        handle(baggage, own).await
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(orders(), with_batch)).await;
        arrive(&world).await;
        assert_of_message(&world, "state", ["seen=0,tenant=acme", "seen=0"]).await;
        assert_of_message(&world, "state", ["seen=1,tenant=globex", "seen=1"]).await;
    }
}
