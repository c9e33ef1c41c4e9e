//! What a subscription reads: where it begins, which topics and partitions it has, and what is refused.

use std::time::SystemTime;

use throughline_core::broker::{Broker, BrokerErrorKind, Received, Subscriber, Subscription};
use throughline_core::{App, BrokerError, Settlement};
use throughline_kafka::{Isolation, NativeRecord, StartPosition, Topic};
use tokio::time::{Instant, timeout};

use crate::load::{Account, Entry, PATIENCE, committed, connect, publish, start};
use crate::server::url;
use crate::topics::{create, unique};

async fn subscribe(topic: Topic) -> Result<Box<dyn Subscriber>, BrokerError> {
    connect(&url()).await.subscribe(&Subscription::from(topic)).await
}

async fn receive(subscriber: &mut Box<dyn Subscriber>) -> Received {
    timeout(PATIENCE, subscriber.receive()).await.expect("a message in time").expect("a message")
}

fn number(received: &Received) -> u64 {
    Entry::new(0, &received.delivery).number
}

/// Receives and acknowledges so many, and returns their numbers in ascending order.
async fn take(subscriber: &mut Box<dyn Subscriber>, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let mut received = receive(subscriber).await;
        received.settle(&Settlement::Ack).await.expect("it is noted");
        numbers.push(number(&received));
    }
    numbers.sort_unstable();
    numbers
}

async fn finish(mut subscriber: Box<dyn Subscriber>) {
    subscriber.close(crate::server::deadline()).await;
    subscriber.finish(crate::server::deadline()).await.expect("the offsets are committed");
}

fn app(account: &Account, topic: Topic) -> App {
    let account = account.clone();
    let handle = move |delivery: throughline_core::Delivery| {
        let account = account.clone();
        async move { account.add(Entry::new(0, &delivery)) }
    };
    App::new().subscribe(topic, handle)
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_group_goes_on_where_it_was() {
    let (topic, group) = (unique("offsets"), unique("group"));
    create(&url(), &topic, 2).await;
    publish(&url(), &topic, 0..10, 2, 1).await;
    let mut first = subscribe(Topic::new(topic.as_str()).group(group.as_str())).await.expect("a subscription");
    assert_eq!(take(&mut first, 10).await, (0..10).collect::<Vec<_>>(), "a new group begins with the earliest message");
    finish(first).await;
    assert_eq!(committed(&url(), &group, &topic, 2).await, [5, 5]);

    publish(&url(), &topic, 10..16, 2, 1).await;
    let mut second = subscribe(Topic::new(topic.as_str()).group(group.as_str())).await.expect("a subscription");
    assert_eq!(take(&mut second, 6).await, (10..16).collect::<Vec<_>>());
    finish(second).await;
}

/// What is not settled is not committed, nor what comes after it.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn an_offset_is_committed_when_all_before_it_are_settled() {
    let (topic, group) = (unique("gap"), unique("group"));
    create(&url(), &topic, 1).await;
    publish(&url(), &topic, 0..5, 1, 1).await;
    let read = || subscribe(Topic::new(topic.as_str()).group(group.as_str()));
    let mut subscriber = read().await.expect("a subscription");
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(receive(&mut subscriber).await);
    }
    for index in [4, 0, 1, 3] {
        all[index].settle(&Settlement::Ack).await.expect("it is noted");
    }
    finish(subscriber).await;
    assert_eq!(committed(&url(), &group, &topic, 1).await, [2]);
    let mut again = read().await.expect("a subscription");
    assert_eq!(take(&mut again, 3).await, [2, 3, 4]);
    finish(again).await;
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn the_latest_start_misses_nothing_that_is_published_from_then_on() {
    let (topic, group) = (unique("latest"), unique("group"));
    create(&url(), &topic, 3).await;
    publish(&url(), &topic, 0..30, 3, 1).await;
    let latest = || Topic::new(topic.as_str()).group(group.as_str()).start(StartPosition::Latest);
    let mut subscriber = subscribe(latest()).await.expect("a subscription");
    publish(&url(), &topic, 30..36, 3, 1).await;
    assert_eq!(take(&mut subscriber, 6).await, (30..36).collect::<Vec<_>>());
    finish(subscriber).await;
    // The place is the group's now.
    publish(&url(), &topic, 36..39, 3, 1).await;
    let mut subscriber = subscribe(latest()).await.expect("a subscription");
    assert_eq!(take(&mut subscriber, 3).await, [36, 37, 38]);
    finish(subscriber).await;
}

