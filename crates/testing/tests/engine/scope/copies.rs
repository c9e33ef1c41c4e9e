//! Copies of a delivery that are asked later than the handler was called.

use std::collections::HashMap;

use opentelemetry::context::FutureExt;
use throughline_core::extract::{Baggage, FromDelivery, Rejection, State as AppState};
use throughline_core::{App, CurrentBaggage, CurrentSpan, Delivery, Handler, PublishError, Publisher};
use throughline_memory::Channel;
use tokio::task::spawn;

use super::states::{AS_IT_CAME, CHANGED, Own, State};
use crate::support::{TRACE, TRACEPARENT, ids};

/// An argument of the user's own that keeps the delivery, and asks it nothing.
struct Kept(Delivery);

impl<S: Sync> FromDelivery<S> for Kept {
    async fn from_delivery(delivery: &Delivery, _state: &S) -> Result<Self, Rejection> {
        Ok(Self(delivery.clone()))
    }
}

fn change(delivery: &Delivery) {
    delivery.baggage().set("warehouse", "north");
    delivery.baggage().remove("user");
    delivery.set_attribute("order.items", 1);
    delivery.set_attribute("order.items", 3);
}

#[tokio::test]
async fn a_kept_copy_changes_what_is_published() {
    async fn handle(Kept(delivery): Kept, AppState(own): AppState<Own>) -> Result<String, PublishError> {
        change(&delivery);
        own.publish("state").await?;
        let mut call = HashMap::new();
        delivery.inject(&mut call);
        own.calls.push(call);
        Ok("reply".to_owned())
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(Channel::new("orders"), handle.reply_to("replies"))).await;
        world.arrive().await;
        world.sent("state", CHANGED).await;
        world.sent("replies", CHANGED).await;
        world.assert_exported_once("order.items", 3).await;
        let call = world.own.calls.one();
        assert_eq!(call.get("baggage").map(String::as_str), Some(state.carried(CHANGED)), "{state:?}");
        let traceparent = call.get("traceparent").map(String::as_str);
        match state {
            State::NoSdkNoHeaders | State::NoSdkNoHeadersFirst => assert_eq!(traceparent, None),
            State::NoSdk => assert_eq!(traceparent, Some(TRACEPARENT)),
            State::AlwaysOff | State::UnsampledParent => {
                assert!(traceparent.unwrap().contains(TRACE) && traceparent.unwrap().ends_with("-00"));
            }
            State::Sampled => {
                let (trace, span) = ids(world.test.capture().tree().find("process orders"));
                assert_eq!(traceparent, Some(format!("00-{trace}-{span}-01").as_str()));
            }
        }
    }
}

/// TRAP-02: all copies share one scope, also where no context is current.
#[tokio::test]
async fn a_kept_copy_in_a_task_changes_what_the_publisher_of_the_handler_carries() {
    async fn kept(Kept(delivery): Kept, publisher: Publisher) -> Result<String, PublishError> {
        spawn(async move {
            change(&delivery);
            publisher.publish("task", "42").await.map(|_| "reply".to_owned())
        })
        .await
        .unwrap()
    }
    async fn plain(delivery: Delivery, publisher: Publisher) -> Result<String, PublishError> {
        kept(Kept(delivery), publisher).await
    }
    for state in State::ALL {
        let apps = [
            App::new().subscribe(Channel::new("orders"), kept.reply_to("replies")),
            App::new().subscribe(Channel::new("orders"), plain.reply_to("replies")),
        ];
        for app in apps {
            let world = state.start(app).await;
            world.arrive().await;
            world.sent("task", CHANGED).await;
            world.sent("replies", CHANGED).await;
            world.assert_exported_once("order.items", 3).await;
        }
    }
}

#[tokio::test]
async fn copies_and_baggage_see_each_others_changes() {
    async fn handle(
        Kept(one): Kept,
        two: Delivery,
        baggage: Baggage,
        AppState(own): AppState<Own>,
    ) -> Result<(), PublishError> {
        let task = async move {
            change(&one);
            assert_eq!(
                (two.baggage().get("warehouse").as_deref(), baggage.get("warehouse").as_deref()),
                (Some("north"), Some("north"))
            );
            assert_eq!((two.baggage().get("user"), baggage.get("user")), (None, None));
        };
        spawn(task).await.unwrap();
        let publish = async move { own.publish("state").await };
        spawn(publish.with_current_context()).await.unwrap()
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(Channel::new("orders"), handle)).await;
        world.arrive().await;
        world.sent("state", CHANGED).await;
    }
}

/// A copy belongs to its own message, also where it is used while another one is handled.
#[tokio::test]
async fn a_copy_of_an_earlier_message_changes_nothing_about_a_later_one() {
    async fn handle(Kept(delivery): Kept, AppState(own): AppState<Own>) -> Result<(), PublishError> {
        if let Some(earlier) = own.kept.take().pop() {
            change(&earlier);
            assert_eq!(earlier.baggage().get("warehouse").as_deref(), Some("north"));
            assert_eq!(delivery.baggage().get("warehouse"), None);
            return own.publish("state").await;
        }
        own.kept.push(delivery);
        Ok(())
    }
    for state in State::ALL {
        let world = state.start(App::new().subscribe(Channel::new("orders"), handle)).await;
        world.arrive().await;
        world.arrive().await;
        world.sent("state", AS_IT_CAME).await;
    }
}
