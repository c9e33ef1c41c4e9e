//! What a service says at night: of an outage, of a membership that was lost, and of messages that the server has deleted.

use std::time::Duration;

use throughline_kafka::Topic;
use tokio::time::{Instant, sleep};

use crate::child::{self, Service};
use crate::load::{self, publish_bodies};
use crate::server::{Server, url};
use crate::topics::{create, truncate, unique};

/// The subscription of the services here, small and quick to notice what happens.
fn subscription(topic: &str, group: &str) -> Topic {
    let topic = Topic::new(topic).group(group).prefetch(5).commit_interval(Duration::from_millis(200));
    // The client holds no more than it must: what is deleted it does not have yet.
    let topic = topic.property("queued.min.messages", "1").property("max.partition.fetch.bytes", "100");
    topic.property("session.timeout.ms", "6000").property("heartbeat.interval.ms", "500")
}

/// In the process of the service: serves, and returns true when it is over.
async fn is_service() -> bool {
    let Some(given) = child::given() else { return false };
    let [bootstrap, topic, group, rest @ ..] = &given[..] else { panic!("what is {given:?}?") };
    let subscription = subscription(topic, group);
    let subscription = match rest {
        [what] if what == "stays" => subscription.property("session.timeout.ms", "45000"),
        [id] => subscription.exactly_once(id.as_str()),
        _ => subscription,
    };
    child::serve(bootstrap, subscription).await;
    true
}

fn bodies(first: &str, count: usize) -> Vec<String> {
    std::iter::once(first.to_owned()).chain((1..count).map(|number| number.to_string())).collect()
}

fn with<'a>(log: &'a [String], text: &str) -> Vec<&'a String> {
    log.iter().filter(|line| line.contains(text)).collect()
}

/// The member holds what it has taken, and its place is behind that: it is deleted before the member comes to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_running_member_whose_place_is_deleted_goes_on_at_the_first_message_that_is_left_and_says_so() {
    if is_service().await {
        return;
    }
    let test = "logs::a_running_member_whose_place_is_deleted_goes_on_at_the_first_message_that_is_left_and_says_so";
    for exactly_once in [false, true] {
        let (url, topic, group, id) = (url(), unique("deleted"), unique("group"), unique("id"));
        create(&url, &topic, 1).await;
        let all = bodies("wait", 200);
        for some in all.chunks(20) {
            publish_bodies(&url, &topic, some).await;
        }
        let given = [&*url, &*topic, &*group, &*id];
        let mut service = Service::start(test, &given[..if exactly_once { 4 } else { 3 }]).await;
        service.handles(1).await;
        truncate(&url, &topic, 150).await;
        service.go_on().await;
        service.until("the last one is handled", |lines| lines.iter().any(|line| line == "handled 199 199")).await;
        let offsets: Vec<u64> =
            service.handled().iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        let first_left_out = (0..200).find(|offset| !offsets.contains(offset)).expect("some are deleted");
        let expected: Vec<u64> = (0..first_left_out).chain(150..200).collect();
        assert_eq!(offsets, expected, "each once; exactly once: {exactly_once}");
        let log = service.log();
        let said = with(&log, "the server has deleted messages before they were handled");
        assert_eq!(said.len(), 1, "{log:#?}");
        for part in [&*topic, &*group, "partition=0", &format!("from={first_left_out}"), "to=149"] {
            assert!(said[0].contains(part), "{part} is missing: {said:?}");
        }
    }
}

/// How long the server is away.
const AWAY: Duration = Duration::from_secs(20);

