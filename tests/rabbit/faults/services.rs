//! Handlers that fail and services that end under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use throughline_core::broker::Broker as _;
use throughline_core::extract::Json;
use throughline_core::{App, Delivery, Envelope, Handler, serve};
use throughline_rabbit::Queue;
use tokio::time::{Instant, timeout};

use super::PREFETCH;
use crate::child::{self, Service, given};
use crate::load::{self, Entry, Load, MESSAGES, PATIENCE, Sent, start};
use crate::server::{self, Plain, unique};

/// How many messages the process has that is killed.
const UNSETTLED: u16 = 500;

/// How long a shutdown may take, as by default.
const DEADLINE: Duration = Duration::from_secs(25);

async fn delete(queue: &str) {
    Plain::connect(&server::url()).await.delete(queue).await;
}

/// Each is tried again, and no other message is lost or comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn handlers_that_panic_hold_up_nothing_else() {
    for (load, kind) in super::loads(&server::url()) {
        let panics = Arc::new(AtomicUsize::new(0));
        let mut consumers = Vec::new();
        for number in [1, 2] {
            let (account, panics) = (load.account.clone(), Arc::clone(&panics));
            let handle = move |delivery: Delivery| {
                let (account, panics) = (account.clone(), Arc::clone(&panics));
                async move {
                    let entry = Entry::new(number, &delivery);
                    if entry.number.is_multiple_of(500) && entry.attempt == 1 {
                        panics.fetch_add(1, Ordering::Relaxed);
                        panic!("message {} is too much at first", entry.number);
                    }
                    account.add(entry);
                }
            };
            consumers.push(start(&load.url, App::new().subscribe(load.queue(), handle)).await);
        }
        let sent = load.publish().end().await;
        load.account.reach(MESSAGES).await;
        for consumer in consumers {
            consumer.shutdown().await.expect("the consumer stops");
        }
        let panics = panics.load(Ordering::Relaxed);
        let sum = load.account.sum(&format!("{panics} handlers panic, {kind} queue"), sent);
        assert_eq!((sum.lost, sum.again, sent, panics as u64), (0, 0, Sent::all(MESSAGES), MESSAGES / 500));
        let second = load.account.entries().iter().filter(|entry| entry.attempt == 2).count();
        assert_eq!(second, panics, "each has its second attempt");
        delete(&load.name).await;
    }
}

/// Those whose bodies cannot be read go to the broker's own dead letters, each once, as they came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_thousand_bodies_that_cannot_be_read_hold_up_nothing_else() {
    const POISONED: usize = 1_000;
    let plain = Plain::connect(&server::url()).await;
    for kind in ["classic", "quorum"] {
        let dead = unique("dead");
        plain.declare(&dead, &[]).await;
        let of_kind = |queue: Queue| if kind == "quorum" { queue.quorum() } else { queue };
        let load = Load::new(&server::url(), |queue| of_kind(queue).dead_letter_exchange("", &dead));
        let mut consumers = Vec::new();
        for number in [1, 2] {
            let account = load.account.clone();
            let handle = move |Json(_): Json<u64>, delivery: Delivery| {
                account.add(Entry::new(number, &delivery));
                async {}
            };
            consumers.push(start(&load.url, App::new().subscribe(load.queue(), handle)).await);
        }
        let (bodies, publishing) = (poison(POISONED), load.publish());
        publish_bodies(&load, &bodies).await;
        let sent = publishing.end().await;
        load.account.reach(MESSAGES).await;
        let letters = read(&plain, &dead, POISONED).await;
        for consumer in consumers {
            consumer.shutdown().await.expect("the consumer stops");
        }
        let sum = load.account.sum(&format!("{POISONED} bodies cannot be read, {kind} queue"), sent);
        assert_eq!((sum.lost, sum.again), (0, 0));
        assert_eq!(BTreeSet::from_iter(letters), bodies, "each is a dead letter, and none comes twice");
        assert_eq!(plain.count(&load.name).await, (0, 0));
        assert_eq!(plain.count(&dead).await.0, 0, "there are no others");
        delete(&load.name).await;
        delete(&dead).await;
    }
}

