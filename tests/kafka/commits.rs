//! When offsets are committed, and what is told of it and of the lag (SPAN-33, ATTR-K-11, METR-01).

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanId, SpanKind};
use throughline_core::broker::{Broker, Subscription};
use throughline_core::serve::Running;
use throughline_core::telemetry::SettleSpans;
use throughline_core::{App, Delivery, Settlement, serve};
use throughline_kafka::Topic;
use throughline_testing::{Capture, attribute};
use tokio::sync::Semaphore;

use crate::load::{Account, Entry, PATIENCE, committed, connect, publish, wait_until};
use crate::server::url;
use crate::topics::{create, unique};

const NEVER: Duration = Duration::from_secs(3_600);

/// Starts an app whose handlers wait for a permit each.
async fn start(capture: &Capture, which: SettleSpans, topic: Topic, permits: &Arc<Semaphore>) -> (Running, Account) {
    let account = Account::new();
    let (seen, permits) = (account.clone(), Arc::clone(permits));
    let handle = move |delivery: Delivery| {
        let (seen, permits) = (seen.clone(), Arc::clone(&permits));
        async move {
            permits.acquire().await.expect("never closed").forget();
            seen.add(Entry::new(0, &delivery));
        }
    };
    let telemetry = capture.instrumentation().settle_spans(which).build();
    let app = App::new().subscribe(topic, handle).telemetry(telemetry);
    (serve(connect(&url()).await, app).start().await.expect("the app starts"), account)
}

async fn topic(name: &str, messages: u64) -> String {
    let topic = unique(name);
    create(&url(), &topic, 1).await;
    publish(&url(), &topic, 0..messages, 1, 1).await;
    topic
}

fn commits(capture: &Capture) -> Vec<String> {
    capture.spans().into_iter().map(|span| span.name.into_owned()).filter(|name| name.starts_with("commit")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_commit_in_the_background_is_a_span_of_its_own_and_says_up_to_where() {
    let (topic, group, capture) = (topic("orders", 3).await, unique("group"), Capture::new());
    let (permits, interval) = (Arc::new(Semaphore::new(3)), Duration::from_millis(50));
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).commit_interval(interval);
    let (running, account) = start(&capture, SettleSpans::Always, subscription, &permits).await;
    account.reach(3).await;
    let last = || {
        let spans = capture.spans();
        spans.into_iter().find(|span| {
            span.name == format!("commit {topic}") && attribute(span, "messaging.kafka.offset") == Some(&2.into())
        })
    };
    wait_until("the last message is committed", || last().is_some()).await;
    assert_eq!(committed(&url(), &group, &topic, 1).await, [3]);
    let span = last().expect("it is there");
    assert_eq!((&span.span_kind, span.parent_span_id), (&SpanKind::Client, SpanId::INVALID));
    for (key, value) in [
        ("messaging.operation.name", "commit"),
        ("messaging.operation.type", "settle"),
        ("messaging.destination.name", topic.as_str()),
        ("messaging.destination.partition.id", "0"),
        ("messaging.consumer.group.name", group.as_str()),
    ] {
        assert_eq!(attribute(&span, key).map(|value| value.to_string()), Some(value.to_owned()), "{key}");
    }
    let before = commits(&capture).len();
    running.shutdown().await.expect("the app stops");
    assert_eq!(commits(&capture).len(), before, "what is committed already is not committed again");
    let mut points = capture.metrics();
    points.retain(|point| {
        point.name == "messaging.client.operation.duration"
            && point.attributes.get("messaging.operation.name") == Some(&"commit".into())
    });
    assert_eq!(points.iter().map(|point| point.count).sum::<u64>(), before as u64, "METR-01");
}

/// Of several topics the commit has no destination, and is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_commit_over_two_topics_names_none() {
    let (one, two) = (topic("one", 2).await, topic("two", 2).await);
    let (group, capture) = (unique("group"), Capture::new());
    let both = Topic::new(one.as_str()).and(two.as_str()).group(group.as_str()).commit_interval(NEVER);
    let (running, account) = start(&capture, SettleSpans::Always, both, &Arc::new(Semaphore::new(4))).await;
    wait_until("all are handled", || account.entries().len() == 4).await;
    assert_eq!(commits(&capture), [""; 0], "not before the interval is over");
    assert_eq!(committed(&url(), &group, &one, 1).await, [-1]);
    running.shutdown().await.expect("the app stops");
    assert_eq!(commits(&capture), ["commit"]);
    let span = capture.spans().into_iter().find(|span| span.name == "commit").expect("it is there");
    for absent in ["messaging.destination.name", "messaging.destination.partition.id", "messaging.kafka.offset"] {
        assert_eq!(attribute(&span, absent), None, "{absent}");
    }
    assert_eq!(committed(&url(), &group, &two, 1).await, [2]);
}

