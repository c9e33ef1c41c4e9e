//! Processes that are killed in the middle: each result is there once all the same.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use throughline_core::extract::{Batch, State};
use throughline_core::{App, Publisher, serve};
use throughline_kafka::Kafka;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Results;
use super::world::{World, ids, sorted};
use crate::server::PATIENCE;

/// Set in a service: the world it works in, and its own number.
const SERVICE: &str = "THROUGHLINE_KAFKA_EXACTLY_ONCE_SERVICE";

/// What a service writes when it has published a result.
const PUBLISHED: &str = "a result is published";

/// The number of the service that takes its time, and how much: it is to be stopped in the middle of that.
const SLOW: usize = 2;
const LONG_WORK: Duration = Duration::from_secs(15);

const TEST: &str = "exactly_once::kills::each_result_is_there_once_although_services_are_killed";

const PARTITIONS: usize = 3;
const ROUNDS: usize = 8;

/// How many messages each partition gets in a round, and how many more for as long as the service that is to be killed has none.
const EACH: usize = 150;
const MORE: usize = 20;

/// Two services of one group, of which one or the other is killed and started again with its id. One handles single messages, the other
/// batches. This test is also the program of the services.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn each_result_is_there_once_although_services_are_killed() {
    if let Ok(told) = std::env::var(SERVICE) {
        return service(&told).await;
    }
    let world = World::new("exact-kill", PARTITIONS as i32).await;
    let mut each = 0;
    let mut services = [Service::start(&world, 0), Service::start(&world, 1)];
    for round in 0..ROUNDS {
        let killed = &mut services[round % 2];
        let most = *killed.published.borrow() + 1 + random(20);
        each += work(&world, each, EACH).await;
        // The other one may have handled all of it before this one has a partition.
        let deadline = Instant::now() + PATIENCE;
        while !killed.has_published(most, Duration::from_millis(500)).await {
            assert!(Instant::now() < deadline, "service {} publishes nothing", killed.number);
            each += work(&world, each, MORE).await;
        }
        // Anywhere in the transaction, or in the next one.
        sleep(Duration::from_micros(random(5_000) as u64)).await;
        killed.child.kill().await.expect("the service is killed");
        *killed = Service::start(&world, round % 2);
    }
    let total = PARTITIONS * each;
    world.wait_for(&world.results, total).await;
    end(&world, services).await;
    let (results, written) = (world.committed(&world.results).await, world.written(&world.results).await);
    println!("{ROUNDS} kills; {} results, {} written", results.len(), written.len());
    assert_eq!(sorted(results), ids(0..total));
    assert!(written.len() > total, "no kill was in the middle of a transaction");
    assert_eq!(world.offsets().await, [Some(each as i64); PARTITIONS]);
}

/// A process that stands still for longer than its session, in the middle of a transaction: another one handles its messages, and
/// what it still wants to commit when it goes on is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn who_stands_still_in_a_transaction_and_goes_on_commits_nothing() {
    const COUNT: usize = 60;
    let world = World::new("exact-pause", PARTITIONS as i32).await;
    let mut slow = Service::start(&world, SLOW);
    for partition in 0..PARTITIONS {
        let from = partition * COUNT;
        world.publish(partition as i32, ids(from..from + COUNT)).await;
    }
    // All in all: it may have begun with the third one already.
    slow.publishes_up_to(3).await;
    slow.signal("-STOP").await;
    let before = *slow.published.borrow();
    let mut other = Service::start(&world, 0);
    // The last one of the slow service is not committed.
    other.publishes_up_to(PARTITIONS * COUNT - before + 1).await;
    slow.signal("-CONT").await;
    world.wait_for(&world.results, PARTITIONS * COUNT).await;
    end(&world, [slow, other]).await;
    let (results, written) = (world.committed(&world.results).await, world.written(&world.results).await);
    println!("{} results, {} written", results.len(), written.len());
    assert_eq!(sorted(results), ids(0..PARTITIONS * COUNT));
    assert!(written.len() > PARTITIONS * COUNT, "it did not stand still in a transaction");
    assert_eq!(world.offsets().await, [Some(COUNT as i64); PARTITIONS]);
}