fn poison(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("{{poison {number}")).collect()
}

async fn publish_bodies(load: &Load, bodies: &BTreeSet<String>) {
    let rabbit = load::connect(&load.url).await;
    for some in bodies.iter().collect::<Vec<_>>().chunks(50) {
        let messages = some.iter().map(|body| Envelope::new(load.name.clone(), (*body).clone())).collect();
        let results = rabbit.transport().publish_batch(messages).await;
        assert!(results.iter().all(Result::is_ok), "they are published");
    }
}

async fn read(plain: &Plain, queue: &str, count: usize) -> Vec<String> {
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let consuming = plain.channel.basic_consume(queue.into(), queue.into(), options, table);
    let (mut messages, mut bodies) = (consuming.await.expect("a consumer"), Vec::new());
    while bodies.len() < count {
        let message = timeout(PATIENCE, messages.next()).await.expect("a dead letter in time");
        let message = message.expect("the consumer lives").expect("a dead letter");
        let settled = plain.channel.basic_ack(message.delivery_tag, BasicAckOptions::default());
        settled.await.expect("settled");
        bodies.push(String::from_utf8_lossy(&message.data).into_owned());
    }
    let cancelled = plain.channel.basic_cancel(queue.into(), BasicCancelOptions::default());
    cancelled.await.expect("the consumer ends");
    bodies
}

/// A service in a process of its own that settles nothing of what it has.
async fn hold(given: &[String]) {
    let [url, queue, kind] = given else { panic!("what is {given:?}?") };
    let queue = Queue::new(queue.as_str()).prefetch(UNSETTLED);
    let queue = if kind == "quorum" { queue.quorum() } else { queue };
    let handle = |delivery: Delivery| {
        child::print(&format!("begun {}", Entry::new(0, &delivery).number));
        std::future::pending::<()>()
    };
    let most = usize::from(UNSETTLED);
    let app = App::new().subscribe(queue, Handler::<(Delivery,), ()>::concurrency(handle, most));
    start(url, app).await.run_until(std::future::pending()).await.expect("it is killed");
}

/// What the process had is delivered once more, to the other consumer, and counted as a second attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_process_that_is_killed_with_500_messages_loses_none() {
    if let Some(given) = given() {
        return hold(&given).await;
    }
    let test = "faults::services::a_process_that_is_killed_with_500_messages_loses_none";
    for (load, kind) in super::loads(&server::url()) {
        load.fill().await;
        let mut process = Service::start(test, &[&load.url, &load.name, kind]);
        let has_all = |lines: &[String]| child::numbers(lines, "begun").len() == usize::from(UNSETTLED);
        process.until("the process has its messages", has_all).await;
        let other = load.consumer(1).await;
        load.account.reach(MESSAGES / 5).await;
        assert!((load.account.distinct() as u64) < MESSAGES / 2, "it is killed in the middle of the work");
        process.kill().await;
        load.account.reach(MESSAGES).await;
        other.shutdown().await.expect("the other one stops");
        let what = format!("a process is killed with {UNSETTLED} messages, {kind} queue");
        let sum = load.account.sum(&what, Sent::all(MESSAGES));
        assert_eq!((sum.lost, sum.again), (0, 0), "nobody else had handled them");
        let begun: BTreeSet<u64> = process.numbers("begun").into_iter().collect();
        let entries = load.account.entries();
        let second: BTreeSet<u64> =
            entries.iter().filter(|entry| entry.attempt == 2).map(|entry| entry.number).collect();
        assert_eq!(second, begun, "a lost connection counts as an attempt");
        delete(&load.name).await;
    }
}

