//! A publish, a confirmation or a settlement that fails on purpose, as on a real broker.

use throughline_core::broker::{BrokerErrorKind, PublishErrorKind};
use throughline_core::extract::State;
use throughline_core::telemetry::SettleSpans;
use throughline_core::{App, Delivery, Handler, PublishError, Publisher, Settlement};
use throughline_memory::Channel;
use throughline_testing::{attribute, start, start_with};

use crate::support::Seen;

async fn reserve(order: String) -> String {
    order
}

fn replying() -> App {
    App::new().subscribe(Channel::new("orders"), reserve.reply_to("reserved").dead_letter("dead"))
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_fails_for_a_while_is_published_in_the_end() {
    let test = start(replying()).await;
    test.broker().fail_next_publish("reserved", PublishErrorKind::Unavailable);
    test.broker().fail_next_publish("reserved", PublishErrorKind::Disconnected);
    test.publish("orders", "42").await;
    assert_eq!(test.next::<String>("reserved").await, "42");
    let tree = test.trace().await;
    let replies = tree.find_all("publish reserved");
    let errors: Vec<_> = replies.iter().map(|span| attribute(span, "error.type").map(ToString::to_string)).collect();
    assert_eq!(errors, [Some("unavailable".to_owned()), Some("disconnected".to_owned()), None]);
    assert_eq!(test.broker().settled().len(), 1, "the handler was not asked again");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_can_never_pass_is_a_failure_of_its_message() {
    let test = start(replying()).await;
    test.broker().fail_next_publish("reserved", PublishErrorKind::TooLarge);
    test.publish("orders", "42").await;
    let dead = test.next_delivery("dead").await;
    let reason = dead.header("dead-letter-reason").unwrap();
    assert!(reason.contains("its reply cannot be published (too_large)"), "{reason}");
}

#[tokio::test]
async fn a_handler_gets_the_kind_and_only_there() {
    async fn forward(order: String, publisher: Publisher, State(seen): State<Seen<PublishErrorKind>>) {
        for destination in ["bills", "stock", "stock"] {
            let sent: Result<_, PublishError> = publisher.publish(destination, order.clone()).await;
            if let Err(error) = sent {
                assert!(error.to_string().contains("`stock`"), "{error}");
                seen.push(error.kind());
            }
        }
    }
    let seen = Seen::new();
    let test = start(App::new().subscribe(Channel::new("orders"), forward).with_state(seen.clone())).await;
    test.broker().fail_next_publish("stock", PublishErrorKind::NotFound);
    test.publish("orders", "42").await;
    test.settle().await;
    assert_eq!(seen.take(), [PublishErrorKind::NotFound]);
    assert_eq!(test.next::<String>("bills").await, "42");
    assert_eq!(test.next::<String>("stock").await, "42");
}

/// The connection of the test is its own.
#[tokio::test]
async fn what_the_test_publishes_is_not_concerned() {
    let test = start(App::new()).await;
    test.broker().fail_next_publish("orders", PublishErrorKind::Refused);
    test.publish("orders", "42").await;
    assert_eq!(test.next::<String>("orders").await, "42");
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_that_is_lost_makes_a_message_come_twice() {
    let test = start(replying()).await;
    test.broker().lose_next_confirmation("reserved");
    test.publish("orders", "42").await;
    test.settle().await;
    for _ in 0..2 {
        assert_eq!(test.next::<String>("reserved").await, "42");
    }
}

#[tokio::test]
async fn a_settlement_that_fails_brings_the_message_again() {
    async fn note(delivery: Delivery, State(seen): State<Seen<u32>>) {
        seen.push(delivery.attempt());
    }
    let seen = Seen::new();
    let app = App::new().subscribe(Channel::new("orders"), note).with_state(seen.clone());
    let test = start_with(app, |telemetry| telemetry.settle_spans(SettleSpans::Always)).await;
    test.broker().fail_next_settlement("orders", BrokerErrorKind::Timeout);
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    assert_eq!(seen.take(), [1, 2]);
    let settled = test.broker().settled();
    assert_eq!(
        settled.iter().map(|one| (one.delivery.attempt(), &one.settlement)).collect::<Vec<_>>(),
        [(2, &Settlement::Ack)]
    );
    let errors: Vec<_> =
        tree.find_all("ack orders").iter().map(|span| attribute(span, "error.type").map(ToString::to_string)).collect();
    assert_eq!(errors, [Some("timeout".to_owned()), None]);
}
