use std::time::Duration;

use throughline_core::Settlement;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;
use crate::testing::{body, next, next_body, nothing_waits, publish, settle, subscribe};
use crate::{Channel, Memory};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_subscription_without_a_group_gets_every_message() {
    let memory = Memory::new();
    let (mut one, mut two) =
        (subscribe(&memory, Channel::new("orders")).await, subscribe(&memory, Channel::new("orders.>")).await);
    let mut three = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "1").await;
    publish(&memory, "orders.eu", "2").await;
    assert_eq!((next_body(&mut one).await, next_body(&mut three).await), ("1".into(), "1".into()));
    assert_eq!(next_body(&mut two).await, "2");
    for subscriber in [&mut one, &mut two, &mut three] {
        nothing_waits(subscriber).await;
    }
}

#[tokio::test]
async fn a_group_shares_messages() {
    let memory = Memory::new();
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(subscribe(&memory, Channel::new("orders").group("stock")).await);
    }
    let mut other = subscribe(&memory, Channel::new("orders").group("billing")).await;
    for body in ["1", "2", "3"] {
        publish(&memory, "orders", body).await;
    }
    let mut shared = Vec::new();
    for member in &mut members {
        shared.push(next_body(member).await);
    }
    assert_eq!(shared, ["1", "2", "3"]);
    for expected in ["1", "2", "3"] {
        assert_eq!(next_body(&mut other).await, expected);
    }
    for subscriber in members.iter_mut().chain([&mut other]) {
        nothing_waits(subscriber).await;
    }
}

#[tokio::test]
async fn a_group_is_fair() {
    let memory = Memory::new();
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let mut member = subscribe(&memory, Channel::new("orders").group("stock")).await;
        tasks.spawn(async move {
            let mut seen = 0;
            while next_body(&mut member).await != "end" {
                seen += 1;
            }
            seen
        });
    }
    for _ in 0..10 {
        publish(&memory, "orders", "x").await;
    }
    for _ in 0..2 {
        publish(&memory, "orders", "end").await;
    }
    let seen = tasks.join_all().await;
    assert!(seen.iter().all(|count| *count > 2), "one member starved: {seen:?}");
}

#[tokio::test]
async fn one_group_over_different_patterns_gets_each_message_once() {
    let memory = Memory::new();
    let mut wide = subscribe(&memory, Channel::new("orders.*").group("stock")).await;
    let mut narrow = subscribe(&memory, Channel::new("orders.placed").group("stock")).await;
    publish(&memory, "orders.placed", "1").await;
    publish(&memory, "orders.placed", "2").await;
    let mut both = [next_body(&mut wide).await, next_body(&mut narrow).await];
    both.sort();
    assert_eq!(both, ["1", "2"]);
    nothing_waits(&mut wide).await;
    nothing_waits(&mut narrow).await;
}

#[tokio::test]
async fn a_message_reaches_only_subscriptions_that_exist_when_it_is_published() {
    let memory = Memory::new();
    publish(&memory, "orders", "early").await;
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "late").await;
    assert_eq!(next_body(&mut orders).await, "late");
}

#[tokio::test]
async fn messages_keep_their_order() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    for body in ["1", "2", "3", "4"] {
        publish(&memory, "orders", body).await;
    }
    for expected in ["1", "2", "3", "4"] {
        assert_eq!(next_body(&mut orders).await, expected);
    }
}

#[tokio::test]
async fn a_waiting_receive_is_woken_and_a_dropped_one_loses_nothing() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    nothing_waits(&mut orders).await;
    let waiting = tokio::spawn(async move { next_body(&mut orders).await });
    tokio::task::yield_now().await;
    publish(&memory, "orders", "1").await;
    assert_eq!(waiting.await.unwrap(), "1");
}

#[tokio::test]
async fn a_member_that_stops_waiting_passes_the_message_on() {
    let memory = Memory::new();
    let mut gone = subscribe(&memory, Channel::new("orders").group("g")).await;
    let mut stays = subscribe(&memory, Channel::new("orders").group("g")).await;
    let (mut first, mut second) = (gone.receive(), stays.receive());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending() && second.as_mut().poll(&mut context).is_pending());
    publish(&memory, "orders", "1").await;
    drop(first);
    assert_eq!(body(&second.await.unwrap()), "1");
}

#[tokio::test]
async fn an_acknowledged_or_rejected_message_does_not_come_back() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    for settlement in [Settlement::Ack, Settlement::reject("no")] {
        publish(&memory, "orders", "1").await;
        settle(next(&mut orders).await, settlement).await;
    }
    nothing_waits(&mut orders).await;
    memory.idle().await;
}

