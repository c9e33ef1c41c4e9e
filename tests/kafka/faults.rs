//! Members and servers that come and go under load: every message is counted by its number.
//!
//! Each test prints its counts: `cargo xtask test --broker kafka -- --nocapture faults` shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline_core::extract::Json;
use throughline_core::serve::Running;
use throughline_core::{App, Delivery, Handler};
use throughline_kafka::{Assignment, Topic};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::load::{self, Account, Entry, PATIENCE, start};
use crate::server::{self, Server};
use crate::topics::{self, unique};

const MESSAGES: u64 = 20_000;
/// Fewer where each is committed: the server takes some milliseconds for a commit.
const COMMITTED_EACH: u64 = 3_000;
const PARTITIONS: i32 = 6;
const KEYS: u64 = 60;

/// A topic with all its messages, and a group of its own.
struct Load {
    bootstrap: String,
    topic: String,
    group: String,
    /// How many there are; more where members that have none yet are to get some.
    messages: AtomicU64,
    account: Account,
}

impl Load {
    async fn on(bootstrap: String, name: &str, messages: u64) -> Self {
        let (topic, group) = (unique(name), unique("group"));
        topics::create(&bootstrap, &topic, PARTITIONS).await;
        load::publish(&bootstrap, &topic, 0..messages, PARTITIONS, KEYS).await;
        Self { bootstrap, topic, group, messages: AtomicU64::new(messages), account: Account::new() }
    }

    async fn new(name: &str) -> Self {
        Self::on(server::url(), name, MESSAGES).await
    }

    /// The subscription of the tests: as by default, and quick to notice what happens.
    fn subscription(&self) -> Topic {
        subscription(&self.topic, &self.group)
    }

    async fn member(&self, member: u32, subscription: Topic) -> Running {
        start(&self.bootstrap, app(&self.account, member, subscription)).await
    }

    fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed) as usize
    }

    async fn all(&self) {
        self.account.reach(self.messages()).await;
    }

    async fn publish(&self, more: u64) {
        let from = self.messages.fetch_add(more, Ordering::Relaxed);
        load::publish(&self.bootstrap, &self.topic, from..from + more, PARTITIONS, KEYS).await;
    }

    /// Waits until members have handled so much, and returns with work left for all of them: the others may have handled all there was
    /// before one that starts has a partition.
    async fn work_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let more = self.messages() as u64 / 4;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let is_over = is_so();
            assert!(is_over || Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
            if self.messages() < self.account.distinct() + more as usize {
                self.publish(more).await;
            }
            if is_over {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the group has not committed.
    async fn uncommitted(&self) -> i64 {
        let committed = load::committed(&self.bootstrap, &self.group, &self.topic, PARTITIONS).await;
        self.messages() as i64 - committed.iter().map(|offset| (*offset).max(0)).sum::<i64>()
    }
}

fn subscription(topic: &str, group: &str) -> Topic {
    Topic::new(topic)
        .group(group)
        .commit_interval(Duration::from_millis(200))
        .property("session.timeout.ms", "6000")
        .property("heartbeat.interval.ms", "200")
}

fn app(account: &Account, member: u32, subscription: Topic) -> App {
    let account = account.clone();
    let handle = move |delivery: Delivery| {
        let account = account.clone();
        async move {
            account.add(Entry::new(member, &delivery));
            work().await;
        }
    };
    App::new().subscribe(subscription, handle)
}

/// A little work, so that what happens, happens in the middle of it.
async fn work() {
    sleep(Duration::from_micros(300)).await;
}

/// What tells the test's own program, started once more, that it is a member that will be killed: bootstrap servers, topic, group, and
/// whether each message is committed.
const MEMBER: &str = "THROUGHLINE_TEST_MEMBER";

/// A member in a process of its own.
struct Process {
    child: Child,
    lines: JoinHandle<()>,
}

impl Process {
    fn start(test: &str, load: &Load, member: u32) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("the program of the test"))
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(MEMBER, format!("{} {} {}", load.bootstrap, load.topic, load.group))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program of the test starts once more");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let account = load.account.clone();
        let lines = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(entry) = line.strip_prefix("handled ") {
                    let numbers: Vec<i64> = entry.split(' ').filter_map(|number| number.parse().ok()).collect();
                    // The last line may be cut off.
                    if let [partition, offset, number] = numbers[..] {
                        let partition = i32::try_from(partition).expect("a partition");
                        account.add(Entry { member, partition, offset, number: number.unsigned_abs() });
                    }
                }
            }
        });
        Self { child, lines }
    }

    /// Kills it without notice; returns when all it had handled is in the account.
    async fn kill(mut self) -> ExitStatus {
        self.child.start_kill().expect("it is killed");
        let status = self.child.wait().await.expect("it ends");
        self.lines.await.expect("all it said is read");
        status
    }
}

