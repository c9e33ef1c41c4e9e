//! In which order messages are handled, how many at the same time, and what a rebalance does to those that are being handled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use throughline_core::extract::Batch;
use throughline_core::{App, Delivery, serve};
use throughline_kafka::Topic;
use throughline_testing::{Capture, attribute};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::load::{Account, Entry, PATIENCE, committed, publish, start, wait_until};
use crate::server::url;
use crate::topics::{create, unique};

/// An account whose handlers wait until they are let go.
#[derive(Clone)]
struct Gate {
    account: Account,
    permits: Arc<Semaphore>,
    /// The partitions whose handlers wait.
    holds: Arc<dyn Fn(&Entry) -> bool + Send + Sync>,
    done: Account,
}

impl Gate {
    fn new(holds: impl Fn(&Entry) -> bool + Send + Sync + 'static) -> Self {
        let permits = Arc::new(Semaphore::new(0));
        Self { account: Account::new(), permits, holds: Arc::new(holds), done: Account::new() }
    }

    fn app(&self, member: u32, topic: Topic) -> App {
        let gate = self.clone();
        let handle = move |delivery: Delivery| {
            let gate = gate.clone();
            async move {
                let entry = Entry::new(member, &delivery);
                gate.account.add(entry);
                if (gate.holds)(&entry) {
                    gate.permits.acquire().await.expect("never closed").forget();
                }
                gate.done.add(entry);
            }
        };
        App::new().subscribe(topic, handle)
    }

    fn open(&self) {
        self.permits.add_permits(1_000_000);
    }
}

async fn topic(name: &str, partitions: i32, messages: u64, keys: u64) -> (String, String) {
    let (topic, group) = (unique(name), unique("group"));
    create(&url(), &topic, partitions).await;
    publish(&url(), &topic, 0..messages, partitions, keys).await;
    (topic, group)
}

/// One at a time in each partition, and the others meanwhile; a partition that is held up holds up no other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_partition_whose_handler_waits_holds_up_no_other_one() {
    let (topic, group) = topic("lanes", 4, 4_000, 1).await;
    let gate = Gate::new(|entry| entry.partition == 0);
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).prefetch(20);
    let running = start(&url(), gate.app(0, subscription)).await;
    gate.done.reach(3_000).await;
    // The client may fetch the first partition last.
    gate.account.reach(3_001).await;
    let of_first = |account: &Account| account.entries().iter().filter(|entry| entry.partition == 0).count();
    assert_eq!((of_first(&gate.account), of_first(&gate.done)), (1, 0), "one at a time");
    gate.open();
    gate.done.reach(4_000).await;
    running.shutdown().await.expect("the app stops");
    gate.account.assert_ordered();
    assert_eq!(committed(&url(), &group, &topic, 4).await, [1_000; 4]);
}

/// The bound is of what is handed out and not settled: with all of it at work, no more comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn no_more_than_the_prefetch_of_a_partition_is_handed_out() {
    let (topic, group) = topic("prefetch", 2, 2_000, 1).await;
    let gate = Gate::new(|entry| entry.partition == 0);
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).unordered(1_000).prefetch(25);
    let running = start(&url(), gate.app(0, subscription)).await;
    let of_first = || gate.account.entries().iter().filter(|entry| entry.partition == 0).count();
    wait_until("the other partition is done", || gate.done.distinct() == 1_000).await;
    wait_until("the first one has all it may have", || of_first() == 25).await;
    gate.permits.add_permits(12);
    wait_until("twelve are done", || gate.done.distinct() == 1_012).await;
    assert!(of_first() <= 37, "{} were begun, 12 are done", of_first());
    gate.open();
    gate.done.reach(2_000).await;
    running.shutdown().await.expect("the app stops");
    assert_eq!(committed(&url(), &group, &topic, 2).await, [1_000; 2]);
}

/// Keys follow their own order, several at the same time in one partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn by_key_only_messages_of_one_worker_wait_for_each_other() {
    const KEYS: u64 = 32;
    let (topic, group) = topic("by-key", 1, 640, KEYS).await;
    // The first message waits; all keys of its worker stand behind it, and no other one.
    let gate = Gate::new(|entry| entry.number == 0);
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).by_key(4);
    let running = start(&url(), gate.app(0, subscription)).await;
    let keys_done = || gate.done.entries().iter().map(|entry| entry.number % KEYS).collect::<BTreeSet<_>>();
    wait_until("other keys are done", || gate.done.distinct() >= 160).await;
    assert!(!keys_done().contains(&0), "the key of the first message waits");
    assert_eq!(committed(&url(), &group, &topic, 1).await, [-1], "and so do the offsets");
    gate.open();
    gate.done.reach(640).await;
    running.shutdown().await.expect("the app stops");
    gate.account.assert_ordered_by_key(KEYS);
    assert_eq!(committed(&url(), &group, &topic, 1).await, [640]);
}