/// SPAN-32: by default a settlement that succeeds has no span.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_commit_that_succeeds_has_no_span_by_default() {
    let (topic, group, capture) = (topic("orders", 3).await, unique("group"), Capture::new());
    let subscription = Topic::new(topic.as_str()).group(group.as_str());
    let permits = Arc::new(Semaphore::new(3));
    let (running, account) = start(&capture, SettleSpans::Exceptional, subscription, &permits).await;
    account.reach(3).await;
    running.shutdown().await.expect("the app stops");
    assert_eq!(committed(&url(), &group, &topic, 1).await, [3]);
    assert_eq!(commits(&capture), [""; 0]);
}

#[tokio::test]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn where_each_message_is_committed_that_is_done_when_it_is_settled() {
    let (topic, group) = (topic("each", 3).await, unique("group"));
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).commit_each_message();
    let kafka = connect(&url()).await;
    let mut subscriber = kafka.subscribe(&Subscription::from(subscription)).await.expect("a subscription");
    for next in 1..=3 {
        let mut received = subscriber.receive().await.expect("a message");
        received.settle(&Settlement::Ack).await.expect("it is committed");
        assert_eq!(committed(&url(), &group, &topic, 1).await, [next]);
    }
    subscriber.close(crate::server::deadline()).await;
    subscriber.finish(crate::server::deadline()).await.expect("nothing is left");
}

/// The lag is what is not settled, from what the client knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn the_lag_of_a_partition_rises_and_falls() {
    let (topic, group, capture) = (topic("lag", 5).await, unique("group"), Capture::new());
    let permits = Arc::new(Semaphore::new(0));
    let subscription = Topic::new(topic.as_str()).group(group.as_str());
    let (running, account) = start(&capture, SettleSpans::Exceptional, subscription, &permits).await;
    let lag = || {
        let mut points = capture.metrics();
        points.retain(|point| point.name == "throughline.consumer.lag");
        assert!(points.len() <= 1, "one time series for one partition: {points:?}");
        points.pop()
    };
    let is = |value: f64| lag().is_some_and(|point| point.sum == value);
    wait_until("none of the five is settled", || is(5.0)).await;
    publish(&url(), &topic, 5..8, 1, 1).await;
    wait_until("three more came", || is(8.0)).await;
    let point = lag().expect("it is measured");
    assert_eq!(point.unit, "{message}");
    for (key, value) in [
        ("messaging.system", "kafka"),
        ("messaging.destination.name", topic.as_str()),
        ("messaging.destination.partition.id", "0"),
        ("messaging.consumer.group.name", group.as_str()),
    ] {
        assert_eq!(point.attributes.get(key).map(|value| value.to_string()), Some(value.to_owned()), "{key}");
    }
    permits.add_permits(6);
    account.reach(6).await;
    wait_until("two are left", || is(2.0)).await;
    permits.add_permits(2);
    wait_until("none is left", || is(0.0)).await;
    running.shutdown().await.expect("the app stops");
}

/// What stands at the end of a partition and is no message counts for nothing: the ends of transactions, and what they aborted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn the_lag_is_none_where_only_the_ends_of_transactions_are_left() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let (topic, group, capture) = (topic("transactions", 0).await, unique("group"), Capture::new());
    let (permits, interval) = (Arc::new(Semaphore::new(100)), Duration::from_millis(50));
    let subscription = Topic::new(topic.as_str()).group(group.as_str()).commit_interval(interval);
    let (running, account) = start(&capture, SettleSpans::Never, subscription, &permits).await;
    let lag = || {
        let mut points = capture.metrics();
        points.retain(|point| point.name == "throughline.consumer.lag");
        points.pop().map(|point| point.sum)
    };
    let (mut config, name) = (rdkafka::ClientConfig::new(), topic.clone());
    config.set("bootstrap.servers", url()).set("transactional.id", unique("transaction"));
    let producer: BaseProducer = config.create().expect("a producer");
    let producer = Arc::new(producer);
    let transaction = |number: u64, commits: bool| {
        let (producer, name) = (Arc::clone(&producer), name.clone());
        tokio::task::spawn_blocking(move || {
            if number == 0 {
                producer.init_transactions(PATIENCE).expect("a transactional producer");
            }
            producer.begin_transaction().expect("a transaction");
            let body = number.to_string();
            producer.send(BaseRecord::<(), _>::to(&name).payload(&body)).map_err(|(error, _)| error).expect("sent");
            producer.flush(PATIENCE).expect("it is stored");
            if commits { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) }
                .expect("ended");
        })
    };
    for (number, commits) in [(0, true), (1, false), (2, true), (3, false), (4, false)] {
        transaction(number, commits).await.expect("no panic");
        account.reach(if number < 2 { 1 } else { 2 }).await;
        wait_until(format!("the lag is none after {number}"), || lag() == Some(0.0)).await;
    }
    running.shutdown().await.expect("all is committed");
}
