//! Attempts in place, and the dead letter after them.

use std::time::Duration;

use throughline_core::extract::{Baggage, ProcessSpan, State as AppState};
use throughline_core::middleware::Retry;
use throughline_core::{
    App, CurrentBaggage, CurrentSpan, Delivery, Handler, PublishError, Publisher, RetryPolicy, Settlement,
};
use throughline_memory::Channel;

use super::states::{AS_IT_CAME, CHANGED, Carried, Own, State};
use crate::support::TRACEPARENT;

type Failed = Result<String, Box<dyn std::error::Error + Send + Sync>>;

/// GEN-06, GOLD-X-07: each attempt has the scope of the message; what it publishes is below the attempt's span.
#[tokio::test(start_paused = true)]
async fn every_attempt_has_the_same_scope() {
    async fn handle(
        delivery: Delivery,
        span: ProcessSpan,
        baggage: Baggage,
        publisher: Publisher,
        AppState(own): AppState<Own>,
    ) -> Failed {
        let attempt = delivery.attempt();
        span.set_attribute("order.attempt", i64::from(attempt));
        baggage.set("attempt", attempt.to_string());
        own.publish("state").await?;
        publisher.publish("extracted", "42").await?;
        if attempt < 3 {
            Err("no bread")?;
        }
        Ok("reply".to_owned())
    }
    let retry = Retry::new(RetryPolicy::new().first_delay(Duration::from_millis(10)));
    for state in State::ALL {
        let route = handle.middleware(retry.clone()).reply_to("replies");
        let world = state.start(App::new().subscribe(Channel::new("orders"), route)).await;
        world.arrive().await;
        for (attempt, parent) in [("1", "process orders"), ("2", "retry"), ("3", "retry")] {
            let expected = match state.has_headers() {
                true => format!("attempt={attempt},tenant=acme,user=bob"),
                false => format!("attempt={attempt}"),
            };
            world.sent_below(parent, "state", &expected).await;
            world.sent_below(parent, "extracted", &expected).await;
        }
        world.sent("replies", ("attempt=3,tenant=acme,user=bob", "attempt=3")).await;
        world.assert_exported_once("order.attempt", 3).await;
    }
}

async fn takes_baggage(baggage: Baggage, AppState(own): AppState<Own>) -> Result<Settlement, PublishError> {
    baggage.set("warehouse", "north");
    CurrentBaggage::remove(&baggage, "user");
    own.publish("state").await?;
    Ok(Settlement::reject("no bread"))
}

async fn takes_nothing(_order: String, AppState(own): AppState<Own>) -> Result<Settlement, PublishError> {
    own.publish("state").await?;
    Ok(Settlement::reject("no bread"))
}

/// SPAN-37: a dead letter is the message as it came. One that came without a trace is published like any other message.
#[tokio::test]
async fn a_dead_letter_is_the_same_with_and_without_middleware() {
    struct Nothing;
    impl throughline_core::Middleware for Nothing {}

    let orders = || Channel::new("orders");
    for state in State::ALL {
        let apps: [(App<Own>, Carried); 4] = [
            (App::new().subscribe(orders(), takes_nothing.dead_letter("dead")), AS_IT_CAME),
            (App::new().subscribe(orders(), takes_nothing.dead_letter("dead").middleware(Nothing)), AS_IT_CAME),
            (App::new().subscribe(orders(), takes_baggage.dead_letter("dead")), CHANGED),
            (App::new().subscribe(orders(), takes_baggage.dead_letter("dead").middleware(Nothing)), CHANGED),
        ];
        for (app, carried) in apps {
            let world = state.start(app).await;
            world.arrive().await;
            world.sent("state", carried).await;
            let dead = world.test.next_delivery("dead").await;
            let found = (dead.headers().get("traceparent").map(str::to_owned), dead.headers().get("baggage"));
            let baggage = if state.has_headers() { AS_IT_CAME.0 } else { carried.1 };
            assert_eq!(found, (state.traceparent(), Some(baggage).filter(|text| !text.is_empty())), "{state:?}");
            assert!(!state.has_headers() || found.0.is_some_and(|text| text.starts_with(&TRACEPARENT[..52])));
        }
    }
}
