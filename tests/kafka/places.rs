//! A group that exists goes on at the first message that it has not handled and that still exists, whatever `start` says.

use std::time::SystemTime;

use throughline_core::{App, Delivery};
use throughline_kafka::{StartPosition, Topic};

use crate::load::{Account, Entry, committed, publish, start};
use crate::server::url;
use crate::topics::{create, delete, grow, truncate, unique};

fn starts() -> [StartPosition; 3] {
    [StartPosition::Latest, StartPosition::Time(SystemTime::now()), StartPosition::Earliest]
}

struct Group {
    topic: String,
    group: String,
    start: StartPosition,
    account: Account,
}

impl Group {
    /// A group of a topic with one partition, that has handled its first five messages.
    async fn at_five(start: StartPosition) -> Self {
        let (topic, group) = (unique("places"), unique("group"));
        create(&url(), &topic, 1).await;
        let group = Self { topic, group, start, account: Account::new() };
        let running = crate::load::start(&url(), group.app()).await;
        publish(&url(), &group.topic, 0..5, 1, 1).await;
        group.account.reach(5).await;
        running.shutdown().await.expect("a clean end");
        assert_eq!(committed(&url(), &group.group, &group.topic, 1).await, [5]);
        group
    }

    fn app(&self) -> App {
        let account = self.account.clone();
        let handle = move |delivery: Delivery| {
            let account = account.clone();
            async move { account.add(Entry::new(0, &delivery)) }
        };
        let topic = Topic::new(self.topic.as_str()).group(self.group.as_str()).start(self.start);
        App::new().subscribe(topic.property("topic.metadata.refresh.interval.ms", "200"), handle)
    }

    /// Runs until so many messages are handled, and returns their numbers.
    async fn handled(&self, count: usize) -> Vec<u64> {
        let running = start(&url(), self.app()).await;
        self.account.reach(count).await;
        running.shutdown().await.expect("a clean end");
        let mut numbers: Vec<u64> = self.account.entries().iter().map(|entry| entry.number).collect();
        numbers.sort_unstable();
        numbers
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_group_whose_place_was_deleted_goes_on_at_the_first_message_that_is_left() {
    for start in starts() {
        let group = Group::at_five(start).await;
        publish(&url(), &group.topic, 5..20, 1, 1).await;
        truncate(&url(), &group.topic, 10).await;
        let expected: Vec<u64> = (0..5).chain(10..20).collect();
        assert_eq!(group.handled(15).await, expected, "{start:?}");
        assert_eq!(committed(&url(), &group.group, &group.topic, 1).await, [20]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_group_begins_a_partition_that_was_added_at_its_beginning() {
    for start in starts() {
        let group = Group::at_five(start).await;
        grow(&url(), &group.topic, 3).await;
        // Numbers of their partition: 5 is in the last one.
        publish(&url(), &group.topic, 5..20, 3, 1).await;
        assert_eq!(group.handled(20).await, (0..20).collect::<Vec<_>>(), "{start:?}");
    }
}

/// Also a member that runs, which notices later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_running_member_begins_a_partition_that_was_added_at_its_beginning() {
    for position in starts() {
        let group = Group::at_five(position).await;
        let running = start(&url(), group.app()).await;
        grow(&url(), &group.topic, 3).await;
        publish(&url(), &group.topic, 5..20, 3, 1).await;
        group.account.reach(20).await;
        running.shutdown().await.expect("a clean end");
        assert_eq!(group.account.entries().len(), 20, "{position:?}: each once");
    }
}

/// A topic of the same name that was created anew: the brokers forget the group's place with the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_running_member_reads_a_topic_that_was_created_anew_from_its_beginning() {
    let group = Group::at_five(StartPosition::Latest).await;
    let running = start(&url(), group.app()).await;
    delete(&url(), &group.topic).await;
    create(&url(), &group.topic, 1).await;
    publish(&url(), &group.topic, 5..8, 1, 1).await;
    group.account.reach(8).await;
    running.shutdown().await.expect("a clean end");
    assert_eq!(group.account.entries().len(), 8, "each once");
}

/// The place of a new group is that of all partitions at once: a member that comes later, or a partition of one that has died, does not
/// begin anywhere else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_new_group_begins_at_the_end_of_all_partitions() {
    let (topic, group) = (unique("latest"), unique("group"));
    create(&url(), &topic, 4).await;
    publish(&url(), &topic, 0..40, 4, 1).await;
    let account = Account::new();
    let group = Group { topic, group, start: StartPosition::Latest, account };
    let url = url();
    let (one, two) = tokio::join!(start(&url, group.app()), start(&url, group.app()));
    publish(&url, &group.topic, 40..80, 4, 1).await;
    group.account.reach(40).await;
    one.shutdown().await.expect("a clean end");
    two.shutdown().await.expect("a clean end");
    let numbers: Vec<u64> = group.account.entries().iter().map(|entry| entry.number).collect();
    assert!(numbers.iter().all(|number| *number >= 40), "what was there before is not handled: {numbers:?}");
    assert_eq!(committed(&url, &group.group, &group.topic, 4).await, [20; 4]);
}