/// So many lines are said of an outage of that time at most, by both clients of the service.
const MOST_LINES: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn an_outage_is_a_few_lines_that_say_what_is_not_committed_and_why() {
    if is_service().await {
        return;
    }
    let test = "logs::an_outage_is_a_few_lines_that_say_what_is_not_committed_and_why";
    let mut server = Server::start("logs").await;
    let url = server.url();
    // As by default the one stays a member meanwhile, and the other one does not.
    let mut services = Vec::new();
    for session in ["stays", "ends"] {
        let (topic, group) = (unique(session), unique("group"));
        create(&url, &topic, 1).await;
        publish_bodies(&url, &topic, &bodies("wait", 4)).await;
        let given = [&*url, &*topic, &*group, session];
        let service = Service::start(test, &given[..if session == "stays" { 4 } else { 3 }]).await;
        service.handles(1).await;
        services.push((topic, group, service));
    }
    let before: Vec<usize> = services.iter().map(|(.., service)| service.log().len()).collect();
    server.stop().await;
    // Handled while nobody takes a commit.
    for (.., service) in &mut services {
        service.go_on().await;
        service.handles(4).await;
    }
    // Not waited for: it is how long the outage is.
    sleep(AWAY).await;
    server.restart().await;
    for ((topic, group, service), before) in services.iter_mut().zip(before) {
        // What was handled comes again where it could not be committed.
        service.go_on().await;
        let is_over = |lines: &[String]| lines.iter().filter(|line| line.contains("can be reached again")).count() >= 2;
        service.until("both clients say that the outage is over", is_over).await;
        publish_bodies(&url, topic, &["after".to_owned()]).await;
        service.until("it handles on", |lines| lines.iter().any(|line| line == "handled 4 after")).await;
        let log = service.log().split_off(before);
        println!("OUTAGE of {AWAY:?}: {} lines\n{log:#?}", log.len());
        assert!(log.len() <= MOST_LINES, "{log:#?}");
        let said = with(&log, "offsets were not committed");
        // Who stays a member has its commits answered in the end.
        assert!(topic.starts_with("stays") || !said.is_empty(), "{log:#?}");
        for (line, part) in said.iter().flat_map(|line| {
            [&**group, &*format!("{topic}/0"), "error="].map(|part| ((*line).clone(), part.to_owned()))
        }) {
            assert!(line.contains(&part), "{part} is missing: {line}");
        }
        is_committed(&url, topic, group, 5).await;
    }
}

/// Waits until the group has committed so much.
async fn is_committed(url: &str, topic: &str, group: &str, offset: i64) {
    let deadline = Instant::now() + load::PATIENCE;
    while load::committed(url, group, topic, 1).await != [offset] {
        assert!(Instant::now() < deadline, "{offset} messages of {topic} are committed");
    }
}

/// A member that stands still for longer than its session is none any more when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_member_that_was_thrown_out_says_which_partitions_it_has_lost_and_who_gets_their_messages() {
    if is_service().await {
        return;
    }
    let test = "logs::a_member_that_was_thrown_out_says_which_partitions_it_has_lost_and_who_gets_their_messages";
    let (url, topic, group) = (url(), unique("lost"), unique("group"));
    create(&url, &topic, 1).await;
    publish_bodies(&url, &topic, &bodies("wait", 3)).await;
    let mut first = Service::start(test, &[&url, &topic, &group]).await;
    first.handles(1).await;
    first.signal("-STOP").await;
    let mut second = Service::start(test, &[&url, &topic, &group]).await;
    second.handles(1).await;
    second.go_on().await;
    second.handles(3).await;
    is_committed(&url, &topic, &group, 3).await;
    first.go_on().await;
    first.signal("-CONT").await;
    first
        .until("it says what it has lost", |lines| lines.iter().any(|line| line.contains("partitions were lost")))
        .await;
    let log = first.log();
    let said = with(&log, "partitions were lost");
    for part in [&*group, &format!("{topic}/0"), "comes again, to the member that has them next"] {
        assert!(said[0].contains(part), "{part} is missing: {said:?}");
    }
    assert!(with(&log, "tried again with the next commit").is_empty(), "they are another member's: {log:#?}");
    for message in ["partitions were assigned", "partitions were given up"] {
        let said = with(&log, message);
        for part in [&*group, &*topic, "partitions=\"0\""] {
            assert!(said[0].contains(part), "{part} is missing: {said:?}");
        }
    }
    // And it is a member again.
    second.signal("-KILL").await;
    publish_bodies(&url, &topic, &["after".to_owned()]).await;
    first.until("it handles on", |lines| lines.iter().any(|line| line.starts_with("handled 3 "))).await;
}
