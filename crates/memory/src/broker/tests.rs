use std::sync::Arc;

use throughline_core::broker::{Pattern, Wildcards};
use throughline_core::message::{Native, Operations};
use throughline_core::{Destination, Envelope, Settlement};

use super::*;
use crate::Channel;
use crate::testing::{next, next_body, nothing_waits, publish, settle, subscribe};

const RABBIT: Wildcards = Wildcards::new('.', "*", "#").rest_may_be_empty();

#[tokio::test]
async fn a_subscription_of_another_broker_keeps_its_own_wildcards() {
    let memory = Memory::new();
    let mut logs = subscribe(&memory, Subscription::new("rabbitmq", Pattern::new("logs.#", RABBIT))).await;
    publish(&memory, "logs", "1").await;
    publish(&memory, "logs.a.b", "2").await;
    assert_eq!([next_body(&mut logs).await, next_body(&mut logs).await], ["1", "2"]);
}

#[tokio::test]
async fn keys_are_matched_within_their_exchange() {
    let memory = Memory::new();
    let placed = Pattern::new("placed.#", RABBIT).within("orders");
    let mut queue =
        subscribe(&memory, Subscription::new("rabbitmq", placed).with_pattern(Pattern::exact("stock"))).await;
    for destination in [
        Destination::new("placed.eu"),
        Destination::new("placed.eu").within("bills"),
        Destination::new("paid.eu").within("orders"),
        Destination::new("placed.eu").within("orders"),
        Destination::new("stock"),
    ] {
        let text = format!("{}:{}", destination.namespace().unwrap_or_default(), destination.name());
        memory.transport().publish(Envelope::new(destination, text)).await.unwrap();
    }
    assert_eq!([next_body(&mut queue).await, next_body(&mut queue).await], ["orders:placed.eu", ":stock"]);
    nothing_waits(&mut queue).await;
}

#[tokio::test]
async fn a_named_subscription_of_another_broker_acts_as_a_group() {
    let memory = Memory::new();
    let durable = || Subscription::new("nats", Pattern::exact("orders")).with_name("stock");
    let (mut one, mut two) = (subscribe(&memory, durable()).await, subscribe(&memory, durable()).await);
    publish(&memory, "orders", "1").await;
    assert_eq!(next_body(&mut one).await, "1");
    nothing_waits(&mut two).await;
}

#[tokio::test]
async fn a_batching_subscription_of_another_broker_is_accepted() {
    let policy = throughline_core::broker::BatchPolicy::new(10, Duration::from_millis(1));
    let subscription = Subscription::new("kafka", Pattern::exact("orders")).with_group("g").with_batch(policy);
    let memory = Memory::new();
    let mut orders = subscribe(&memory, subscription).await;
    publish(&memory, "orders", "1").await;
    assert_eq!(next_body(&mut orders).await, "1");
}

#[tokio::test]
async fn what_only_the_real_broker_can_do_is_refused_by_name() {
    let subscription = Subscription::new("nats", Pattern::exact("orders")).with_need("a start position");
    let error = Memory::new().subscribe(&subscription).await.err().unwrap();
    assert_eq!((error.kind(), error.error_type()), (BrokerErrorKind::Unsupported, "unsupported"));
    let text = error.to_string();
    assert!(text.contains("a start position") && text.contains("run this test on the real broker (nats)"), "{text}");
}

#[tokio::test]
async fn a_subscription_without_a_name_is_refused() {
    let error = Memory::new().subscribe(&Channel::new("").into()).await.err().unwrap();
    assert_eq!(error.kind(), BrokerErrorKind::Configuration);
}

#[tokio::test]
async fn two_handlers_in_one_group_are_refused_together() {
    let one = Subscription::from(Channel::new("orders").group("stock"));
    let error = Memory::new().check(&[&one, &one]).unwrap_err();
    assert_eq!(error.kind(), BrokerErrorKind::Configuration);
}

#[tokio::test]
async fn native_data_of_a_ready_made_delivery_survives_redelivery() {
    struct Offset(i64);
    impl Native for Offset {}

    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    let reached = memory.deliver(Delivery::new("orders", "x").with_native(Arc::new(Offset(12))).with_attempt(3));
    assert_eq!(reached, 1);
    drop(next(&mut orders).await);
    let again = next(&mut orders).await.delivery.clone();
    assert_eq!(again.native::<Offset>().map(|offset| offset.0), Some(12));
    assert_eq!(again.attempt(), 4);
}

#[tokio::test]
async fn a_ready_made_batch_is_delivered_message_by_message() {
    let memory = Memory::new();
    let mut all = subscribe(&memory, Channel::new(">")).await;
    memory.deliver(Delivery::batch(vec![Delivery::new("a", "1"), Delivery::new("b", "2")]));
    assert_eq!([next_body(&mut all).await, next_body(&mut all).await], ["1", "2"]);
}

#[tokio::test]
async fn settlements_are_recorded_in_order() {
    let memory = Memory::recording();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "1").await;
    settle(next(&mut orders).await, Settlement::retry()).await;
    settle(next(&mut orders).await, Settlement::reject("no")).await;

    let settled = memory.settled_within(2, Duration::from_secs(5)).await.unwrap();
    let seen: Vec<_> = settled.iter().map(|m| (m.delivery.attempt(), m.settlement.clone())).collect();
    assert_eq!(seen, [(1, Settlement::retry()), (2, Settlement::reject("no"))]);
    assert_eq!((settled[0].delivery.destination(), settled[0].delivery.payload().as_ref()), ("orders", &b"1"[..]));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_settlements_ends_at_the_deadline() {
    let error = Memory::recording().settled_within(1, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), BrokerErrorKind::Timeout);
}

#[tokio::test]
async fn waiting_for_settlements_needs_a_recording_broker() {
    let error = Memory::new().settled_within(1, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), BrokerErrorKind::Configuration);
}

#[tokio::test(start_paused = true)]
async fn a_broker_is_idle_only_when_the_last_attempt_is_done() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "1").await;
    let idle = tokio::spawn({
        let memory = memory.clone();
        async move { memory.idle().await }
    });
    settle(next(&mut orders).await, Settlement::retry_after(Duration::from_secs(60))).await;
    let second = next(&mut orders).await;
    assert!(!idle.is_finished());
    settle(second, Settlement::Ack).await;
    idle.await.unwrap();
}

#[tokio::test]
async fn a_message_nobody_wants_leaves_the_broker_idle() {
    let memory = Memory::new();
    publish(&memory, "orders", "1").await;
    memory.idle().await;
}

#[tokio::test]
async fn shutdown_of_one_clone_leaves_the_others_working() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    memory.clone().shutdown().await.unwrap();
    publish(&memory, "orders", "1").await;
    assert_eq!(next_body(&mut orders).await, "1");
}

#[tokio::test]
async fn an_imitated_system_shows_in_sources_and_targets() {
    let nats = Memory::new().with_system(System::new("nats", Operations::DEFAULT));
    let orders = subscribe(&nats, Channel::new("orders")).await;
    assert_eq!((orders.source().system.name(), nats.transport().system().name()), ("nats", "nats"));
}
