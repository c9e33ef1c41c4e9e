//! Processes that are killed in the middle: each result is there once all the same.

use std::process::Stdio;
use std::time::Duration;

use throughline_core::extract::{Batch, State};
use throughline_core::{App, Handler, Publisher, serve};
use throughline_kafka::Kafka;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::Results;
use super::world::{World, ids, sorted};

/// Set in a service: the world it works in, and its own number.
const SERVICE: &str = "THROUGHLINE_KAFKA_EXACTLY_ONCE_SERVICE";

const TEST: &str = "exactly_once::kills::each_result_is_there_once_although_services_are_killed";

const PARTITIONS: usize = 3;
const EACH: usize = 1_200;
const KILLS: usize = 8;

/// Two services of one group, of which one or the other is killed and started again with its id. One handles single messages, the other
/// batches. This test is also the program of the services.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka: cargo xtask test --broker kafka"]
async fn each_result_is_there_once_although_services_are_killed() {
    if let Ok(told) = std::env::var(SERVICE) {
        return service(&told).await;
    }
    let world = World::new("exact-kill", PARTITIONS as i32).await;
    for partition in 0..PARTITIONS {
        let from = partition * EACH;
        world.publish(partition as i32, ids(from..from + EACH)).await;
    }
    let mut services = [start(&world, 0), start(&world, 1)];
    for kill in 0..KILLS {
        let total = PARTITIONS * EACH;
        world.wait_for(&world.results, total * (kill + 1) / (KILLS + 2)).await;
        // Anywhere in a transaction; it is no matter how long.
        sleep(Duration::from_micros(random(20_000))).await;
        let killed = &mut services[kill % 2];
        killed.kill().await.expect("the service is killed");
        *killed = start(&world, kill % 2);
    }
    world.wait_for(&world.results, PARTITIONS * EACH).await;
    for service in &mut services {
        service.kill().await.expect("the service is killed");
    }
    // Who starts with the ids ends what the last kills left open, so that the end of the topic can be read.
    for number in 0..2 {
        let kafka = Kafka::connect(world.url.as_str()).await.expect("a connection");
        let last = serve(kafka, app(&world, number)).start().await.expect("the app starts");
        last.shutdown().await.expect("a regular end");
    }
    let (results, written) = (world.committed(&world.results).await, world.written(&world.results).await);
    println!("{KILLS} kills; {} results, {} written", results.len(), written.len());
    assert_eq!(sorted(results), ids(0..PARTITIONS * EACH));
    assert!(written.len() > PARTITIONS * EACH, "no kill was in the middle of a transaction");
    assert_eq!(world.offsets().await, [Some(EACH as i64); PARTITIONS]);
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
    async fn one(order: String) -> String {
        order
    }
    async fn many(batch: Batch<String>, publisher: Publisher, State(Results(results)): State<Results>) {
        for message in &batch {
            publisher.publish(results.as_str(), message.body().clone()).await.expect("it is published");
        }
    }
    let topic = world.topic().exactly_once(format!("{}-{number}", world.orders));
    let app = App::new();
    let app = if number == 0 {
        app.subscribe(topic, one.reply_to(world.results.as_str()))
    } else {
        app.subscribe(topic.batch(10, Duration::from_millis(5)), many)
    };
    app.with_state(Results(world.results.clone())).without_telemetry()
}

fn start(world: &World, number: usize) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args([TEST, "--exact", "--ignored", "--nocapture"])
        .env(SERVICE, format!("{} {} {number}", world.orders, world.results))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the service starts")
}

/// A number below this one, from the clock.
fn random(below: u64) -> u64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
    u64::from(now.subsec_nanos()).wrapping_mul(6_364_136_223_846_793_005).rotate_right(31) % below
}