/// A group that began at the end and got nothing keeps its place all the same.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_latest_start_is_the_place_of_the_group_also_before_its_first_message() {
    for each in [false, true] {
        let (topic, group) = (unique("latest-empty"), unique("group"));
        create(&url(), &topic, 1).await;
        publish(&url(), &topic, 0..7, 1, 1).await;
        let latest = || {
            let latest = Topic::new(topic.as_str()).group(group.as_str()).start(StartPosition::Latest);
            if each { latest.commit_each_message() } else { latest }
        };
        finish(subscribe(latest()).await.expect("a subscription")).await;
        publish(&url(), &topic, 7..9, 1, 1).await;
        let mut subscriber = subscribe(latest()).await.expect("a subscription");
        assert_eq!(take(&mut subscriber, 2).await, [7, 8]);
        finish(subscriber).await;
    }
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_start_at_a_time_begins_with_the_first_message_from_then_on() {
    let (topic, group) = (unique("time"), unique("group"));
    create(&url(), &topic, 1).await;
    publish(&url(), &topic, 0..3, 1, 1).await;
    let time = next_millisecond().await;
    publish(&url(), &topic, 3..6, 1, 1).await;
    let at = Topic::new(topic.as_str()).group(group.as_str()).start(StartPosition::Time(time));
    let mut subscriber = subscribe(at).await.expect("a subscription");
    assert_eq!(take(&mut subscriber, 3).await, [3, 4, 5]);
    finish(subscriber).await;
}

