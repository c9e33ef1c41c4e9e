//! A connection that is lost, for a while or for good.

use throughline_core::broker::{BrokerErrorKind, PublishErrorKind};
use throughline_core::extract::State;
use throughline_core::serve::HealthState;
use throughline_core::{App, Handler, Publisher, ServeErrorKind, serve};
use throughline_memory::{Channel, Memory};
use throughline_testing::start;

use crate::support::Seen;

async fn reserve(order: String) -> String {
    order
}

#[tokio::test(start_paused = true)]
async fn subscriptions_wait_until_the_connection_is_back() {
    let test = start(App::new().subscribe(Channel::new("orders"), reserve.reply_to("reserved"))).await;
    test.publish("orders", "before").await;
    assert_eq!(test.next::<String>("reserved").await, "before");
    test.broker().disconnect();
    test.publish("orders", "meanwhile").await;
    // Whatever the app would do by itself, it does now.
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    assert_eq!(test.broker().open().len(), 1, "the message waits in the broker");
    let state = test.health().subscriptions()[0].state.clone();
    assert!(matches!(&state, HealthState::Degraded(why) if why.contains("connection")), "{state:?}");

    assert!(!test.health().is_ready() && test.health().is_live());

    test.broker().reconnect();
    assert_eq!(test.next::<String>("reserved").await, "meanwhile");
    test.settle().await;
    assert!(test.health().is_ready());
    assert_eq!(test.health().subscriptions()[0].state, HealthState::Ready);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_handled_can_neither_publish_nor_settle_and_comes_again() {
    async fn handle(
        order: String,
        publisher: Publisher,
        State((memory, seen)): State<(Memory, Seen<Option<PublishErrorKind>>)>,
    ) {
        if seen_is_empty(&seen) {
            memory.disconnect();
        }
        seen.push(publisher.publish("bills", order).await.err().map(|error| error.kind()));
    }
    fn seen_is_empty<T: Clone>(seen: &Seen<T>) -> bool {
        let all = seen.take();
        all.iter().cloned().for_each(|one| seen.push(one));
        all.is_empty()
    }
    let (memory, seen) = (Memory::recording(), Seen::new());
    let app =
        App::new().subscribe(Channel::new("orders").group("stock"), handle).with_state((memory.clone(), seen.clone()));
    let _running = serve(memory.clone(), app.without_telemetry()).start().await.unwrap();
    memory.connect().publisher().publish("orders", "42").await.unwrap();
    while memory.open().first().is_none_or(|message| message.delivery.attempt() == 1) {
        tokio::task::yield_now().await;
    }
    assert!(memory.settled().is_empty() && memory.is_disconnected());
    memory.reconnect();
    memory.idle().await;
    assert_eq!(seen.take(), [Some(PublishErrorKind::Disconnected), None]);
    assert_eq!(memory.settled()[0].delivery.attempt(), 2);
}

#[tokio::test]
async fn a_connection_that_is_lost_for_good_ends_the_app_with_that_error() {
    let memory = Memory::new();
    let app: App = App::new().subscribe(Channel::new("orders"), reserve.reply_to("reserved"));
    let running = serve(memory.clone(), app.without_telemetry()).start().await.unwrap();
    memory.disconnect_for_good();
    let error = running.run_until(std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), ServeErrorKind::Ended);
    assert_eq!(error.broker_error().unwrap().kind(), BrokerErrorKind::Disconnected);
    let app: App = App::new().subscribe(Channel::new("orders"), reserve.reply_to("reserved"));
    let again = serve(memory.clone(), app.without_telemetry()).start().await.unwrap_err();
    assert_eq!(again.broker_error().unwrap().kind(), BrokerErrorKind::Disconnected);
}

/// A member of a group whose connection is lost keeps nothing from the others.
#[tokio::test]
async fn the_other_members_of_a_group_take_what_comes() {
    async fn note(order: String, State(seen): State<Seen<String>>) {
        seen.push(order);
    }
    let (lost, there) = (Seen::new(), Seen::new());
    let app = |seen: &Seen<String>| {
        App::new().subscribe(Channel::new("orders").group("stock"), note).with_state(seen.clone())
    };
    let test = start(app(&lost)).await;
    let _other = serve(test.broker().connect(), app(&there).without_telemetry()).start().await.unwrap();
    // Both wait for a message.
    tokio::task::yield_now().await;
    test.broker().disconnect();
    for order in 0..20 {
        test.publish("orders", order.to_string()).await;
        tokio::task::yield_now().await;
    }
    test.settle().await;
    assert_eq!((lost.take().len(), there.take().len()), (0, 20));
}
