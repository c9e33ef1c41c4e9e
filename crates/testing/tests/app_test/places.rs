//! Messages that are tried again wait as they do on the broker that the subscription is made for.

use std::time::Duration;

use throughline_core::extract::State;
use throughline_core::{App, Delivery, Envelope, Handler, Settlement};
use throughline_testing::{AppTest, attribute, start};
use tokio::time::Instant;

use crate::support::{OutOfStock, SECOND, Seen, orders};

/// What a handler was given: body, attempt, and when.
type Call = (String, u32, Duration);

#[derive(Clone)]
struct Shop {
    began: Instant,
    calls: Seen<Call>,
    /// How often an order fails.
    fails: u32,
}

impl Shop {
    fn that_fails(fails: u32) -> Self {
        Self { began: Instant::now(), calls: Seen::new(), fails }
    }

    fn note(&self, delivery: &Delivery) -> String {
        let body = String::from_utf8(delivery.payload().to_vec()).unwrap();
        self.calls.push((body.clone(), delivery.attempt(), self.began.elapsed()));
        body
    }
}

/// Fails for every order but those that are to pass.
async fn reserve(delivery: Delivery, State(shop): State<Shop>) -> Result<(), OutOfStock> {
    let is_good = shop.note(&delivery).starts_with("good");
    if is_good || delivery.attempt() > shop.fails { Ok(()) } else { Err(OutOfStock) }
}