#[tokio::test]
async fn a_retry_without_a_delay_comes_back_at_once_to_its_place() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "1").await;
    publish(&memory, "orders", "2").await;
    settle(next(&mut orders).await, Settlement::retry()).await;
    let again = next(&mut orders).await;
    assert_eq!((body(&again).as_str(), again.delivery.attempt()), ("1", 2));
    assert!(orders.redelivers());
}

#[tokio::test(start_paused = true)]
async fn a_retry_comes_back_after_its_delay_and_others_go_on() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "1").await;
    publish(&memory, "orders", "2").await;
    settle(next(&mut orders).await, Settlement::retry_after(MINUTE)).await;
    let start = Instant::now();
    assert_eq!(next_body(&mut orders).await, "2");
    assert_eq!(start.elapsed(), Duration::ZERO);
    let again = next(&mut orders).await;
    assert_eq!((body(&again).as_str(), again.delivery.attempt()), ("1", 2));
    assert!(start.elapsed() >= MINUTE && start.elapsed() < 2 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_message_reaches_a_member_that_was_waiting_before() {
    let memory = Memory::new();
    let mut one = subscribe(&memory, Channel::new("orders").group("g")).await;
    let mut two = subscribe(&memory, Channel::new("orders").group("g")).await;
    publish(&memory, "orders", "1").await;
    let received = next(&mut one).await;
    let waiting = tokio::spawn(async move { next(&mut two).await.delivery.attempt() });
    tokio::task::yield_now().await;
    settle(received, Settlement::retry_after(MINUTE)).await;
    drop(one);
    assert_eq!(waiting.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_endless_delay_does_not_panic() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "1").await;
    settle(next(&mut orders).await, Settlement::retry_after(Duration::MAX)).await;
    nothing_waits(&mut orders).await;
}

#[tokio::test]
async fn unsettled_messages_go_back_to_their_places() {
    let memory = Memory::recording();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    for body in ["1", "2", "3"] {
        publish(&memory, "orders", body).await;
    }
    let (one, two) = (next(&mut orders).await, next(&mut orders).await);
    drop(one);
    drop(two);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let received = next(&mut orders).await;
        seen.push((body(&received), received.delivery.attempt()));
        settle(received, Settlement::Ack).await;
    }
    assert_eq!(seen, [("1".into(), 2), ("2".into(), 2), ("3".into(), 1)]);
    assert_eq!(memory.settled().len(), 3);
}

#[tokio::test]
async fn the_message_of_an_aborted_handler_is_delivered_again() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "1").await;
    let received = next(&mut orders).await;
    let handler = tokio::spawn(async move {
        let _received = received;
        std::future::pending::<()>().await;
    });
    handler.abort();
    assert_eq!(next(&mut orders).await.delivery.attempt(), 2);
}

#[tokio::test]
async fn only_the_first_settlement_counts() {
    let memory = Memory::recording();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "1").await;
    let mut received = next(&mut orders).await;
    received.settle(&Settlement::Ack).await.unwrap();
    received.settle(&Settlement::retry()).await.unwrap();
    drop(received);
    nothing_waits(&mut orders).await;
    assert_eq!(memory.settled().len(), 1);
}

#[tokio::test]
async fn a_closed_member_leaves_its_messages_to_the_group() {
    let memory = Memory::new();
    let mut one = subscribe(&memory, Channel::new("orders").group("g")).await;
    let mut two = subscribe(&memory, Channel::new("orders").group("g")).await;
    publish(&memory, "orders", "1").await;
    publish(&memory, "orders", "2").await;
    let in_hand = next(&mut one).await;
    one.close(tokio::time::Instant::now()).await;
    drop(in_hand);
    assert_eq!([next_body(&mut two).await, next_body(&mut two).await], ["1", "2"]);
    assert_eq!(one.receive().await.err().map(|error| error.kind()), Some(BrokerErrorKind::Ended));
}

#[tokio::test]
async fn what_the_last_member_leaves_waits_for_the_next_one() {
    let memory = Memory::new();
    let mut old = subscribe(&memory, Channel::new("orders").group("g")).await;
    publish(&memory, "orders", "1").await;
    publish(&memory, "orders", "2").await;
    let in_hand = next(&mut old).await;
    old.close(tokio::time::Instant::now()).await;
    publish(&memory, "orders", "nobody is there").await;
    let mut new = subscribe(&memory, Channel::new("orders").group("g")).await;
    drop(in_hand);
    assert_eq!([next_body(&mut new).await, next_body(&mut new).await], ["1", "2"]);
    nothing_waits(&mut new).await;
    memory.idle().await;
}

