//! What a start looks for, and what it creates: the topics of replies and dead letters, and those that are declared.

use std::time::Duration;

use throughline_core::broker::BrokerErrorKind;
use throughline_core::{App, BrokerError, Delivery, Handler, ServeError, ServeErrorKind, serve};
use throughline_kafka::{Kafka, NewTopic, Topic};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::child::{self, Service};
use crate::load::{self, publish_bodies};
use crate::server::{PATIENCE, Server, url};
use crate::topics::{create, partitions, unique};

async fn handle(body: String) -> String {
    format!("{body} is done")
}

async fn connect(bootstrap: &str) -> Kafka {
    Kafka::connect(bootstrap).await.expect("a connection to THROUGHLINE_KAFKA_URL")
}

async fn start(bootstrap: &str, app: App) -> Result<(), ServeError> {
    serve(connect(bootstrap).await, app.without_telemetry()).start().await?.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_topic_that_is_missing_is_refused_with_how_to_create_it() {
    let (topic, group) = (unique("orders"), unique("group"));
    create(&url(), &topic, 1).await;
    let (there, missing) = (format!("{topic}.done"), format!("{topic}.missing"));
    create(&url(), &there, 1).await;
    let subscription = || Topic::new(topic.as_str()).group(group.as_str());
    for (setting, subscription, route) in [
        ("dead_letter", subscription(), handle.reply_to(there.clone()).dead_letter(missing.clone())),
        ("reply_to", subscription(), handle.reply_to(missing.clone()).dead_letter(there.clone())),
        ("dead_letter", subscription().exactly_once(unique("id")), handle.dead_letter(missing.clone())),
    ] {
        let failed = start(&url(), App::new().subscribe(subscription, route)).await.expect_err("a topic is missing");
        assert_eq!(failed.kind(), ServeErrorKind::Configuration);
        let broker = failed.broker_error().map(|error| (error.kind(), error.error_type().to_owned()));
        assert_eq!(broker, Some((BrokerErrorKind::NotFound, "UNKNOWN_TOPIC_OR_PARTITION".to_owned())));
        let text = format!("{failed:?}");
        let place = format!("`{setting}` of the subscription to `{topic}` (group `{group}`)");
        let command = format!("kafka-topics.sh --bootstrap-server HOST:9092 --create --topic {missing}");
        for part in [place.as_str(), &command, "`Topic::declare`", "auto.create.topics.enable"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    let both = handle.reply_to(there.clone()).dead_letter(there);
    start(&url(), App::new().subscribe(subscription(), both)).await.expect("both are there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_topic_that_the_brokers_create_by_themselves_is_no_fault_and_is_not_created_by_asking() {
    let server = Server::start_with("creating", "auto.create.topics.enable=true\n").await;
    let (topic, group) = (unique("orders"), unique("group"));
    create(&server.url(), &topic, 1).await;
    let done = format!("{topic}.done");
    let subscription = Topic::new(topic.as_str()).group(group.as_str());
    let app = App::new().without_telemetry().subscribe(subscription, handle.reply_to(done.clone()));
    let running = serve(connect(&server.url()).await, app).start().await.expect("the brokers create it");
    assert_eq!(partitions(&server.url(), &done).await, None, "nobody has published there");
    publish_bodies(&server.url(), &topic, &["one".to_owned()]).await;
    load::read(&server.url(), &done, 1).await;
    running.shutdown().await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn what_is_declared_is_created_with_all_that_belongs_to_it() {
    for exactly_once in [false, true] {
        let (topic, group) = (unique("orders"), unique("group"));
        let (done, dead) = (format!("{topic}.done"), format!("{topic}.dead"));
        let new = NewTopic::partitions(3).replication(1).property("retention.ms", "86400000");
        let subscription = Topic::new(topic.as_str()).group(group.as_str()).declare(new);
        let subscription = subscription.retry_topics([Duration::from_millis(20)]);
        let subscription = if exactly_once { subscription.exactly_once(unique("id")) } else { subscription };
        let fail = |body: String| async move { if body == "bad" { Err(std::fmt::Error) } else { Ok(body) } };
        let route = Handler::<(String,), _>::reply_to(fail, done.clone()).dead_letter(dead.clone());
        let app = App::new().without_telemetry().subscribe(subscription, route);
        let running = serve(connect(&url()).await, app).start().await.expect("the topics are created");
        for name in [&topic, &format!("{topic}.{group}.retry.1"), &done, &dead] {
            assert_eq!(partitions(&url(), name).await, Some(3), "{name}");
        }
        let (sender, mut bodies) = mpsc::unbounded_channel();
        let read = move |body: String, delivery: Delivery| {
            sender.send((delivery.destination().to_owned(), body)).expect("the test listens");
            async {}
        };
        let reader = App::new()
            .without_telemetry()
            .subscribe(Topic::new(done.as_str()).and(dead.as_str()).group(unique("reader")), read);
        let reader = serve(connect(&url()).await, reader).start().await.expect("they can be read");
        publish_bodies(&url(), &topic, &["good".to_owned(), "bad".to_owned()]).await;
        let mut found = Vec::new();
        while found.len() < 2 {
            found.push(timeout(PATIENCE, bodies.recv()).await.expect("in time").expect("the reader lives"));
        }
        found.sort();
        assert_eq!(found, [(dead, "bad".to_owned()), (done, "good".to_owned())]);
        reader.shutdown().await.expect("a clean end");
        running.shutdown().await.expect("a clean end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_topic_that_the_brokers_refuse_to_create_is_a_typed_error() {
    let declared =
        |new| App::new().subscribe(Topic::new(unique("orders")).group("g").declare(new), handle.concurrency(1));
    for (new, error_type) in [
        (NewTopic::partitions(1).replication(99), "INVALID_REPLICATION_FACTOR"),
        (NewTopic::partitions(1).property("retention.milliseconds", "1"), "INVALID_CONFIG"),
    ] {
        let failed = start(&url(), declared(new)).await.expect_err("it is refused");
        let broker = failed.broker_error().map(|error| (error.kind(), error.error_type().to_owned()));
        assert_eq!(broker, Some((BrokerErrorKind::Configuration, error_type.to_owned())), "{failed}");
    }
    let pattern =
        App::new().subscribe(Topic::pattern("^a.*").group("g").declare(NewTopic::partitions(1)), handle.concurrency(1));
    let failed = start(&url(), pattern).await.expect_err("a pattern names no topic");
    assert_eq!(failed.broker_error().map(BrokerError::kind), Some(BrokerErrorKind::Configuration));
}

/// In the process of the service: serves, and returns true when it is over.
async fn is_service() -> bool {
    let Some(given) = child::given() else { return false };
    let [bootstrap, topic, group] = &given[..] else { panic!("what is {given:?}?") };
    let declared = Topic::new(topic.as_str()).group(group.as_str()).declare(NewTopic::partitions(4));
    child::serve(bootstrap, declared).await;
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_topic_that_exists_is_left_as_it_is_with_a_warning_where_it_differs() {
    if is_service().await {
        return;
    }
    let test = "starts::a_topic_that_exists_is_left_as_it_is_with_a_warning_where_it_differs";
    for (there, warnings) in [(1, 1), (4, 0)] {
        let (url, topic, group) = (url(), unique("there"), unique("group"));
        create(&url, &topic, there).await;
        let service = Service::start(test, &[&*url, &*topic, &*group]).await;
        service.until("it has started", |lines| lines.iter().any(|line| line == "started")).await;
        let log = service.log();
        let said: Vec<&String> = log.iter().filter(|line| line.contains("another number of partitions")).collect();
        assert_eq!(said.len(), warnings, "{log:#?}");
        for part in ["WARN", &*topic, "partitions=1", "declared=4"] {
            assert!(said.iter().all(|line| line.contains(part)), "{part} is missing: {said:?}");
        }
        assert_eq!(partitions(&url, &topic).await, Some(there as usize));
    }
}

/// What a `main` that returns the error prints.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn an_error_names_topic_and_group_and_says_each_cause_once() {
    let topic = unique("missing");
    let app = App::new().subscribe(Topic::new(topic.as_str()).group("stock"), async |_: Delivery| {});
    let failed = start(&url(), app).await.expect_err("there is no topic");
    let expected = format!(
        "cannot subscribe to `{topic}` (group `stock`): topic `{topic}` does not exist: create it with `kafka-topics.sh \
         --bootstrap-server HOST:9092 --create --topic {topic}`, or let the service do so with `Topic::declare`"
    );
    assert_eq!((failed.to_string(), format!("{failed:?}")), (expected.clone(), expected));
}
