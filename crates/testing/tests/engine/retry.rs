//! Trying again: the failure rule, and the retry middleware (design, section 5).

use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status};
use throughline_core::extract::{Batch, Json, State};
use throughline_core::middleware::Retry;
use throughline_core::{App, Delivery, Handler, PublishError, Publisher, RetryPolicy, Settlement};
use throughline_memory::{Channel, SettledMessage};
use throughline_testing::{AppTest, attribute, start};
use tokio::time::Instant;

use crate::support::Seen;

type Failed = Result<(), std::fmt::Error>;

/// Longer than ten attempts with their back-off take.
const LONG: Duration = Duration::from_secs(3600);

async fn fail(_order: String) -> Failed {
    Err(std::fmt::Error)
}

async fn settled(test: &AppTest, count: usize) -> Vec<SettledMessage> {
    test.broker().settled_within(count, LONG).await.unwrap()
}

fn policy() -> RetryPolicy {
    RetryPolicy::new().max_delay(Duration::from_secs(1))
}

fn retry() -> Retry {
    Retry::new(policy())
}

/// Design, section 5: ten attempts with a growing delay and jitter, then the message is given up.
#[tokio::test(start_paused = true)]
async fn a_failing_message_is_tried_ten_times_and_then_rejected() {
    let test = start(App::new().subscribe(Channel::new("orders"), fail)).await;
    test.publish("orders", "42").await;
    let settled = settled(&test, 10).await;
    let mut most = Duration::from_millis(100);
    for (index, message) in settled[..9].iter().enumerate() {
        assert_eq!(message.delivery.attempt() as usize, index + 1);
        let Settlement::Retry { after: Some(delay) } = message.settlement else { panic!("{message:?}") };
        assert!(delay <= most && delay >= most / 2, "attempt {}: {delay:?} of {most:?}", index + 1);
        most *= 2;
    }
    assert_eq!(settled[9].settlement, Settlement::reject("failed 10 times"));
    assert_eq!(test.capture().tree().find_all("process orders").len(), 10, "every attempt is visible");
}

/// Design, section 5: then dead letter, if one is set.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_out_of_attempts_becomes_a_dead_letter() {
    let test = start(App::new().subscribe(Channel::new("orders"), fail.dead_letter("dead"))).await;
    test.publish("orders", "42").await;
    assert_eq!(settled(&test, 10).await[9].settlement, Settlement::Ack);
    let dead = test.next_delivery("dead").await;
    assert_eq!(dead.headers().get("dead-letter-reason"), Some("failed 10 times"));
}

/// Design, section 5: a decision of the handler to try again is not bounded.
#[tokio::test(start_paused = true)]
async fn what_a_handler_decides_is_not_bounded() {
    async fn later(delivery: Delivery) -> Settlement {
        if delivery.attempt() < 15 { Settlement::retry() } else { Settlement::Ack }
    }
    let test = start(App::new().subscribe(Channel::new("orders"), later)).await;
    test.publish("orders", "42").await;
    assert_eq!(settled(&test, 15).await[14].settlement, Settlement::Ack);
}

/// GOLD-X-07, issue 3: each further attempt is a span below the process span, and what it publishes is below that.
#[tokio::test(start_paused = true)]
async fn each_further_attempt_in_place_has_a_span() {
    async fn reserve(delivery: Delivery, publisher: Publisher) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        publisher.publish("attempts", delivery.attempt().to_string()).await?;
        if delivery.attempt() < 3 {
            Err("no bread")?
        }
        Ok(())
    }
    let test = start(App::new().subscribe(Channel::new("orders"), reserve.middleware(retry()))).await;
    test.publish("orders", "42").await;
    let tree = test.trace().await;
    tree.assert_tree(
        "
        publish orders
        └─ process orders
           ├─ publish attempts
           ├─ retry
           │  └─ publish attempts
           └─ retry
              └─ publish attempts
        ",
    );
    let attempts = tree.find_all("retry");
    let shown: Vec<_> = attempts.iter().map(|span| attribute(span, "throughline.attempt").cloned()).collect();
    assert_eq!(shown, [Some(2.into()), Some(3.into())]);
    assert!(attempts.iter().all(|span| span.span_kind == SpanKind::Internal));
    assert_eq!((&attempts[0].status, &attempts[1].status), (&Status::error(""), &Status::Unset));
}

/// The retry middleware replaces the failure rule's attempts; deliveries by the broker count.
#[tokio::test(start_paused = true)]
async fn attempts_in_place_are_bounded_and_end_in_the_dead_letter() {
    async fn count(_order: String, delivery: Delivery, State(seen): State<Seen<u32>>) -> Failed {
        seen.push(delivery.attempt());
        Err(std::fmt::Error)
    }
    let seen = Seen::new();
    let route = count.middleware(Retry::new(policy().attempts(4))).dead_letter("dead");
    let test = start(App::new().subscribe(Channel::new("orders"), route).with_state(seen.clone())).await;
    test.publish("orders", "42").await;
    assert_eq!(test.next_delivery("dead").await.headers().get("dead-letter-reason"), Some("failed 4 times"));
    test.settle().await;
    assert_eq!(seen.take(), [1, 2, 3, 4]);
    test.broker().deliver(Delivery::new("orders", "43").with_attempt(3));
    test.settle().await;
    assert_eq!(seen.take(), [3, 4]);
    test.broker().deliver(Delivery::new("orders", "44").with_attempt(9));
    test.settle().await;
    assert_eq!(seen.take(), [9], "handled once, since it is here");
}

