//! Handlers that change their baggage, and handlers that ask for nothing.

use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracer};
use throughline_core::extract::{Baggage, ProcessSpan, State as AppState};
use throughline_core::{App, CurrentBaggage, CurrentSpan, Handler, Headers, PublishError, Publisher};
use throughline_memory::Channel;
use throughline_testing::Capture;
use tokio::task::spawn;

use super::states::{AS_IT_CAME, CHANGED, Own, State};
use crate::support::{SPAN, TRACE};

fn change(baggage: &impl CurrentBaggage) {
    baggage.set("warehouse", "north");
    CurrentBaggage::remove(baggage, "user");
}

#[tokio::test]
async fn whatever_publishes_carries_what_a_handler_changed() {
    async fn handle(
        baggage: Baggage,
        publisher: Publisher,
        AppState(own): AppState<Own>,
    ) -> Result<String, PublishError> {
        own.publish("state.before").await?;
        publisher.publish("extracted.before", "42").await?;
        change(&baggage);
        own.publish("state").await?;
        publisher.publish("extracted", "42").await?;
        let (theirs, other) = (own.clone(), publisher.clone());
        spawn(async move { theirs.publish("state.task").await }.with_current_context()).await.unwrap()?;
        spawn(async move { other.publish("extracted.task", "42").await }).await.unwrap()?;
        spawn(async move { publisher.publish("extracted.passed", "42").await }.with_current_context())
            .await
            .unwrap()?;
        Ok("reply".to_owned())
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(Channel::new("orders"), handle.reply_to("replies"))).await;
        for _ in 0..2 {
            world.arrive().await;
            for destination in ["state.before", "extracted.before"] {
                world.sent(destination, AS_IT_CAME).await;
            }
            for destination in ["state", "extracted", "state.task", "extracted.task", "extracted.passed", "replies"] {
                world.sent(destination, CHANGED).await;
            }
        }
    }
}

#[tokio::test]
async fn a_handler_that_only_takes_its_baggage_changes_what_others_publish_for_it() {
    async fn handle(_order: String, baggage: Baggage, AppState(own): AppState<Own>) -> Result<String, PublishError> {
        change(&baggage);
        own.publish("state").await.map(|()| "reply".to_owned())
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(Channel::new("orders"), handle.reply_to("replies"))).await;
        world.arrive().await;
        world.sent("state", CHANGED).await;
        world.sent("replies", CHANGED).await;
    }
}

#[tokio::test]
async fn cleared_baggage_is_not_carried() {
    async fn handle(
        baggage: Baggage,
        publisher: Publisher,
        AppState(own): AppState<Own>,
    ) -> Result<String, PublishError> {
        baggage.set("shelf", "a1");
        baggage.clear();
        own.publish("cleared").await?;
        baggage.set("warehouse", "north");
        publisher.publish("extracted", "42").await?;
        own.publish("state").await.map(|()| "reply".to_owned())
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(Channel::new("orders"), handle.reply_to("replies"))).await;
        world.arrive().await;
        world.sent("cleared", ("", "")).await;
        for destination in ["extracted", "state", "replies"] {
            world.sent(destination, ("warehouse=north", "warehouse=north")).await;
        }
    }
}

#[tokio::test]
async fn what_a_task_changes_is_carried_by_the_handlers_reply() {
    async fn handle(baggage: Baggage, AppState(own): AppState<Own>) -> Result<String, PublishError> {
        spawn(async move { change(&baggage) }).await.unwrap();
        own.publish("state").await.map(|()| "reply".to_owned())
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(Channel::new("orders"), handle.reply_to("replies"))).await;
        world.arrive().await;
        world.sent("state", CHANGED).await;
        world.sent("replies", CHANGED).await;
    }
}

#[tokio::test]
async fn the_message_surrounds_a_handler_that_asks_for_nothing() {
    async fn handle(_order: String, _headers: Headers, AppState(own): AppState<Own>) -> Result<String, PublishError> {
        own.publish("state").await.map(|()| "reply".to_owned())
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(Channel::new("orders"), handle.reply_to("replies"))).await;
        for _ in 0..2 {
            world.arrive().await;
            world.sent("state", AS_IT_CAME).await;
            world.sent("replies", AS_IT_CAME).await;
        }
    }
}

/// Starts a span of the user's own in a handler; returns its trace and its parent, and the process span where one is exported.
async fn parent_of_own_span(state: State, asks: bool) -> (String, String, Option<String>) {
    let own = Capture::with_sampler(Sampler::AlwaysOn);
    let tracer: SdkTracer = own.tracer_provider().tracer("service");
    let pack = move || tracer.in_span("pack", |_| ());
    let orders = Channel::new("orders");
    let app = if asks {
        App::new().subscribe(orders, move |span: ProcessSpan| {
            assert_eq!(&span.span_context(), Context::current().span().span_context());
            pack();
            async {}
        })
    } else {
        App::new().subscribe(orders, move |_order: String| {
            pack();
            async {}
        })
    };
    let world = state.start(app).await;
    world.arrive().await;
    world.test.settle().await;
    let pack = own.tree().find("pack").clone();
    let process = world.test.capture().spans().into_iter().find(|span| span.name == "process orders");
    let process = process.map(|span| span.span_context.span_id().to_string());
    (pack.span_context.trace_id().to_string(), pack.parent_span_id.to_string(), process)
}

#[tokio::test]
async fn a_span_of_the_users_own_is_a_child_of_what_surrounds_the_handler() {
    const NONE: &str = "0000000000000000";
    for asks in [false, true] {
        for state in State::ALL {
            let (trace, parent, process) = parent_of_own_span(state, asks).await;
            match state {
                State::NoSdkNoHeaders | State::NoSdkNoHeadersFirst => assert_eq!(parent, NONE, "{state:?}"),
                State::NoSdk => assert_eq!((trace.as_str(), parent.as_str()), (TRACE, SPAN)),
                State::AlwaysOff | State::UnsampledParent => {
                    assert!(trace == TRACE && parent != SPAN && parent != NONE, "{state:?}: {parent}");
                }
                State::Sampled => assert_eq!((trace.as_str(), Some(parent)), (TRACE, process)),
            }
        }
    }
}

#[tokio::test]
async fn nothing_surrounds_the_next_message_of_a_worker() {
    async fn handle(order: String, baggage: Baggage, AppState(own): AppState<Own>) -> Result<(), PublishError> {
        if order == "1" {
            change(&baggage);
            own.publish("changed").await?;
        }
        own.publish("done").await
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(Channel::new("orders"), handle)).await;
        for (body, carried) in [("1", CHANGED), ("2", AS_IT_CAME)] {
            world.arrive_with(body, AS_IT_CAME.0).await;
            world.sent("done", carried).await;
        }
        assert!(!Context::current().has_active_span());
    }
}
