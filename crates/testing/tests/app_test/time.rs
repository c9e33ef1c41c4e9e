//! On a paused clock delays take no time, and no wait of the test ends before the app is done.

use std::time::Duration;

use throughline_core::extract::{Batch, State};
use throughline_core::middleware::Retry;
use throughline_core::{App, Delivery, Handler, RetryPolicy, Settlement};
use throughline_memory::Channel;
use throughline_testing::start;
use tokio::time::Instant;

use crate::support::{HOUR, OutOfStock, SECOND, Seen, orders};

async fn fail(_order: String) -> Result<(), OutOfStock> {
    Err(OutOfStock)
}

#[tokio::test(start_paused = true)]
async fn retries_of_half_a_minute_take_no_time() {
    async fn slowly(delivery: Delivery) -> Settlement {
        if delivery.attempt() < 10 { Settlement::retry_after(30 * SECOND) } else { Settlement::Ack }
    }
    let (began, really) = (Instant::now(), std::time::Instant::now());
    let test = start(App::new().subscribe(Channel::new("orders"), slowly)).await;
    test.publish("orders", "1").await;
    test.trace().await;
    assert_eq!(test.broker().settled().len(), 10);
    assert!(began.elapsed() >= 9 * 30 * SECOND && really.elapsed() < 9 * 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_after_a_day_is_waited_for() {
    async fn slowly(order: String) -> String {
        tokio::time::sleep(24 * HOUR).await;
        order
    }
    let test = start(App::new().subscribe(Channel::new("orders"), slowly.reply_to("done"))).await;
    test.publish("orders", "1").await;
    assert_eq!(test.next::<String>("done").await, "1");
}

#[tokio::test(start_paused = true)]
async fn the_failure_rule_ends_in_the_dead_letter() {
    let test = start(App::new().subscribe(Channel::new("orders"), fail.dead_letter("dead"))).await;
    test.publish("orders", "1").await;
    assert_eq!(test.next::<String>("dead").await, "1");
}

#[tokio::test(start_paused = true)]
async fn retries_in_place_take_no_time() {
    let retry = || Retry::new(RetryPolicy::new().first_delay(30 * SECOND));
    for subscription in [Channel::new("orders").into(), orders(&[])] {
        let app: App = App::new().subscribe(subscription, fail.dead_letter("dead"));
        let test = start(app.middleware(retry())).await;
        test.publish("orders", "1").await;
        assert_eq!(test.next::<String>("dead").await, "1");
        test.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_full_takes_no_time() {
    async fn count(batch: Batch<String>, State(seen): State<Seen<usize>>) {
        seen.push(batch.len());
    }
    let seen = Seen::new();
    let app = App::new().subscribe(Channel::new("orders").batch(100, HOUR), count).with_state(seen.clone());
    let test = start(app).await;
    test.publish("orders", "1").await;
    test.publish("orders", "2").await;
    test.settle().await;
    assert_eq!(seen.take(), [2]);
}

/// The limit is real time, so that a handler that hangs ends the test on a paused clock, too.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "the app is still busy after 20ms")]
async fn a_handler_that_hangs_ends_the_test_on_a_paused_clock() {
    async fn hang(_order: String) {
        std::future::pending().await
    }
    let test = start(App::new().subscribe(Channel::new("orders"), hang)).await.patience(Duration::from_millis(20));
    test.publish("orders", "1").await;
    test.settle().await;
}
