//! A test that waits in vain says what the app is at.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use throughline_core::broker::Subscription;
use throughline_core::{App, Delivery, Handler};
use throughline_memory::Channel;
use throughline_testing::{AppTest, start};

use crate::support::{HOUR, OutOfStock, orders};

/// A short limit: what these tests wait for never comes.
const SOON: Duration = Duration::from_millis(50);

async fn fail(_order: String) -> Result<(), OutOfStock> {
    Err(OutOfStock)
}

async fn hang(_order: String) {
    std::future::pending().await
}

async fn started(app: App) -> AppTest {
    start(app).await.patience(SOON)
}

/// The text of the panic with which a wait for the rest of the app ends.
async fn text_of_settle(test: &AppTest) -> String {
    text(AssertUnwindSafe(test.settle()).catch_unwind().await)
}

fn text<T>(ended: std::thread::Result<T>) -> String {
    let Err(panic) = ended else { panic!("the wait has ended") };
    *panic.downcast::<String>().expect("a text")
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// A message that was tried seven times: the next attempt is seconds away.
fn seventh(test: &AppTest) {
    test.broker().deliver(Delivery::new("orders", "1").with_attempt(7));
}

const FAILED_SEVEN_TIMES: [&str; 3] = [
    "still busy after 50ms",
    "failed 7 times, last error `out of stock: the warehouse is closed`, next attempt in ",
    "process orders",
];

#[tokio::test]
async fn a_message_that_the_broker_delivers_again_says_how_often_and_why_it_failed_and_when_it_comes() {
    let test = started(App::new().subscribe(Channel::new("orders"), fail)).await;
    seventh(&test);
    let text = text_of_settle(&test).await;
    assert_has(&text, &FAILED_SEVEN_TIMES);
    assert_has(&text, &["- `orders`: failed"]);
}

#[tokio::test]
async fn a_message_that_waits_in_place_says_the_same() {
    let test = started(App::new().subscribe(orders(&[]), fail)).await;
    seventh(&test);
    let text = text_of_settle(&test).await;
    assert_has(&text, &FAILED_SEVEN_TIMES);
    assert_has(&text, &["- `orders` (group `stock`): failed"]);
}

#[tokio::test]
async fn a_message_that_waits_elsewhere_says_where() {
    let test = started(App::new().subscribe(orders(&[HOUR]), fail)).await;
    test.publish("orders", "1").await;
    let text = text_of_settle(&test).await;
    assert_has(
        &text,
        &["- `orders.wait.0` (subscription to `orders`, group `stock`): failed once, last error `out of stock: the \
           warehouse is closed`, next attempt in 3599."],
    );
}

#[tokio::test]
async fn a_handler_that_runs_and_what_waits_for_it_are_named() {
    let test = started(App::new().subscribe(Channel::new("orders").group("stock"), hang)).await;
    test.publish("orders", "1").await;
    test.publish("orders", "2").await;
    let text = text_of_settle(&test).await;
    assert_has(
        &text,
        &["- `orders` (group `stock`): its handler runs for ", "- `orders` (group `stock`): waits for its handler"],
    );
}

#[tokio::test]
async fn of_many_messages_the_first_ones_are_listed() {
    let test = started(App::new().subscribe(Channel::new("orders"), hang)).await;
    for order in 0..30 {
        test.publish("orders", order.to_string()).await;
    }
    let text = text_of_settle(&test).await;
    assert_eq!(text.matches("- `orders`: ").count(), 20, "{text}");
    assert_has(&text, &["- and 10 messages more"]);
}

#[tokio::test]
async fn a_message_that_does_not_come_says_what_the_app_is_at() {
    let app = App::new().subscribe(Channel::new("orders"), fail.dead_letter("dead"));
    let test = started(app.subscribe(Channel::new("bills"), hang)).await;
    seventh(&test);
    test.publish("bills", "1").await;
    let text = text(AssertUnwindSafe(test.next::<String>("dead")).catch_unwind().await);
    assert_has(
        &text,
        &[
            "nothing was published to `dead` within 50ms",
            "what was published: [\"orders\", \"bills\"]",
            "- `orders`: failed 7 times, last error",
            "- `bills`: its handler runs for ",
        ],
    );
}

#[tokio::test]
async fn a_lost_connection_and_a_subscription_that_has_ended_are_named() {
    let test = started(App::new().subscribe(Channel::new("orders").group("stock"), hang)).await;
    test.broker().disconnect();
    test.publish("orders", "1").await;
    let text = text_of_settle(&test).await;
    assert_has(&text, &["the connection of the app is lost", "- `orders` (group `stock`): waits for its handler"]);

    test.broker().stop();
    test.broker().reconnect();
    while !test.health().subscriptions().iter().all(|one| one.state == throughline_core::serve::HealthState::Stopped) {
        tokio::task::yield_now().await;
    }
    assert_has(&text_of_settle(&test).await, &["the subscription to `orders` is Stopped"]);
}

/// What was observed for the test is no work of the app.
#[tokio::test]
async fn a_limit_of_the_test_is_its_own() {
    let began = std::time::Instant::now();
    let test = start(App::new().subscribe(Subscription::from(Channel::new("orders")), hang)).await;
    let test = test.patience(Duration::from_millis(200));
    test.publish("orders", "1").await;
    assert_has(&text_of_settle(&test).await, &["after 200ms"]);
    assert!(began.elapsed() >= Duration::from_millis(200));
}
