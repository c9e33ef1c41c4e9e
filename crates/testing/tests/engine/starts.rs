//! What an app refuses before it takes a message.

use std::time::Duration;

use throughline_core::extract::Batch;
use throughline_core::{App, Handler, Route, ServeErrorKind, serve};
use throughline_memory::{Channel, Memory};
use throughline_testing::start;

async fn handle(order: String) -> String {
    order
}

async fn is_refused(memory: &Memory, app: App) -> bool {
    match serve(memory.clone(), app).start().await {
        Ok(running) => {
            running.shutdown().await.unwrap();
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ServeErrorKind::Configuration, "{error:?}");
            true
        }
    }
}

async fn with(channel: &str, route: Route) -> bool {
    is_refused(&Memory::new(), App::new().subscribe(Channel::new(channel).group("stock"), route)).await
}

#[tokio::test]
async fn a_message_without_a_place_to_go_is_refused() {
    assert!(with("orders", handle.reply_to("")).await);
    assert!(with("orders", handle.dead_letter("")).await);
    assert!(!with("orders", handle.dead_letter("dead")).await);
}

#[tokio::test]
async fn an_empty_name_is_refused() {
    for channel in [Channel::new("").group("stock"), Channel::new("orders").group("")] {
        assert!(is_refused(&Memory::new(), App::new().subscribe(channel, handle)).await);
    }
}

#[tokio::test]
async fn a_subscription_that_takes_what_it_sends_is_refused() {
    assert!(with("orders", handle.dead_letter("orders")).await);
    assert!(with("orders", handle.reply_to("orders")).await);
    assert!(!with("orders", handle.reply_to("replies").dead_letter("dead")).await);
}

#[tokio::test]
async fn dead_letters_that_go_round_are_refused_across_the_apps_of_a_connection() {
    let memory = Memory::new();
    let there = App::new().subscribe(Channel::new("orders").group("a"), handle.dead_letter("dead"));
    let back = || App::new().subscribe(Channel::new("dead").group("b"), handle.dead_letter("orders"));
    let running = serve(memory.clone(), there).start().await.unwrap();
    assert!(is_refused(&memory, back()).await);
    running.shutdown().await.unwrap();
    assert!(!is_refused(&memory, back()).await, "the other app has ended");
}

/// A batch may wait for as long as it likes; the clock has no end that would be passed.
#[tokio::test(start_paused = true)]
async fn the_longest_time_is_no_fault() {
    async fn count(batch: Batch<String>) -> String {
        batch.len().to_string()
    }
    let orders = Channel::new("orders").batch(2, Duration::MAX);
    let test = start(App::new().subscribe(orders, count.reply_to("counts"))).await;
    test.publish("orders", "1").await;
    test.publish("orders", "2").await;
    assert_eq!(test.next::<String>("counts").await, "2");

    let memory = Memory::new();
    let app = App::new().subscribe(Channel::new("orders").group("stock"), handle);
    let running = serve(memory, app).shutdown_timeout(Duration::MAX).start().await.unwrap();
    running.shutdown().await.unwrap();
}