/// Gives each partition so many messages more than it had, for whoever has it.
async fn work(world: &World, before: usize, more: usize) -> usize {
    for partition in 0..PARTITIONS {
        let from = before * PARTITIONS + partition * more;
        world.publish(partition as i32, ids(from..from + more)).await;
    }
    more
}

/// Kills all services, and ends what they left open, so that the end of the topics can be read: who starts with their ids does.
async fn end<const N: usize>(world: &World, services: [Service; N]) {
    for mut service in services {
        service.child.kill().await.expect("the service is killed");
        let kafka = Kafka::connect(world.url.as_str()).await.expect("a connection");
        let last = serve(kafka, app(world, service.number)).start().await.expect("the app starts");
        last.shutdown().await.expect("a regular end");
    }
}

/// A process that runs a service.
struct Service {
    child: Child,
    number: usize,
    /// How many results it has published, in transactions that may be open.
    published: watch::Receiver<usize>,
}

impl Service {
    fn start(world: &World, number: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([TEST, "--exact", "--ignored", "--nocapture"])
            .env(SERVICE, format!("{} {} {number}", world.orders, world.results))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the service starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let (count, published) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                count.send_modify(|count| *count += usize::from(line.ends_with(PUBLISHED)));
            }
        });
        Self { child, number, published }
    }

    async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let told = Command::new("kill").args([signal, &id]).status().await.expect("`kill` runs");
        assert!(told.success(), "the service is not told: {told}");
    }

    /// Waits until it has published so many since its start.
    async fn publishes_up_to(&mut self, most: usize) {
        assert!(self.has_published(most, PATIENCE).await, "service {} publishes too little", self.number);
    }

    /// Whether it has published so many within the time.
    async fn has_published(&mut self, most: usize, limit: Duration) -> bool {
        let published = timeout(limit, self.published.wait_for(|count| *count >= most)).await;
        published.map(|told| told.map(drop).expect("it runs")).is_ok()
    }
}

/// The program of a service: it ends by being killed.
async fn service(told: &str) {
    let (topics, number) = told.rsplit_once(' ').expect("topics and a number");
    let [orders, results]: [&str; 2] = topics.split(' ').collect::<Vec<_>>().try_into().expect("two topics");
    let world = World {
        url: crate::server::url(),
        orders: orders.to_owned(),
        results: results.to_owned(),
        dead: String::new(),
        partitions: PARTITIONS as i32,
    };
    let kafka = Kafka::connect(world.url.as_str()).await.expect("a connection");
    serve(kafka, app(&world, number.parse().expect("a number"))).await.expect("nobody ends it");
}

fn app(world: &World, number: usize) -> App {
    async fn one(order: String, publisher: Publisher, State(Results(results)): State<Results>) {
        publisher.publish(results, order).await.expect("it is published");
        println!("{PUBLISHED}");
    }
    async fn many(batch: Batch<String>, publisher: Publisher, State(Results(results)): State<Results>) {
        for message in &batch {
            publisher.publish(results.as_str(), message.body().clone()).await.expect("it is published");
            println!("{PUBLISHED}");
        }
    }
    /// Has a lot to do while its third transaction is open.
    async fn slow(order: String, publisher: Publisher, state: State<Results>) {
        static HANDLED: AtomicUsize = AtomicUsize::new(0);
        one(order, publisher, state).await;
        if HANDLED.fetch_add(1, Ordering::Relaxed) == 2 {
            sleep(LONG_WORK).await;
        }
    }
    let topic = world.topic().exactly_once(format!("{}-{number}", world.orders));
    let app = App::new();
    let app = match number {
        0 => app.subscribe(topic, one),
        1 => app.subscribe(topic.batch(10, Duration::from_millis(5)), many),
        _ => app.subscribe(topic, slow),
    };
    app.with_state(Results(world.results.clone())).without_telemetry()
}

/// A number below this one, from the clock.
fn random(below: usize) -> usize {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
    now.subsec_nanos() as usize / 7 % below
}