/// Both consumers end in the middle of the work, again and again: what they handled is settled, what they had is handed back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_shutdown_under_load_repeats_nothing() {
    for (load, kind) in super::loads(&server::url()) {
        load.fill().await;
        let mut longest = Duration::ZERO;
        for round in 1..=4 {
            let (one, two) = (load.consumer(2 * round).await, load.consumer(2 * round + 1).await);
            load.account.reach_by(2 * round, 200).await;
            load.account.reach_by(2 * round + 1, 200).await;
            assert!((load.account.distinct() as u64) < MESSAGES, "they end in the middle of the work");
            let began = Instant::now();
            let ended = timeout(DEADLINE, async { tokio::join!(one.shutdown(), two.shutdown()) }).await;
            longest = longest.max(began.elapsed());
            let (one, two) = ended.expect("both end within their deadline");
            one.expect("the first consumer has settled all");
            two.expect("the second consumer has settled all");
        }
        let last = load.consumer(1).await;
        load.account.reach(MESSAGES).await;
        last.shutdown().await.expect("the last consumer stops");
        let what = format!("both consumers shut down, 4 times, at most {longest:?}, {kind} queue");
        let sum = load.account.sum(&what, Sent::all(MESSAGES));
        assert_eq!((sum.lost, sum.again), (0, 0));
        assert_eq!(Plain::connect(&load.url).await.count(&load.name).await, (0, 0));
        delete(&load.name).await;
    }
}

/// A service in a process of its own that listens to signals, and whose handler never ends with one message.
async fn hang(given: &[String]) {
    let [url, queue, at] = given else { panic!("what is {given:?}?") };
    child::print_log();
    let at: u64 = at.parse().expect("a number");
    let handle = move |delivery: Delivery| async move {
        let number = Entry::new(0, &delivery).number;
        if number == at {
            child::print(&format!("hangs {number}"));
            std::future::pending::<()>().await;
        }
        load::work().await;
        child::print(&format!("handled {number}"));
    };
    let app = App::new().subscribe(Queue::new(queue.as_str()), handle).without_telemetry();
    let service = serve(load::connect(url).await, app).shutdown_timeout(PATIENCE).with_signals();
    let ended = service.await.expect_err("it is ended at once");
    child::print(&format!("ended {ended}"));
}

/// The first signal waits for the handler, the second one for nothing; the message that it had comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a RabbitMQ server: cargo xtask test --broker rabbit"]
async fn a_second_signal_ends_a_service_at_once_and_loses_nothing() {
    const AT: u64 = 2_000;
    if let Some(given) = given() {
        return hang(&given).await;
    }
    let test = "faults::services::a_second_signal_ends_a_service_at_once_and_loses_nothing";
    let load = Load::new(&server::url(), |queue| queue);
    load.fill().await;
    let mut process = Service::start(test, &[&load.url, &load.name, &AT.to_string()]);
    process.until("the handler hangs", |lines| lines.iter().any(|line| line.starts_with("hangs"))).await;
    process.signal("-TERM").await;
    let ends =
        |lines: &[String]| lines.iter().any(|line| line.contains("the service ends: no more messages are taken"));
    process.until("the first signal is heard", ends).await;
    let began = Instant::now();
    process.signal("-TERM").await;
    process.until("the second signal ends it", |lines| lines.iter().any(|line| line.starts_with("ended"))).await;
    process.end().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    let handled = process.numbers("handled");
    assert_eq!(handled, (0..AT).collect::<Vec<_>>(), "in the order of the queue");
    for number in handled {
        load.account.add(Entry { consumer: 0, number, attempt: 1 });
    }
    let other = load.consumer(1).await;
    load.account.reach(MESSAGES).await;
    other.shutdown().await.expect("the other one stops");
    let sum = load.account.sum(&format!("a second signal ends a service within {took:?}"), Sent::all(MESSAGES));
    assert_eq!(sum.lost, 0);
    assert!(sum.again <= PREFETCH, "only what it had not settled: {sum:?}");
    delete(&load.name).await;
}