/// A message that is tried again holds up its partition, and no other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_retry_in_place_keeps_the_order_of_its_partition() {
    let (topic, group) = topic("retry", 2, 200, 1).await;
    let account = Account::new();
    let seen = account.clone();
    let handle = move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            let entry = Entry::new(delivery.attempt(), &delivery);
            seen.add(entry);
            // The fourth attempt waits for the other partition.
            let others = seen.entries().iter().filter(|entry| entry.partition == 1).count();
            if entry.number == 20 && (delivery.attempt() < 4 || others < 100) { Err(std::fmt::Error) } else { Ok(()) }
        }
    };
    let subscription = Topic::new(topic.as_str()).group(group.as_str());
    let running = start(&url(), App::new().subscribe(subscription, handle)).await;
    account.reach(200).await;
    running.shutdown().await.expect("the app stops");
    let first: Vec<_> = account.entries().into_iter().filter(|entry| entry.partition == 0).collect();
    let offsets: Vec<i64> = first.iter().map(|entry| entry.offset).collect();
    assert!(offsets.is_sorted(), "{offsets:?}");
    let attempts: Vec<u32> = first.iter().filter(|entry| entry.number == 20).map(|entry| entry.member).collect();
    assert_eq!(attempts, (1..=u32::try_from(attempts.len()).expect("few")).collect::<Vec<_>>());
    assert!(attempts.len() >= 4);
    assert_eq!(committed(&url(), &group, &topic, 2).await, [100, 100]);
}

/// A batch has messages of all partitions; what failed is tried again by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn of_a_batch_only_what_failed_is_tried_again() {
    type Seen = Arc<Mutex<Vec<Vec<(i32, i64)>>>>;
    let (topic, group) = topic("batch", 3, 300, 1).await;
    let (batches, done) = (Seen::default(), Account::new());
    let (seen, count) = (Arc::clone(&batches), done.clone());
    let handle = move |batch: Batch<String>| {
        let (seen, count) = (Arc::clone(&seen), count.clone());
        async move {
            let entries: Vec<_> = batch.iter().map(|message| Entry::new(0, message.delivery())).collect();
            seen.lock().expect("no panic").push(entries.iter().map(|entry| (entry.partition, entry.offset)).collect());
            for (message, entry) in batch.into_iter().zip(entries) {
                let is_first = message.delivery().attempt() == 1;
                let count = count.clone();
                let run = async move |_body: String| {
                    if entry.number % 50 == 7 && is_first {
                        return Err(std::fmt::Error);
                    }
                    count.add(entry);
                    Ok(())
                };
                message.run(run).await;
            }
        }
    };
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).batch(60, Duration::from_millis(200));
    let running = start(&url(), App::new().subscribe(subscription, handle)).await;
    done.reach(300).await;
    running.shutdown().await.expect("the app stops");
    assert_eq!(done.entries().len(), 300, "each succeeded once");
    assert_eq!(committed(&url(), &group, &topic, 3).await, [100; 3]);
    let batches = batches.lock().expect("no panic");
    let partitions = |batch: &Vec<(i32, i64)>| batch.iter().map(|(partition, _)| *partition).collect::<BTreeSet<_>>();
    assert!(batches.iter().any(|batch| partitions(batch).len() > 1), "a batch has several partitions");
    assert!(batches.iter().all(|batch| batch.len() <= 60));
    for batch in batches.iter() {
        let mut last = BTreeMap::new();
        for (partition, offset) in batch {
            assert!(last.insert(partition, offset).is_none_or(|before| before < offset), "{batch:?}");
        }
    }
}