#[tokio::test]
async fn what_a_subscription_without_a_group_leaves_ends_with_it() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    for body in ["1", "2", "3"] {
        publish(&memory, "orders", body).await;
    }
    let (one, two) = (next(&mut orders).await, next(&mut orders).await);
    drop(orders);
    settle(one, Settlement::retry_after(MINUTE)).await;
    drop(two);
    memory.idle().await;
}

#[tokio::test]
async fn a_stopped_broker_ends_a_waiting_receive_with_an_error() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders.*").group("g")).await;
    let waiting = tokio::spawn(async move { orders.receive().await.map(|_| ()).unwrap_err() });
    tokio::task::yield_now().await;
    memory.stop();
    let error = waiting.await.unwrap();
    assert_eq!((error.kind(), error.error_type()), (BrokerErrorKind::Ended, "ended"));
}

#[tokio::test]
async fn a_group_goes_on_with_new_members_after_a_stop() {
    let memory = Memory::new();
    let mut old = subscribe(&memory, Channel::new("orders").group("g")).await;
    let mut alone = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "1").await;
    memory.stop();
    let mut new = subscribe(&memory, Channel::new("orders").group("g")).await;
    old.close(tokio::time::Instant::now()).await;
    publish(&memory, "orders", "2").await;
    assert_eq!([next_body(&mut new).await, next_body(&mut new).await], ["1", "2"]);
    assert!(alone.receive().await.is_err());
    memory.idle().await;
}

#[tokio::test]
async fn the_payload_is_shared_between_subscriptions() {
    let memory = Memory::new();
    let mut one = subscribe(&memory, Channel::new("orders")).await;
    let mut two = subscribe(&memory, Channel::new("orders")).await;
    publish(&memory, "orders", "shared").await;
    let (one, two) = (next(&mut one).await, next(&mut two).await);
    assert_eq!(one.delivery.payload().as_ptr(), two.delivery.payload().as_ptr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_message_is_handled_once() {
    let memory = Memory::recording();
    let mut members = JoinSet::new();
    for _ in 0..4 {
        let mut member = subscribe(&memory, Channel::new("orders").group("g")).await;
        members.spawn(async move {
            while let Ok(received) = member.receive().await {
                settle(received, Settlement::Ack).await;
            }
        });
    }
    let mut publishers = JoinSet::new();
    for _ in 0..4 {
        let memory = memory.clone();
        publishers.spawn(async move {
            for _ in 0..500 {
                publish(&memory, "orders", "x").await;
            }
        });
    }
    publishers.join_all().await;
    memory.idle().await;
    assert_eq!(memory.settled().len(), 2000);
    memory.stop();
    members.join_all().await;
}

#[tokio::test]
async fn what_is_here_is_handed_out_without_waiting_and_in_order() {
    let memory = Memory::new();
    let mut orders = subscribe(&memory, Channel::new("orders")).await;
    assert!(orders.try_receive().is_none());
    for body in ["1", "2", "3", "4"] {
        publish(&memory, "orders", body).await;
    }
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let mut ready = orders.try_receive().unwrap().unwrap();
        bodies.push(body(&ready));
        ready.settle(&Settlement::Ack).await.unwrap();
        bodies.push(next_body(&mut orders).await);
    }
    assert_eq!(bodies, ["1", "2", "3", "4"]);
    assert!(orders.try_receive().is_none());
    memory.stop();
    assert!(orders.try_receive().unwrap().is_err());
}

#[tokio::test]
async fn without_waiting_a_member_that_was_just_served_lets_the_others_go_first() {
    let memory = Memory::new();
    let mut one = subscribe(&memory, Channel::new("orders").group("stock")).await;
    let mut two = subscribe(&memory, Channel::new("orders").group("stock")).await;
    for body in ["1", "2", "3"] {
        publish(&memory, "orders", body).await;
    }
    let first = one.try_receive().unwrap().unwrap();
    assert!(one.try_receive().is_none());
    let second = two.try_receive().unwrap().unwrap();
    assert_eq!((body(&first), body(&second)), ("1".to_owned(), "2".to_owned()));
}

#[tokio::test]
async fn every_member_that_waits_is_woken_for_a_message_of_its_own() {
    let memory = Memory::new();
    let mut one = subscribe(&memory, Channel::new("orders").group("stock")).await;
    let mut two = subscribe(&memory, Channel::new("orders").group("stock")).await;
    // One that gave up waiting must not take the place of one that still does.
    nothing_waits(&mut one).await;
    let publishing = async {
        for body in ["1", "2"] {
            publish(&memory, "orders", body).await;
        }
    };
    let (one, two, ()) = tokio::join!(next(&mut one), next(&mut two), publishing);
    let mut bodies = [body(&one), body(&two)];
    bodies.sort();
    assert_eq!(bodies, ["1", "2"]);
}