fn acked(test: &AppTest) -> Vec<(String, Settlement)> {
    let settled = test.broker().settled();
    settled.iter().map(|one| (one.delivery.destination().to_owned(), one.settlement.clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_failing_message_is_forwarded_waits_and_comes_back_with_its_attempt() {
    let shop = Shop::that_fails(2);
    let subscription = orders(&[5 * SECOND, 60 * SECOND]);
    let test = start(App::new().subscribe(subscription, reserve).with_state(shop.clone())).await;
    test.publish("orders", "bad").await;
    test.publish("orders", "good").await;
    test.settle().await;

    let calls = shop.calls.take();
    let wanted = [("bad", 1, 0), ("good", 1, 0), ("bad", 2, 5), ("bad", 3, 65)];
    assert_eq!(calls.len(), wanted.len(), "{calls:?}");
    for ((body, attempt, at), (wanted, number, seconds)) in calls.iter().zip(wanted) {
        assert_eq!((body.as_str(), *attempt), (wanted, number));
        // Timers of tokio are exact to the millisecond.
        let due = seconds * SECOND;
        assert!(*at >= due && *at < due + SECOND / 10, "{calls:?}");
    }
    let spans = test.capture().tree().find_all("process orders").into_iter().cloned().collect::<Vec<_>>();
    let text = |span, key| attribute(span, key).map(ToString::to_string);
    let last = spans.iter().find(|span| text(span, "throughline.attempt").as_deref() == Some("3")).expect("attempt 3");
    assert_eq!(text(last, "throughline.retry.destination").as_deref(), Some("orders.wait.1"));
    assert!(text(last, "throughline.retry.cause").unwrap().ends_with("OutOfStock"));
    let first = test.next_delivery("orders.wait.0").await;
    assert_eq!((first.header("retry-attempt"), first.header("retry-origin")), (Some("2"), Some("orders")));
    assert!(first.header("retry-error").unwrap().ends_with("OutOfStock"));
    assert_eq!(test.next_delivery("orders.wait.1").await.header("retry-attempt"), Some("3"));
    let places: Vec<String> = acked(&test)
        .into_iter()
        .map(|(destination, settlement)| {
            assert_eq!(settlement, Settlement::Ack, "the broker is asked for no other delivery");
            destination
        })
        .collect();
    assert_eq!(places, ["orders", "orders", "orders.wait.0", "orders.wait.1"]);
    test.trace().await.assert_tree(
        "
        publish orders
        ├─ process orders
        │  └─ publish orders.wait.0 ~ linked from publish orders
        ├─ process orders
        │  └─ publish orders.wait.1 ~ linked from publish orders
        └─ process orders

        publish orders
        └─ process orders
    ",
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_places_are_used_up_is_given_up() {
    let shop = Shop::that_fails(9);
    let app = App::new().subscribe(orders(&[SECOND]), reserve.dead_letter("orders.dead"));
    let test = start(app.with_state(shop.clone())).await;
    test.publish("orders", "bad").await;
    let dead = test.next_delivery("orders.dead").await;
    assert_eq!(dead.header("dead-letter-reason"), Some("failed 2 times"));
    test.settle().await;
    assert_eq!(shop.calls.take().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_a_handler_asks_for_is_kept() {
    async fn later(delivery: Delivery, State(shop): State<Shop>) -> Settlement {
        shop.note(&delivery);
        if delivery.attempt() == 1 { Settlement::retry_after(90 * SECOND) } else { Settlement::Ack }
    }
    let shop = Shop::that_fails(0);
    let test = start(App::new().subscribe(orders(&[5 * SECOND]), later).with_state(shop.clone())).await;
    test.publish("orders", "1").await;
    test.settle().await;
    let calls = shop.calls.take();
    assert!(calls.len() == 2 && calls[1].2 >= 90 * SECOND && calls[1].2 < 91 * SECOND, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_somebody_else_publishes_to_a_place_waits_there_too() {
    let shop = Shop::that_fails(0);
    let subscription = orders(&[5 * SECOND]);
    let test = start(App::new().subscribe(subscription, reserve).with_state(shop.clone())).await;
    let message = Envelope::new("orders.wait.0", "bad").with_header("retry-attempt", "7");
    test.publisher().publish_envelope(message).await.unwrap();
    test.publish("orders.wait.1", "no place").await;
    test.publish("bills.wait.0", "of another").await;
    test.settle().await;
    let calls = shop.calls.take();
    assert!(calls.len() == 1 && calls[0].1 == 7 && calls[0].2 >= 5 * SECOND, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn the_places_of_one_group_are_not_those_of_another() {
    let (stock, bills) = (Shop::that_fails(1), Shop::that_fails(0));
    let test = start(App::new().subscribe(orders(&[SECOND]), reserve).with_state(stock.clone())).await;
    let other = orders(&[]).with_group("bills");
    let second = App::new().subscribe(other, reserve).with_state(bills.clone()).without_telemetry();
    let _second = throughline_core::serve(test.broker().connect(), second).start().await.unwrap();
    test.publish("orders", "bad").await;
    test.settle().await;
    assert_eq!((stock.calls.take().len(), bills.calls.take().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn without_places_a_broker_that_does_not_deliver_again_holds_up_what_comes_after() {
    let shop = Shop::that_fails(3);
    let test = start(App::new().subscribe(orders(&[]), reserve).with_state(shop.clone())).await;
    test.publish("orders", "bad").await;
    test.publish("orders", "good").await;
    test.settle().await;
    let calls: Vec<(String, u32)> = shop.calls.take().into_iter().map(|(body, attempt, _)| (body, attempt)).collect();
    let bad = |attempt| ("bad".to_owned(), attempt);
    assert_eq!(calls, [bad(1), bad(2), bad(3), bad(4), ("good".to_owned(), 1)]);
    assert_eq!(acked(&test), [("orders".to_owned(), Settlement::Ack), ("orders".to_owned(), Settlement::Ack)]);
}

#[tokio::test(start_paused = true)]
async fn a_router_puts_its_prefix_before_the_places_too() {
    let shop = Shop::that_fails(1);
    let router = throughline_core::Router::new().subscribe(orders(&[SECOND]), reserve);
    let test = start(App::new().nest("eu.", router).with_state(shop.clone())).await;
    test.publish("eu.orders", "bad").await;
    test.settle().await;
    assert_eq!(test.next_delivery("eu.orders.wait.0").await.header("retry-attempt"), Some("2"));
    assert_eq!(shop.calls.take().len(), 2);
}
