//! The provided middleware, but retry and dead letter: timeout, concurrency limit, filter.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use throughline_core::extract::{Batch, State};
use throughline_core::middleware::{ConcurrencyLimit, Filter, Timeout};
use throughline_core::{App, Delivery, Handler, Settlement};
use throughline_memory::Channel;
use throughline_testing::{AppTest, start};
use tokio::task::yield_now;

use crate::support::Seen;

async fn settlements(test: &AppTest, count: usize) -> Vec<Settlement> {
    let settled = test.broker().settled_within(count, Duration::from_secs(60)).await.unwrap();
    settled.into_iter().map(|message| message.settlement).collect()
}

/// Design, section 5: a handler that hangs is given up and its message tried again; the worker lives on.
#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_does_not_hold_up_the_next_message() {
    async fn handle(order: String, delivery: Delivery, State(seen): State<Seen<String>>) {
        if order == "slow" && delivery.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        seen.push(order);
    }
    let seen = Seen::new();
    let app = App::new().subscribe(Channel::new("orders"), handle.middleware(Timeout::secs(3)));
    let test = start(app.with_state(seen.clone())).await;
    test.publish("orders", "slow").await;
    test.publish("orders", "quick").await;
    test.settle().await;
    assert_eq!(seen.take(), ["quick", "slow"]);
}

/// Counts how many run at the same time, and the most there were.
#[derive(Clone, Default)]
struct Together(Arc<(AtomicUsize, AtomicUsize)>);

async fn crowd(_order: String, State(together): State<Together>) {
    let now = together.0.0.fetch_add(1, Ordering::SeqCst) + 1;
    together.0.1.fetch_max(now, Ordering::SeqCst);
    for _ in 0..20 {
        yield_now().await;
    }
    together.0.0.fetch_sub(1, Ordering::SeqCst);
}

async fn most_together(app: App<Together>) -> usize {
    let together = Together::default();
    let test = start(app.with_state(together.clone())).await;
    for destination in ["orders", "bills"] {
        test.publisher().publish_batch(destination, ["x"; 20]).await.unwrap();
    }
    test.settle().await;
    assert_eq!(test.capture().tree().find_all("process orders").len(), 20);
    together.0.1.load(Ordering::SeqCst)
}

/// Design, section 5: one at a time by default, per subscription, which keeps the order.
#[tokio::test]
async fn concurrency_is_bounded_per_subscription() {
    assert_eq!(most_together(App::new().subscribe(Channel::new("orders"), crowd)).await, 1);
    assert_eq!(most_together(App::new().subscribe(Channel::new("orders"), crowd.concurrency(4))).await, 4);
}

/// One limit over several subscriptions.
#[tokio::test]
async fn a_shared_limit_bounds_all_that_share_it() {
    let limit = ConcurrencyLimit::new(3);
    let app = App::new()
        .subscribe(Channel::new("orders"), crowd.concurrency(8).middleware(limit.clone()))
        .subscribe(Channel::new("bills"), crowd.concurrency(8).middleware(limit));
    assert_eq!(most_together(app).await, 3);
}

/// Unwanted messages are acknowledged and the handler does not see them.
#[tokio::test]
async fn a_filter_acknowledges_what_is_not_wanted() {
    async fn handle(order: String, State(seen): State<Seen<String>>) -> Settlement {
        seen.push(order);
        Settlement::reject("seen")
    }
    let seen = Seen::new();
    let filter = Filter::new(|delivery| delivery.payload() != "unwanted");
    let app = App::new().subscribe(Channel::new("orders"), handle.middleware(filter)).with_state(seen.clone());
    let test = start(app).await;
    test.publisher().publish_batch("orders", ["unwanted", "wanted"]).await.unwrap();
    assert_eq!(settlements(&test, 2).await, [Settlement::Ack, Settlement::reject("seen")]);
    assert_eq!(seen.take(), ["wanted"]);
}

/// Of a batch the unwanted messages are taken out; each outcome finds its own message again.
#[tokio::test]
async fn a_filter_takes_messages_out_of_a_batch() {
    async fn handle(batch: Batch<String>, State(seen): State<Seen<String>>) -> Settlement {
        for message in batch {
            seen.push(message.body().clone());
            if message.body() == "bad" {
                message.settle(Settlement::reject("bad"));
            }
        }
        Settlement::retry_after(Duration::from_secs(30))
    }
    let seen = Seen::new();
    let filter = Filter::new(|delivery| delivery.payload() != "unwanted");
    let batches = Channel::new("orders").batch(5, Duration::from_secs(5));
    let app = App::new().subscribe(batches, handle.middleware(filter)).with_state(seen.clone());
    let test = start(app).await;
    test.publisher().publish_batch("orders", ["unwanted", "good", "unwanted", "bad", "good"]).await.unwrap();
    let settled = test.broker().settled_within(5, Duration::from_secs(60)).await.unwrap();
    let of = |body: &str| -> Vec<Settlement> {
        let own = settled.iter().filter(|message| message.delivery.payload() == body);
        own.map(|message| message.settlement.clone()).collect()
    };
    let later = Settlement::retry_after(Duration::from_secs(30));
    assert_eq!(of("unwanted"), [Settlement::Ack, Settlement::Ack]);
    assert_eq!(of("good"), [later.clone(), later]);
    assert_eq!(of("bad"), [Settlement::reject("bad")]);
    assert_eq!(seen.take(), ["good", "bad", "good"]);
}

/// A batch of which nothing is wanted does not reach the handler.
#[tokio::test]
async fn a_batch_without_a_wanted_message_is_acknowledged() {
    async fn handle(_batch: Batch<String>) -> Settlement {
        Settlement::reject("not to be called")
    }
    let batches = Channel::new("orders").batch(2, Duration::from_secs(5));
    let app = App::new().subscribe(batches, handle.middleware(Filter::new(|_| false)));
    let test = start(app).await;
    test.publisher().publish_batch("orders", ["1", "2"]).await.unwrap();
    assert_eq!(settlements(&test, 2).await, [Settlement::Ack, Settlement::Ack]);
}

/// STAT-08: middleware that panics is a failure of its message too, and the worker lives on.
#[tokio::test(start_paused = true)]
async fn middleware_that_panics_fails_its_message_alone() {
    use throughline_core::middleware::Next;
    use throughline_core::{Middleware, Outcome};

    struct Fragile;
    #[async_trait::async_trait]
    impl Middleware for Fragile {
        async fn process(&self, delivery: Delivery, next: Next<'_>) -> Outcome {
            assert!(delivery.payload() != "bad" || delivery.attempt() > 1, "fragile");
            next.run(delivery).await
        }
    }
    async fn handle(order: String, State(seen): State<Seen<String>>) {
        seen.push(order);
    }
    let seen = Seen::new();
    let app = App::new().subscribe(Channel::new("orders"), handle).middleware(Fragile).with_state(seen.clone());
    let test = start(app).await;
    test.publisher().publish_batch("orders", ["bad", "good"]).await.unwrap();
    test.settle().await;
    assert_eq!(seen.take(), ["good", "bad"]);
}