/// In the process that will be killed: says what it handles, for ever.
async fn be_killed(config: &str, choose: impl Fn(Topic) -> Topic) {
    async fn handle(delivery: Delivery) {
        let entry = Entry::new(0, &delivery);
        // Written at once, so that a kill takes none of it away.
        let line = format!("handled {} {} {}\n", entry.partition, entry.offset, entry.number);
        std::io::stdout().lock().write_all(line.as_bytes()).expect("the test reads");
        work().await;
    }
    let [bootstrap, topic, group] = config.split(' ').collect::<Vec<_>>()[..] else { panic!("what is {config}?") };
    let app = App::new().subscribe(choose(subscription(topic, group)), handle);
    let running = start(bootstrap, app).await;
    running.run_until(sleep(PATIENCE)).await.expect("it is killed");
}

/// One of two members is killed: what it had not committed comes again, to the other one.
async fn a_member_is_killed(test: &str, messages: u64, choose: impl Fn(Topic) -> Topic) -> Option<(Load, usize)> {
    if let Ok(config) = std::env::var(MEMBER) {
        be_killed(&config, choose).await;
        return None;
    }
    let load = Load::on(server::url(), "killed", messages).await;
    let other = load.member(1, choose(load.subscription())).await;
    let process = Process::start(test, &load, 2);
    load.work_until("both members work", || load.account.of_member(2) as u64 >= messages / 10).await;
    assert!(load.account.distinct() < load.messages(), "it is killed in the middle of the work");
    let status = process.kill().await;
    assert!(!status.success(), "{status}");
    let by_the_killed = load.account.of_member(2);
    load.all().await;
    other.shutdown().await.expect("the other one stops");
    load.account.assert_ordered();
    assert_eq!(load.uncommitted().await, 0);
    Some((load, by_the_killed))
}

/// Between two commits the killed member handles so much and no more; each of it comes twice at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_killed_member_loses_nothing() {
    let test = "faults::a_killed_member_loses_nothing";
    let Some((load, by_the_killed)) = a_member_is_killed(test, MESSAGES, |topic| topic).await else { return };
    let sum = load.account.sum("a member is killed, commits each 0.2 s", load.messages());
    assert_eq!(sum.lost, 0);
    assert!(sum.twice <= by_the_killed, "only what it had handled comes again");
    let entries = load.account.entries();
    let again = |entry: &&Entry| entries.iter().filter(|other| other.number == entry.number).count() > 2;
    assert_eq!(entries.iter().find(again), None, "nothing comes more than twice");
}

/// With a commit of each message it is one of each partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_killed_member_that_commits_each_message_repeats_one_of_each_partition() {
    let test = "faults::a_killed_member_that_commits_each_message_repeats_one_of_each_partition";
    let each = Topic::commit_each_message;
    let Some((load, _)) = a_member_is_killed(test, COMMITTED_EACH, each).await else { return };
    let sum = load.account.sum("a member is killed, commits each message", load.messages());
    assert_eq!(sum.lost, 0);
    assert!(sum.twice <= PARTITIONS as usize, "{sum:?}");
}

