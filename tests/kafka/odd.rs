//! What others have met: odd records, odd names, and members that come, go and stand still at odd times.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use throughline_core::serve::Running;
use throughline_core::{App, Delivery, Envelope, Handler, Publisher, Settlement, serve};
use throughline_kafka::{StartPosition, Timestamp, Topic};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{sleep, timeout};

use crate::load::{self, Account, Entry, committed, connect, publish_bodies, start};
use crate::server::{PATIENCE, url};
use crate::topics::{create, create_with, unique};

async fn topic(name: &str, partitions: i32) -> (String, String) {
    let topic = unique(name);
    create(&url(), &topic, partitions).await;
    (topic, unique("group"))
}

fn producer() -> FutureProducer {
    ClientConfig::new().set("bootstrap.servers", url()).create().expect("a producer")
}

async fn store(record: FutureRecord<'_, str, str>) {
    producer().send(record, PATIENCE).await.expect("the topic takes it");
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.payload()).into_owned()
}

async fn next<T>(seen: &mut UnboundedReceiver<T>) -> T {
    timeout(PATIENCE, seen.recv()).await.expect("in time").expect("the app runs")
}

/// Tells the bodies of what is handled.
fn tell(
    sender: UnboundedSender<String>,
) -> impl Fn(Delivery) -> std::future::Ready<()> + Clone + Send + Sync + 'static {
    move |delivery: Delivery| {
        let _ = sender.send(body(&delivery));
        std::future::ready(())
    }
}

/// Writes down what is handled, as this member.
fn note(account: &Account, member: u32) -> impl Fn(Delivery) -> std::future::Ready<()> + Clone + Send + Sync + 'static {
    let account = account.clone();
    move |delivery: Delivery| {
        account.add(Entry::new(member, &delivery));
        std::future::ready(())
    }
}

/// An app that rejects every message of a topic into its dead letters, and what it sees of those.
fn burying<T: Send + 'static>(
    topic: &str,
    group: &str,
    look: impl Fn(&Delivery) -> T + Clone + Send + Sync + 'static,
) -> (App, UnboundedReceiver<T>) {
    let dead = format!("{topic}.dead");
    let (sender, letters) = mpsc::unbounded_channel();
    let reject =
        Handler::<(Delivery,), ()>::dead_letter(|_: Delivery| async { Settlement::reject("no") }, dead.clone());
    let bury = move |delivery: Delivery| {
        let _ = sender.send(look(&delivery));
        async {}
    };
    let app = App::new()
        .subscribe(Topic::new(topic).group(group), reject)
        .subscribe(Topic::new(dead).group(unique("group")), bury);
    (app, letters)
}

async fn ends(running: Running) {
    timeout(PATIENCE, running.shutdown()).await.expect("it ends in time").expect("a clean end");
}

/// A dead letter without a key can never go to such a topic: it holds up nobody, and a tombstone with one stays a tombstone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_compacted_dead_letter_topic_takes_what_has_a_key_and_holds_up_nobody() {
    let (topic, group) = topic("keyless", 1).await;
    let dead = format!("{topic}.dead");
    create_with(&url(), &dead, "cleanup.policy", "compact").await;
    store(FutureRecord::to(&topic).payload("keyless")).await;
    store(FutureRecord::<str, str>::to(&topic)).await;
    store(FutureRecord::to(&topic).key("gone")).await;
    store(FutureRecord::to(&topic).key("k").payload("keyed")).await;
    let (app, mut letters) = burying(&topic, &group, |letter| (letter.has_payload(), body(letter)));
    let running = start(&url(), app).await;
    assert_eq!(next(&mut letters).await, (false, String::new()), "null stays null");
    assert_eq!(next(&mut letters).await, (true, "keyed".to_owned()));
    ends(running).await;
    assert_eq!(committed(&url(), &group, &topic, 1).await, [4]);
}

