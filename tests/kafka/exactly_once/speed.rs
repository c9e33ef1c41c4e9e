use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use throughline_core::extract::{Batch, State};
use throughline_core::{App, Handler, Publisher, serve};
use throughline_kafka::{Kafka, Topic};
use tokio::time::Instant;

use super::world::{World, ids};

#[derive(Clone)]
struct Work(String, Arc<AtomicUsize>);

async fn one(order: String, State(Work(_, done)): State<Work>) -> String {
    done.fetch_add(1, Ordering::Relaxed);
    order
}
async fn many(batch: Batch<String>, publisher: Publisher, State(Work(results, done)): State<Work>) {
    let bodies: Vec<String> = batch.iter().map(|message| message.body().clone()).collect();
    let count = bodies.len();
    publisher.publish_batch(results, bodies).await.expect("they are published");
    done.fetch_add(count, Ordering::Relaxed);
}

async fn rate(exact: bool, batched: bool, count: usize) -> f64 {
    let world = World::new("speed", 3).await;
    for partition in 0..3 {
        world.publish(partition, ids(0..count / 3)).await;
    }
    let mut topic = Topic::new(world.orders.as_str()).group(world.orders.as_str());
    if exact {
        topic = topic.exactly_once(world.orders.as_str());
    }
    let done = Arc::new(AtomicUsize::new(0));
    let work = Work(world.results.clone(), Arc::clone(&done));
    let app = if batched {
        App::new().subscribe(topic.batch(100, Duration::from_millis(50)), many).with_state(work)
    } else {
        App::new().subscribe(topic, one.reply_to(world.results.as_str())).with_state(work)
    };
    let kafka = Kafka::connect(world.url.as_str()).await.unwrap();
    let running = serve(kafka, app.without_telemetry()).start().await.unwrap();
    let warm = count / 10;
    while done.load(Ordering::Relaxed) < warm {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (begun, from) = (Instant::now(), done.load(Ordering::Relaxed));
    while done.load(Ordering::Relaxed) < count / 3 * 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rate = (count / 3 * 3 - from) as f64 / begun.elapsed().as_secs_f64();
    running.shutdown().await.unwrap();
    rate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore]
async fn speed() {
    for round in 0..3 {
        println!(
            "round {round}: single plain {:.0}, exact {:.0}; batch plain {:.0}, exact {:.0}",
            rate(false, false, 9_000).await,
            rate(true, false, 900).await,
            rate(false, true, 60_000).await,
            rate(true, true, 30_000).await
        );
    }
}