/// A second member comes and goes, twice.
async fn a_member_comes_and_goes(name: &str, choose: impl Fn(Topic) -> Topic) -> Load {
    let load = Load::new(name).await;
    let first = load.member(1, choose(load.subscription())).await;
    load.account.reach(1_000).await;
    for member in [2, 3] {
        let second = load.member(member, choose(load.subscription())).await;
        load.work_until("both members work", || load.account.of_member(member) >= 1_000).await;
        assert!(load.account.distinct() < load.messages(), "it leaves in the middle of the work");
        second.shutdown().await.expect("the second member stops");
    }
    load.all().await;
    first.shutdown().await.expect("the first member stops");
    assert_eq!(load.uncommitted().await, 0);
    load
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_member_that_comes_and_goes_repeats_nothing() {
    let load = a_member_comes_and_goes("cooperative", |topic| topic).await;
    let sum = load.account.sum("a member comes and goes, cooperative", load.messages());
    assert_eq!((sum.lost, sum.twice), (0, 0));
    load.account.assert_ordered();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_member_that_comes_and_goes_repeats_nothing_with_an_eager_assignment() {
    let load = a_member_comes_and_goes("eager", |topic| topic.assignment(Assignment::Range)).await;
    let sum = load.account.sum("a member comes and goes, range", load.messages());
    assert_eq!((sum.lost, sum.twice), (0, 0));
    load.account.assert_ordered();
}

/// By key messages of a partition overtake each other: what was handled before one that was given up comes again. No more than the
/// prefetch of each partition that moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_member_that_comes_and_goes_keeps_the_order_of_each_key() {
    let load = a_member_comes_and_goes("keys", |topic| topic.by_key(8).prefetch(50)).await;
    let sum = load.account.sum("a member comes and goes, by key, prefetch 50", load.messages());
    assert_eq!(sum.lost, 0);
    // Each of the four times a member joins or leaves, each partition moves once at most.
    assert!(sum.twice <= 4 * PARTITIONS as usize * 50, "{sum:?}");
    load.account.assert_ordered_by_key(KEYS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_server_that_is_stopped_and_one_that_is_killed_lose_nothing() {
    let mut server = Server::start("faults").await;
    let load = Load::on(server.url(), "restart", MESSAGES).await;
    // As by default longer than the server is away: the members stay members, and commit what they handled meanwhile.
    let subscription = || load.subscription().property("session.timeout.ms", "45000");
    let members = [load.member(1, subscription()).await, load.member(2, subscription()).await];
    load.account.reach(5_000).await;
    server.stop().await;
    server.restart().await;
    load.account.reach(11_000).await;
    server.kill().await;
    server.restart().await;
    load.all().await;
    for member in members {
        member.shutdown().await.expect("the member stops");
    }
    let sum = load.account.sum("the broker is stopped, then killed, and started again", load.messages());
    assert_eq!(sum.lost, 0);
    load.account.assert_ordered();
    assert_eq!(load.uncommitted().await, 0);
}

/// The thread that polls is not the one that handles: a member whose handler is slow stays a member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_handler_slower_than_the_poll_interval_keeps_its_membership() {
    const POLL_INTERVAL: Duration = Duration::from_secs(6);
    let load = Load::new("slow").await;
    let subscription = || {
        let topic = load.subscription().prefetch(20).property("max.poll.interval.ms", "6000");
        topic.rebalance_timeout(Duration::from_secs(5))
    };
    let account = load.account.clone();
    // Partitions move before: the rebalance waits for less time than such a handler takes.
    let have_moved = Arc::new(AtomicBool::new(false));
    let slow_ones = Arc::new(Mutex::new(BTreeMap::new()));
    let handle = {
        let (have_moved, slow_ones) = (Arc::clone(&have_moved), Arc::clone(&slow_ones));
        move |delivery: Delivery| {
            let entry = Entry::new(1, &delivery);
            account.add(entry);
            // One message of each partition takes longer than the group would wait for a poll.
            let is_slow = have_moved.load(Ordering::Relaxed) && {
                let mut slow_ones = slow_ones.lock().expect("no handler panicked");
                let is_first = !slow_ones.contains_key(&entry.partition);
                slow_ones.entry(entry.partition).or_insert(entry.offset);
                is_first
            };
            sleep(if is_slow { POLL_INTERVAL + Duration::from_secs(2) } else { Duration::from_micros(300) })
        }
    };
    let slow = start(&load.bootstrap, App::new().subscribe(subscription(), handle)).await;
    let other = load.member(2, subscription()).await;
    load.work_until("both members work", || load.account.of_member(2) >= 100).await;
    have_moved.store(true, Ordering::Relaxed);
    // So that each partition has some after that.
    load.publish(600).await;
    load.all().await;
    let slow_ones = slow_ones.lock().expect("no handler panicked").clone();
    assert!(!slow_ones.is_empty(), "the slow member had a partition");
    for entry in load.account.entries() {
        let is_behind = slow_ones.get(&entry.partition).is_some_and(|slow| entry.offset > *slow);
        assert!(!is_behind || entry.member == 1, "{entry:?} did not stay with the slow member");
    }
    slow.shutdown().await.expect("the slow member stops");
    other.shutdown().await.expect("the other member stops");
    let sum = load.account.sum("a handler slower than max.poll.interval.ms (8 s, 6 s)", load.messages());
    assert_eq!((sum.lost, sum.twice), (0, 0));
    load.account.assert_ordered();
}

/// Members shut down in the middle of the work, both at once and again and again: what they handled is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn a_shutdown_under_load_repeats_nothing() {
    const DEADLINE: Duration = Duration::from_secs(10);
    let load = Load::new("shutdown").await;
    let mut longest = Duration::ZERO;
    for round in 1..=4 {
        let one = load.member(2 * round, load.subscription()).await;
        let two = load.member(2 * round + 1, load.subscription()).await;
        // A member that has no partition yet leaves without a word to the group: that is the client's way.
        let both_work = || [2 * round, 2 * round + 1].iter().all(|member| load.account.of_member(*member) >= 100);
        load.work_until("both members work", both_work).await;
        let began = Instant::now();
        let (one, two) = timeout(DEADLINE, async { tokio::join!(one.shutdown(), two.shutdown()) })
            .await
            .expect("both members stop within their deadline");
        longest = longest.max(began.elapsed());
        one.expect("all offsets of the first member are committed");
        two.expect("all offsets of the second member are committed");
    }
    let last = load.member(1, load.subscription()).await;
    load.all().await;
    last.shutdown().await.expect("the last member stops");
    let sum = load.account.sum(&format!("both members shut down, 4 times, at most {longest:?}"), load.messages());
    assert_eq!((sum.lost, sum.twice), (0, 0));
    load.account.assert_ordered();
    assert_eq!(load.uncommitted().await, 0);
}

/// A handler that panics is tried again, with the partition behind it; a body that cannot be read is a dead letter at once. Neither
/// stops a member, loses a message or changes the order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn panics_and_poison_hold_up_nothing_else() {
    const POISONED: usize = 50;
    let load = Load::new("poison").await;
    let dead = unique("dead");
    topics::create(&load.bootstrap, &dead, 1).await;
    let bodies: Vec<String> = (0..POISONED).map(|number| format!("{{poison {number}")).collect();
    load::publish_bodies(&load.bootstrap, &load.topic, &bodies).await;
    // Between the first messages and the last ones.
    load::publish(&load.bootstrap, &load.topic, MESSAGES..MESSAGES + 2_000, PARTITIONS, KEYS).await;

    let panics = Arc::new(AtomicUsize::new(0));
    let member = |member| {
        let (account, panics) = (load.account.clone(), Arc::clone(&panics));
        let handle = move |Json(number): Json<u64>, delivery: Delivery| {
            let (account, panics) = (account.clone(), Arc::clone(&panics));
            async move {
                if number % 500 == 0 && delivery.attempt() == 1 {
                    panics.fetch_add(1, Ordering::Relaxed);
                    panic!("message {number} is too much at first");
                }
                account.add(Entry::new(member, &delivery));
            }
        };
        let route = Handler::<(Json<u64>, Delivery), ()>::dead_letter(handle, dead.clone());
        start(&load.bootstrap, App::new().subscribe(load.subscription(), route))
    };
    let members = [member(1).await, member(2).await];
    let published = MESSAGES as usize + 2_000;
    load.account.reach(published).await;
    let letters = load::read(&load.bootstrap, &dead, POISONED).await;
    for member in members {
        member.shutdown().await.expect("the member stops");
    }
    let panics = panics.load(Ordering::Relaxed);
    let sum = load.account.sum(&format!("{panics} panics and {POISONED} bodies that cannot be read"), published);
    assert_eq!((sum.lost, sum.twice), (0, 0));
    // One that waits for its second attempt while its partition goes to the second member has a first one there, too.
    assert!((published / 500..=published / 500 + PARTITIONS as usize).contains(&panics), "{panics} panics");
    let found: BTreeSet<String> = letters.into_iter().collect();
    assert_eq!(found, bodies.into_iter().collect(), "each is a dead letter");
    assert_eq!(load.uncommitted().await, -(2_000 + POISONED as i64), "all is committed");
    // The order, but for the poison between.
    let mut last = BTreeMap::new();
    for entry in load.account.entries() {
        let before = last.insert(entry.partition, entry.offset).unwrap_or(-1);
        assert!(entry.offset > before, "{entry:?} came after {before}");
    }
}