/// A topic that allows it has times of any year; they pass a retry topic and a dead letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn records_of_any_time_are_handled_and_forwarded() {
    let (topic, group) = (unique("times"), unique("group"));
    let (retry, dead) = (format!("{topic}.{group}.retry.1"), format!("{topic}.dead"));
    for name in [&topic, &retry, &dead] {
        create_with(&url(), name, "message.timestamp.after.max.ms", &i64::MAX.to_string()).await;
    }
    // Now, long ago, the year 60000, and the last one there is.
    let times = [None, Some(1), Some(1_831_240_000_000_000), Some(i64::MAX)];
    for (number, time) in times.iter().enumerate() {
        let body = number.to_string();
        let mut record = FutureRecord::to(&topic).key("k").payload(&*body);
        record.timestamp = *time;
        store(record).await;
    }
    let fail = |_: Timestamp, _: Delivery| async { Err::<(), _>(std::fmt::Error) };
    let route = Handler::<(Timestamp, Delivery), _>::dead_letter(fail, dead.clone());
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).retry_topics([Duration::from_millis(20)]);
    let running = start(&url(), App::new().subscribe(subscription, route)).await;
    let letters: BTreeSet<String> = load::read(&url(), &dead, times.len()).await.into_iter().collect();
    assert_eq!(letters, (0..times.len()).map(|number| number.to_string()).collect());
    ends(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_with_a_thousand_headers_keeps_them_as_a_dead_letter() {
    let (topic, group) = topic("headers", 1).await;
    let dead = format!("{topic}.dead");
    create(&url(), &dead, 1).await;
    let headers = (0..1_000).fold(OwnedHeaders::new(), |headers, number| {
        headers.insert(Header { key: &format!("header-{number}"), value: Some("x") })
    });
    store(FutureRecord::to(&topic).key("k").payload("x").headers(headers)).await;
    let own = |letter: &Delivery| letter.headers().iter().filter(|(name, _)| name.starts_with("header-")).count();
    let (app, mut letters) = burying(&topic, &group, own);
    let running = start(&url(), app).await;
    assert_eq!(next(&mut letters).await, 1_000);
    ends(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_group_may_have_any_name() {
    let (topic, group) = topic("name", 1).await;
    let group = format!("{group} \u{e9}t\u{e9}, #1 / 'x'\"");
    publish_bodies(&url(), &topic, &["x".to_owned()]).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let running =
        start(&url(), App::new().subscribe(Topic::new(topic.as_str()).group(group.as_str()), tell(sender))).await;
    assert_eq!(next(&mut seen).await, "x");
    ends(running).await;
    assert_eq!(committed(&url(), &group, &topic, 1).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_topic_of_two_hundred_partitions_is_handled_and_committed() {
    let (topic, group) = topic("many", 200).await;
    load::publish(&url(), &topic, 0..2_000, 200, 1).await;
    let account = Account::new();
    let subscription = Topic::new(topic.as_str()).group(group.as_str());
    let running = start(&url(), App::new().subscribe(subscription, note(&account, 1))).await;
    account.reach(2_000).await;
    ends(running).await;
    assert_eq!(account.entries().len(), 2_000, "each once");
    assert_eq!(committed(&url(), &group, &topic, 200).await, [10; 200]);
}

/// Who may choose any topic for the answer may choose the handler's own: that answer is handled once, and asks for none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn an_answer_to_the_own_topic_is_no_loop() {
    let (topic, group) = topic("echo", 1).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let answer = move |delivery: Delivery| {
        sender.send(body(&delivery)).expect("the test listens");
        async move { format!("answer to {}", body(&delivery)) }
    };
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).reply_topics(["*"]);
    let running = start(&url(), App::new().subscribe(subscription, answer)).await;
    let kafka = connect(&url()).await;
    let publisher = kafka.publisher().without_telemetry();
    let asking = Envelope::new(topic.clone(), "question").with_header("reply-to", topic.clone());
    publisher.publish_envelope(asking).await.expect("stored");
    assert_eq!(next(&mut seen).await, "question");
    assert_eq!(next(&mut seen).await, "answer to question");
    publisher.publish(topic.clone(), "last").await.expect("stored");
    assert_eq!(next(&mut seen).await, "last", "nothing more came between");
    ends(running).await;
}

/// The end of one app flushes the connection that it shares, and leaves it to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn of_two_apps_on_one_connection_the_other_goes_on() {
    let (topic, group) = topic("two", 1).await;
    let out = format!("{topic}.out");
    create(&url(), &out, 1).await;
    let kafka = connect(&url()).await;
    let pass_on = {
        let out = out.clone();
        move |delivery: Delivery, publisher: Publisher| {
            let out = out.clone();
            async move { publisher.publish(out, body(&delivery)).await.map(drop) }
        }
    };
    let one = App::new().subscribe(Topic::new(topic.as_str()).group(unique("group")), async |_: Delivery| {});
    let two = App::new().subscribe(Topic::new(topic.as_str()).group(group.as_str()), pass_on);
    let one = serve(kafka.clone(), one.without_telemetry()).start().await.expect("the app starts");
    let two = serve(kafka.clone(), two.without_telemetry()).start().await.expect("the app starts");
    publish_bodies(&url(), &topic, &["before".to_owned()]).await;
    ends(one).await;
    publish_bodies(&url(), &topic, &["after".to_owned()]).await;
    assert_eq!(load::read(&url(), &out, 2).await, ["before", "after"]);
    ends(two).await;
    assert_eq!(committed(&url(), &group, &topic, 1).await, [2]);
}

/// What is told to end right after its start, or while it starts, ends, and leaves the messages to the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn an_end_right_after_the_start_loses_nothing() {
    let (topic, group) = topic("short", 3).await;
    load::publish(&url(), &topic, 0..300, 3, 1).await;
    let account = Account::new();
    let subscription = || Topic::new(topic.as_str()).group(group.as_str());
    let app = || App::new().subscribe(subscription(), note(&account, 1));
    for _ in 0..3 {
        ends(start(&url(), app()).await).await;
        // Given up in the middle of it.
        let starting = serve(connect(&url()).await, app().without_telemetry()).start();
        drop(timeout(Duration::from_millis(1), starting).await);
    }
    let last = start(&url(), app()).await;
    account.reach(300).await;
    ends(last).await;
    assert_eq!(account.entries().len(), 300, "each once");
    assert_eq!(committed(&url(), &group, &topic, 3).await, [100; 3]);
}

/// A handler that blocks its thread blocks the only one of the runtime: the member stays one.
#[tokio::test(flavor = "current_thread")]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_handler_that_blocks_the_only_thread_keeps_its_membership() {
    const BLOCKED: Duration = Duration::from_secs(8);
    let (topic, group) = topic("blocks", 1).await;
    load::publish(&url(), &topic, 0..3, 1, 1).await;
    let account = Account::new();
    let count = account.clone();
    let handle = move |delivery: Delivery| {
        let entry = Entry::new(1, &delivery);
        count.add(entry);
        if entry.number == 0 {
            std::thread::sleep(BLOCKED);
        }
        async {}
    };
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).rebalance_timeout(Duration::from_secs(5));
    let subscription = subscription.property("session.timeout.ms", "6000").property("max.poll.interval.ms", "6000");
    let running = start(&url(), App::new().subscribe(subscription, handle)).await;
    account.reach(3).await;
    ends(running).await;
    assert_eq!(account.entries().len(), 3, "nothing comes twice");
    assert_eq!(committed(&url(), &group, &topic, 1).await, [3]);
}