/// More attempts than the failure rule's ten are possible.
#[tokio::test(start_paused = true)]
async fn attempts_in_place_may_be_more_than_ten() {
    async fn succeed_at_12(delivery: Delivery) -> Failed {
        if delivery.attempt() < 12 { Err(std::fmt::Error) } else { Ok(()) }
    }
    let route = succeed_at_12.middleware(Retry::new(policy().attempts(20)));
    let test = start(App::new().subscribe(Channel::new("orders"), route)).await;
    test.publish("orders", "42").await;
    assert_eq!(settled(&test, 1).await[0].settlement, Settlement::Ack);
}

/// A batch that fails as a whole is tried as a whole, bounded, and then each of its messages is given up.
#[tokio::test(start_paused = true)]
async fn a_batch_is_tried_again_as_a_whole_and_then_given_up() {
    async fn count(batch: Batch<String>, State(seen): State<Seen<usize>>) -> Failed {
        seen.push(batch.len());
        Err(std::fmt::Error)
    }
    let seen = Seen::new();
    let batches = Channel::new("orders").batch(2, Duration::from_secs(1));
    let route = count.middleware(Retry::new(policy().attempts(3))).dead_letter("dead");
    let test = start(App::new().subscribe(batches, route).with_state(seen.clone())).await;
    test.publisher().publish_batch("orders", ["1", "2"]).await.unwrap();
    let settled = settled(&test, 2).await;
    assert_eq!(seen.take(), [2, 2, 2]);
    assert!(settled.iter().all(|message| message.settlement == Settlement::Ack), "{settled:?}");
    for body in ["1", "2"] {
        assert_eq!(test.next::<String>("dead").await, body);
    }
}

/// Messages of a batch that were handled are not handled again because another one failed.
#[tokio::test(start_paused = true)]
async fn a_failed_message_of_a_batch_comes_back_alone() {
    async fn handle(batch: Batch<String>, State(seen): State<Seen<String>>) {
        for message in batch {
            let is_first = message.delivery().attempt() == 1;
            seen.push(message.body().clone());
            message.run(async |body| if body == "bad" && is_first { Err(std::fmt::Error) } else { Ok(()) }).await;
        }
    }
    let seen = Seen::new();
    let batches = Channel::new("orders").batch(2, Duration::from_secs(1));
    let test = start(App::new().subscribe(batches, handle.middleware(retry())).with_state(seen.clone())).await;
    test.publisher().publish_batch("orders", ["good", "bad"]).await.unwrap();
    test.settle().await;
    assert_eq!(seen.take(), ["good", "bad", "bad"]);
}

/// Design, section 5: with one message at a time, a retry in place keeps the order.
#[tokio::test(start_paused = true)]
async fn a_retry_in_place_keeps_the_order() {
    async fn handle(order: String, delivery: Delivery, State(seen): State<Seen<String>>) -> Failed {
        if order == "1" && delivery.attempt() < 3 {
            return Err(std::fmt::Error);
        }
        seen.push(order);
        Ok(())
    }
    let seen = Seen::new();
    let app = App::new().subscribe(Channel::new("orders"), handle.middleware(retry())).with_state(seen.clone());
    let test = start(app).await;
    test.publisher().publish_batch("orders", ["1", "2", "3"]).await.unwrap();
    test.settle().await;
    assert_eq!(seen.take(), ["1", "2", "3"]);
}

/// STAT-11: what no attempt can mend is not tried again, in place either.
#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_decoded_is_not_tried_again_in_place() {
    async fn handle(_order: Json<u64>) {}
    let test = start(App::new().subscribe(Channel::new("orders"), handle.middleware(retry()))).await;
    let began = Instant::now();
    test.publish("orders", "no number").await;
    assert_eq!(settled(&test, 1).await[0].settlement, Settlement::reject("decode_error"));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// A panic is tried again like an error, in place as well.
#[tokio::test(start_paused = true)]
async fn a_panic_is_tried_again() {
    async fn handle(delivery: Delivery) {
        assert!(delivery.attempt() > 2, "no bread");
    }
    let test = start(App::new().subscribe(Channel::new("orders"), handle.middleware(retry()))).await;
    test.publish("orders", "42").await;
    assert_eq!(settled(&test, 1).await[0].settlement, Settlement::Ack);
    assert_eq!(test.capture().tree().find("process orders").status, Status::Unset, "STAT-04");
}

/// A publish error is an error like any other, and `?` is enough.
#[tokio::test(start_paused = true)]
async fn a_failed_publish_in_a_handler_is_tried_again() {
    async fn publish(publisher: Publisher, delivery: Delivery) -> Result<(), PublishError> {
        let destination = if delivery.attempt() == 1 { "" } else { "done" };
        publisher.publish(destination, "1").await.map(drop)
    }
    let test = start(App::new().subscribe(Channel::new("orders"), publish)).await;
    test.publish("orders", "42").await;
    assert_eq!(test.next::<String>("done").await, "1");
}
