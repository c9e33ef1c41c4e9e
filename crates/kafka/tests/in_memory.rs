//! An app whose subscriptions are topics starts in a test, on the in-memory broker, and what fails there is tried again as on Kafka.

use std::time::Duration;

use throughline_core::{App, Delivery, Handler};
use throughline_kafka::Topic;
use throughline_testing::start;
use tokio::time::Instant;

const DELAYS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(3600)];

fn orders() -> Topic {
    Topic::new("orders").group("stock")
}

async fn fail(delivery: Delivery) -> Result<(), std::fmt::Error> {
    if delivery.payload().starts_with(b"good") { Ok(()) } else { Err(std::fmt::Error) }
}

#[tokio::test(start_paused = true)]
async fn retry_topics_hold_messages_for_their_delays_and_then_give_them_up() {
    let began = Instant::now();
    let app = App::new().subscribe(orders().retry_topics(DELAYS), fail.dead_letter("orders.dead"));
    let test = start(app).await;
    test.publish("orders", "bad").await;
    test.publish("orders", "good").await;

    for (topic, attempt) in [("orders.stock.retry.1", "2"), ("orders.stock.retry.2", "3")] {
        let waiting = test.next_delivery(topic).await;
        assert_eq!((waiting.header("retry-attempt"), waiting.header("retry-origin")), (Some(attempt), Some("orders")));
        assert_eq!(waiting.header("retry-error"), Some("core::fmt::Error"));
    }
    let dead = test.next_delivery("orders.dead").await;
    assert_eq!(dead.header("dead-letter-reason"), Some("failed 3 times"));
    assert!(
        began.elapsed() >= DELAYS[0] + DELAYS[1] && began.elapsed() < DELAYS[0] + DELAYS[1] + Duration::from_secs(1)
    );
    test.settle().await;
    let attempts: Vec<_> = test.broker().settled().iter().map(|one| one.delivery.attempt()).collect();
    assert_eq!(attempts, [1, 1, 2, 3], "the second message was not held up");
}

#[tokio::test(start_paused = true)]
async fn without_them_a_message_is_tried_again_in_its_place() {
    let test = start(App::new().subscribe(orders(), fail.dead_letter("orders.dead"))).await;
    test.publish("orders", "bad").await;
    test.publish("orders", "good").await;
    test.settle().await;
    let settled = test.broker().settled();
    let bodies: Vec<_> = settled.iter().map(|one| one.delivery.payload().as_ref()).collect();
    assert_eq!(bodies, [b"bad".as_ref(), b"good"]);
    assert_eq!(settled[0].delivery.attempt(), 10);
}