/// Waits until the clock is past the time of all that was published: a message has the time of this clock, in whole milliseconds.
async fn next_millisecond() -> SystemTime {
    let millis = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_millis();
    let published = millis(SystemTime::now());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = SystemTime::now();
        if millis(now) > published {
            return now;
        }
        assert!(Instant::now() < deadline, "the clock stands still");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn without_a_group_each_gets_everything_from_its_start_on() {
    let topic = unique("alone");
    create(&url(), &topic, 2).await;
    publish(&url(), &topic, 0..4, 2, 1).await;
    let mut one = subscribe(Topic::new(topic.as_str())).await.expect("a subscription");
    let mut two = subscribe(Topic::new(topic.as_str()).start(StartPosition::Earliest)).await.expect("a subscription");
    publish(&url(), &topic, 4..8, 2, 1).await;
    assert_eq!(take(&mut one, 4).await, [4, 5, 6, 7]);
    assert_eq!(take(&mut two, 8).await, (0..8).collect::<Vec<_>>());
    finish(one).await;
    finish(two).await;
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn partitions_are_taken_by_their_number() {
    let (topic, group) = (unique("partitions"), unique("group"));
    create(&url(), &topic, 4).await;
    publish(&url(), &topic, 0..12, 4, 1).await;
    let given = || Topic::new(topic.as_str()).group(group.as_str()).partition(1).partition(3);
    let mut subscriber = subscribe(given()).await.expect("a subscription");
    assert_eq!(take(&mut subscriber, 6).await, [1, 3, 5, 7, 9, 11]);
    finish(subscriber).await;
    assert_eq!(committed(&url(), &group, &topic, 4).await, [-1, 3, -1, 3], "the group keeps their offsets");
    let error = subscribe(Topic::new(topic.as_str()).partition(4)).await.map(drop).expect_err("there is none");
    assert_eq!((error.kind(), error.error_type()), (BrokerErrorKind::NotFound, "UNKNOWN_TOPIC_OR_PARTITION"));
    assert!(error.to_string().contains('4'), "{error}");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn several_topics_are_one_subscription() {
    let (one, two, group) = (unique("one"), unique("two"), unique("group"));
    create(&url(), &one, 1).await;
    create(&url(), &two, 1).await;
    publish(&url(), &one, 0..2, 1, 1).await;
    publish(&url(), &two, 2..4, 1, 1).await;
    let both = Topic::new(one.as_str()).and(two.as_str()).group(group.as_str());
    let mut subscriber = subscribe(both).await.expect("a subscription");
    assert_eq!(take(&mut subscriber, 4).await, [0, 1, 2, 3]);
    finish(subscriber).await;
}

/// Also a topic that is created later, from its first message on.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_pattern_reads_topics_that_are_created_later() {
    let (prefix, group) = (unique("pattern"), unique("group"));
    let (now, later) = (format!("{prefix}.now"), format!("{prefix}.later"));
    create(&url(), &now, 1).await;
    for group in [Some(group), None] {
        let later = format!("{later}.{}", group.is_some());
        let mut pattern = Topic::pattern(&format!("^{prefix}[.].*"))
            .start(StartPosition::Earliest)
            .property("topic.metadata.refresh.interval.ms", "200");
        let is_grouped = group.is_some();
        if let Some(group) = group {
            pattern = pattern.group(group);
        } else {
            pattern = pattern.start(StartPosition::Latest);
        }
        let mut subscriber = subscribe(pattern).await.expect("a subscription");
        publish(&url(), &now, 0..1, 1, 1).await;
        let first = receive(&mut subscriber).await;
        assert_eq!(first.delivery.destination(), now);
        create(&url(), &later, 1).await;
        publish(&url(), &later, 1..3, 1, 1).await;
        let numbers = [receive(&mut subscriber).await, receive(&mut subscriber).await].map(|received| {
            assert_eq!(received.delivery.destination(), later, "with a group: {is_grouped}");
            number(&received)
        });
        assert_eq!(numbers, [1, 2], "with a group: {is_grouped}");
        finish(subscriber).await;
        crate::topics::delete(&url(), &later).await;
    }
}

/// A restart within the session is no rebalance: the other member keeps its partitions, and the static one gets its own again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_static_member_comes_back_without_a_rebalance() {
    let (topic, group) = (unique("static"), unique("group"));
    create(&url(), &topic, 4).await;
    let member = |id: &str| {
        Topic::new(topic.as_str()).group(group.as_str()).static_member(id).property("heartbeat.interval.ms", "200")
    };
    let (one, two) = (Account::new(), Account::new());
    let first = start(&url(), app(&one, member("one"))).await;
    let second = start(&url(), app(&two, member("two"))).await;
    let mut published = 0;
    // Both have their share when both handle messages.
    while one.distinct() == 0 || two.distinct() == 0 {
        publish(&url(), &topic, published..published + 4, 4, 1).await;
        published += 4;
        crate::load::wait_until("they are handled", || one.distinct() + two.distinct() >= published as usize).await;
    }
    let partitions = |account: &Account, from: usize| {
        let entries = account.entries();
        entries[from..].iter().map(|entry| entry.partition).collect::<std::collections::BTreeSet<_>>()
    };
    let settled = two.entries().len();
    publish(&url(), &topic, published..published + 40, 4, 1).await;
    published += 40;
    crate::load::wait_until("they are handled", || one.distinct() + two.distinct() >= published as usize).await;
    let (kept, handled) = (partitions(&two, settled), two.entries().len());
    first.shutdown().await.expect("the member stops");
    publish(&url(), &topic, published..published + 40, 4, 1).await;
    published += 40;
    let first = start(&url(), app(&one, member("one"))).await;
    crate::load::wait_until("all are handled", || one.distinct() + two.distinct() >= published as usize).await;
    assert_eq!(partitions(&two, handled), kept, "the other one kept its partitions, and got no more");
    first.shutdown().await.expect("the member stops");
    second.shutdown().await.expect("the member stops");
    assert_eq!(one.entries().len() + two.entries().len(), published as usize, "nothing twice");
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn what_cannot_be_subscribed_to_is_a_typed_error() {
    let topic = unique("missing");
    let error = |topic: Topic| async { subscribe(topic).await.map(drop).expect_err("it is refused") };
    let missing = error(Topic::new(topic.as_str()).group("g")).await;
    assert_eq!((missing.kind(), missing.error_type()), (BrokerErrorKind::NotFound, "UNKNOWN_TOPIC_OR_PARTITION"));
    assert!(missing.to_string().contains(&topic), "{missing}");

    for (name, value) in [("enable.auto.commit", "true"), ("group.id", "other"), ("no.such.property", "1")] {
        let refused = error(Topic::new(topic.as_str()).group("g").property(name, value)).await;
        assert_eq!(refused.kind(), BrokerErrorKind::Configuration, "{name}: {refused}");
        assert!(refused.to_string().contains(name), "{refused}");
    }
    let alone = error(Topic::new(topic.as_str()).static_member("one")).await;
    assert_eq!(alone.kind(), BrokerErrorKind::Configuration);
}

/// What a transaction wrote that was aborted is not read, unless that is asked for.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn messages_of_aborted_transactions_are_left_out() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let (topic, id) = (unique("isolation"), unique("transaction"));
    create(&url(), &topic, 1).await;
    let (name, bootstrap) = (topic.clone(), url());
    tokio::task::spawn_blocking(move || {
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("transactional.id", id);
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(PATIENCE).expect("a transactional producer");
        for number in 0..3 {
            producer.begin_transaction().expect("a transaction");
            let body = number.to_string();
            producer.send(BaseRecord::<(), _>::to(&name).payload(&body)).map_err(|(error, _)| error).expect("sent");
            producer.flush(PATIENCE).expect("it is stored");
            if number == 1 {
                producer.abort_transaction(PATIENCE).expect("it is aborted");
            } else {
                producer.commit_transaction(PATIENCE).expect("it is committed");
            }
        }
    })
    .await
    .expect("all is published");
    let earliest = || Topic::new(topic.as_str()).start(StartPosition::Earliest);
    let mut committed = subscribe(earliest()).await.expect("a subscription");
    assert_eq!(take(&mut committed, 2).await, [0, 2]);
    finish(committed).await;
    let mut all = subscribe(earliest().isolation(Isolation::ReadUncommitted)).await.expect("a subscription");
    assert_eq!(take(&mut all, 3).await, [0, 1, 2]);
    finish(all).await;
}

/// A message that nobody settles comes again, with those behind it.
#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_message_that_is_dropped_comes_again() {
    let (topic, group) = (unique("dropped"), unique("group"));
    create(&url(), &topic, 1).await;
    publish(&url(), &topic, 0..5, 1, 1).await;
    let mut subscriber = subscribe(Topic::new(topic.as_str()).group(group.as_str())).await.expect("a subscription");
    assert_eq!(take(&mut subscriber, 2).await, [0, 1]);
    drop(receive(&mut subscriber).await);
    // Handed out before, those behind it belong to a time that is over.
    let mut again = Vec::new();
    while again.last() != Some(&4) || again.len() < 3 {
        let mut received = receive(&mut subscriber).await;
        let offset = received.delivery.native::<NativeRecord>().expect("a message of Kafka").offset();
        if received.settle(&Settlement::Ack).await.is_ok() && (again.last() != Some(&4) || offset == 2) {
            if offset == 2 {
                again.clear();
            }
            again.push(u64::try_from(offset).expect("an offset"));
        }
    }
    assert_eq!(again, [2, 3, 4]);
    finish(subscriber).await;
    assert_eq!(committed(&url(), &group, &topic, 1).await, [5]);
}