/// A rebalance waits for the handlers of what it takes away, and commits: the next member begins behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_rebalance_waits_for_handlers_and_commits_them() {
    let (topic, group) = topic("waits", 2, 20, 1).await;
    let gate = Gate::new(|entry| entry.member == 1 && entry.offset == 3);
    let subscription = || Topic::new(topic.as_str()).group(group.as_str()).property("heartbeat.interval.ms", "200");
    let first = start(&url(), gate.app(1, subscription())).await;
    wait_until("both handlers wait", || gate.account.distinct() == 8).await;
    let second = tokio::spawn({
        let (app, url) = (gate.app(2, subscription()), url());
        async move { start(&url, app).await }
    });
    // Once the rebalance has begun, the first message of the lost partition that is done is also the last one here.
    wait_until_leaving(&group, &gate).await;
    gate.open();
    let second = second.await.expect("the second member starts");
    gate.done.reach(20).await;
    // The first one may have done all of it before it was told to give anything up.
    let (mut count, deadline) = (20, Instant::now() + PATIENCE);
    while gate.account.of_member(2) == 0 {
        assert!(Instant::now() < deadline, "the second member gets no partition");
        publish(&url(), &topic, count..count + 20, 2, 1).await;
        count += 20;
        gate.done.reach(count as usize).await;
    }
    first.shutdown().await.expect("the first member stops");
    second.shutdown().await.expect("the second member stops");
    assert_eq!(gate.account.entries().len() as u64, count, "nothing twice");
    gate.account.assert_ordered();
    assert_eq!(committed(&url(), &group, &topic, 2).await, [count as i64 / 2; 2]);
}

/// Waits until the group has decided who gets what with the second member: the first one has then been told what to give up. That it
/// waits for its handlers cannot be seen from outside; a moment too early would make the test weaker, never fail.
async fn wait_until_leaving(group: &str, gate: &Gate) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (url, name) = (url(), group.to_owned());
        let asked = spawn_blocking(move || {
            let consumer: BaseConsumer =
                ClientConfig::new().set("bootstrap.servers", url).create().expect("a consumer");
            let groups = consumer.fetch_group_list(Some(&name), PATIENCE).expect("the group");
            groups.groups().iter().any(|group| group.state() == "Stable" && group.members().len() == 2)
        });
        if asked.await.expect("the question does not panic") {
            break;
        }
        assert!(Instant::now() < deadline, "the second member is no part of the group");
    }
    assert_eq!(gate.account.distinct(), 8, "nothing goes on meanwhile");
}

/// A handler that takes longer than that: its message is handled again elsewhere, and what it settles then counts for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_handler_that_outlasts_the_rebalance_settles_nothing() {
    let (topic, group) = topic("outlasts", 2, 20, 1).await;
    let gate = Gate::new(|entry| entry.member == 1 && entry.offset == 3);
    let subscription = || {
        let topic = Topic::new(topic.as_str()).group(group.as_str());
        topic.property("heartbeat.interval.ms", "200").rebalance_timeout(Duration::from_millis(300))
    };
    let capture = Capture::new();
    let app = gate.app(1, subscription()).telemetry(capture.instrumentation().build());
    let first = serve(crate::load::connect(&url()).await, app).start().await.expect("the app starts");
    wait_until("both handlers wait", || gate.account.distinct() == 8).await;
    let second = start(&url(), gate.app(2, subscription())).await;
    wait_until("the second member has done its partition", || gate.account.of_member(2) == 7).await;
    let again: Vec<i64> =
        gate.account.entries().iter().filter(|entry| entry.member == 2).map(|entry| entry.offset).collect();
    assert_eq!(again, [3, 4, 5, 6, 7, 8, 9], "from the message that was being handled on");
    gate.open();
    gate.done.reach(20).await;
    first.shutdown().await.expect("the first member stops");
    second.shutdown().await.expect("the second member stops");
    assert_eq!(gate.account.entries().len(), 21, "only that one was handled again");
    assert_eq!(committed(&url(), &group, &topic, 2).await, [10, 10]);
    let mut late = capture.spans();
    late.retain(|span| attribute(span, "error.type") == Some(&"partition_lost".into()));
    assert_eq!(late.len(), 1, "the late settlement is seen: {late:?}");
    assert_eq!(late[0].name, format!("commit {topic}"));
    assert!(capture.logs().iter().any(|log| log.event_name.as_deref() == Some("messaging.settle.exception")));
}

/// Without an order as many as there are workers are handled at the same time, also of one partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn without_an_order_the_workers_are_the_bound() {
    let (topic, group) = topic("unordered", 1, 400, 1).await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let account = Account::new();
    let (seen, running_now, most_ever) = (account.clone(), Arc::clone(&now), Arc::clone(&most));
    let handle = move |delivery: Delivery| {
        let (seen, now, most) = (seen.clone(), Arc::clone(&running_now), Arc::clone(&most_ever));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            seen.add(Entry::new(0, &delivery));
        }
    };
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).unordered(7);
    let running = start(&url(), App::new().subscribe(subscription, handle)).await;
    account.reach(400).await;
    running.shutdown().await.expect("the app stops");
    assert_eq!(most.load(Ordering::SeqCst), 7);
    assert_eq!(committed(&url(), &group, &topic, 1).await, [400]);
}