/// A member that comes while another one waits for its last handler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_rebalance_while_a_service_ends_repeats_nothing() {
    let (topic, group) = topic("drains", 4).await;
    load::publish(&url(), &topic, 0..40, 4, 1).await;
    let account = Account::new();
    let app = |member: u32| {
        let account = account.clone();
        let handle = move |delivery: Delivery| {
            let entry = Entry::new(member, &delivery);
            account.add(entry);
            async move {
                if member == 1 {
                    sleep(Duration::from_secs(2)).await;
                }
            }
        };
        let subscription = Topic::new(topic.as_str()).group(group.as_str());
        App::new().subscribe(subscription.property("heartbeat.interval.ms", "200"), handle)
    };
    let first = start(&url(), app(1)).await;
    account.reach(4).await;
    let url = url();
    let (ended, second) = tokio::join!(first.shutdown(), start(&url, app(2)));
    ended.expect("all offsets are committed");
    account.reach(40).await;
    ends(second).await;
    assert_eq!(account.entries().len(), 40, "each once");
    assert_eq!(committed(&url, &group, &topic, 4).await, [10; 4]);
}

/// The second one with an id takes the place of the first, which ends with an error and settles nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_static_member_that_is_replaced_ends_and_says_why() {
    let (topic, group) = topic("fenced", 1).await;
    let id = unique("id");
    let (sender, mut seen) = mpsc::unbounded_channel();
    let app = || {
        let subscription = Topic::new(topic.as_str()).group(group.as_str()).static_member(id.as_str());
        App::new().subscribe(subscription.property("heartbeat.interval.ms", "200"), tell(sender.clone()))
    };
    let first = start(&url(), app()).await;
    let second = start(&url(), app()).await;
    let ended = timeout(PATIENCE, first.run_until(std::future::pending())).await.expect("it ends by itself");
    let failed = ended.expect_err("with an error");
    assert!(failed.to_string().contains("FENCED") || format!("{failed:?}").contains("encedInstanceId"), "{failed:?}");
    publish_bodies(&url(), &topic, &["x".to_owned()]).await;
    assert_eq!(next(&mut seen).await, "x");
    ends(second).await;
    assert_eq!(committed(&url(), &group, &topic, 1).await, [1]);
}

/// Without a group, from now on: what is published right after the start is not missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn without_a_group_nothing_is_missed_from_the_start_on() {
    let (topic, _) = topic("groupless", 3).await;
    load::publish(&url(), &topic, 0..30, 3, 1).await;
    for position in [None, Some(StartPosition::Latest)] {
        let account = Account::new();
        let subscription = Topic::new(topic.as_str());
        let subscription = match position {
            Some(position) => subscription.start(position),
            None => subscription,
        };
        let running = start(&url(), App::new().subscribe(subscription, note(&account, 1))).await;
        load::publish(&url(), &topic, 100..130, 3, 1).await;
        account.reach(30).await;
        assert!(account.entries().iter().all(|entry| entry.number >= 100), "nothing from before");
        ends(running).await;
    }
}
