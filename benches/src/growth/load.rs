use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use throughline_core::extract::Batch;
use throughline_core::serve::Running;
use throughline_core::{App, Destination, Handler, Publisher, serve};
use throughline_memory::{Channel, Memory};
use tokio::runtime::Runtime;
use tokio::task::yield_now;

use crate::load::{DESTINATION, State, body};
use crate::ours::{engine, system};
use crate::pipeline::{Pipeline, QUEUE};
use crate::resident::resident;
use crate::side;

/// Messages of a round where nothing else says how many: their spans fit into the queue.
const MESSAGES: usize = 1000;

/// Runs one round and returns the nanoseconds per message.
pub(super) type Round = Box<dyn FnMut() -> f64>;

/// Handlers that each wait once, so many of them at a time.
pub(super) fn handlers(state: State, at_a_time: usize) -> Round {
    let app = App::new().subscribe(Channel::new(DESTINATION), wait.concurrency(at_a_time));
    let mut service = Service::start(Pipeline::new(state), state, app);
    let destination = [destination(DESTINATION)];
    Box::new(move || service.publish(&destination, MESSAGES))
}

/// So many subscriptions, each getting as many messages as the others, at least one.
pub(super) fn subscriptions(state: State, count: usize) -> Round {
    let names: Vec<String> = (0..count).map(|number| format!("orders.{number}")).collect();
    let subscribe = |app: App, name: &String| app.subscribe(Channel::new(name.as_str()), handle);
    let app = names.iter().fold(App::new(), subscribe);
    let mut service = Service::start(Pipeline::new(state), state, app);
    let destinations: Vec<Destination> = names.iter().map(|name| destination(name)).collect();
    Box::new(move || service.publish(&destinations, MESSAGES))
}

/// Messages published and handled in batches of so many.
pub(super) fn batch(state: State, size: usize) -> Round {
    let app = App::new().subscribe(Channel::new(DESTINATION).batch(size, Duration::from_secs(60)), handle_batch);
    // A create span for each message, and two for the batch.
    let queue = QUEUE.max(3 * size.max(MESSAGES) + 2);
    let mut service = Service::start(Pipeline::with_queue(state, queue), state, app);
    let destination = destination(DESTINATION);
    let batches = (MESSAGES / size).max(1);
    Box::new(move || service.publish_batches(&destination, batches, size))
}

/// Resident memory in MiB, second by second, under as much load as the machine bears. Empty where the kernel does not say it.
pub(super) fn memory(seconds: usize) -> Vec<(f64, f64)> {
    let state = State::SampledMetrics;
    let app = App::new().subscribe(Channel::new(DESTINATION), handle);
    let mut service = Service::start(Pipeline::new(state), state, app);
    let destination = [destination(DESTINATION)];
    let (begun, mut points) = (Instant::now(), Vec::with_capacity(seconds + 1));
    while points.len() <= seconds {
        service.publish(&destination, MESSAGES);
        let elapsed = begun.elapsed().as_secs_f64();
        if elapsed >= points.len() as f64 {
            let Some(resident) = resident() else { return Vec::new() };
            points.push((elapsed, resident));
        }
    }
    points
}

/// An app that runs, on the in-memory broker.
struct Service {
    // Before the runtime, which its tasks run on.
    _running: Running,
    runtime: Runtime,
    publisher: Publisher,
    pipeline: Pipeline,
}

impl Service {
    #[allow(clippy::expect_used)] // a benchmark without its app measures nothing
    fn start(pipeline: Pipeline, state: State, app: App) -> Self {
        let runtime = side::runtime();
        let memory = Memory::new().with_system(system());
        let (app, publisher) = match engine(state, &pipeline) {
            Some(engine) => (app.telemetry(engine.clone()), memory.publisher().telemetry(&engine)),
            None => (app.without_telemetry(), memory.publisher().without_telemetry()),
        };
        let running = runtime.block_on(serve(memory, app).start()).expect("the app starts");
        Self { _running: running, runtime, publisher, pipeline }
    }

    /// Publishes to each destination in turn, and returns the nanoseconds per message.
    #[allow(clippy::expect_used)] // a message that is not published would be waited for without end
    fn publish(&mut self, destinations: &[Destination], messages: usize) -> f64 {
        let publisher = &self.publisher;
        let publish = async {
            for destination in destinations.iter().cycle().take(messages) {
                publisher.publish(destination.clone(), body()).await.expect("the in-memory broker takes every message");
            }
        };
        timed(&self.runtime, &self.pipeline, messages, publish)
    }

    #[allow(clippy::expect_used)] // see `publish`
    fn publish_batches(&mut self, destination: &Destination, batches: usize, size: usize) -> f64 {
        let publisher = &self.publisher;
        let publish = async {
            for _ in 0..batches {
                let bodies = (0..size).map(|_| body());
                let publishing = publisher.publish_batch(destination.clone(), bodies);
                publishing.await.expect("the in-memory broker takes every message");
            }
        };
        timed(&self.runtime, &self.pipeline, batches * size, publish)
    }
}

#[allow(clippy::cast_precision_loss)] // a round is far shorter than 2^52 nanoseconds
fn timed(runtime: &Runtime, pipeline: &Pipeline, messages: usize, publish: impl Future<Output = ()>) -> f64 {
    let goal = side::total() + messages;
    let begun = Instant::now();
    runtime.block_on(async {
        publish.await;
        side::reached(goal).await;
    });
    let taken = begun.elapsed();
    pipeline.flush();
    taken.as_nanos() as f64 / messages as f64
}

fn destination(name: &str) -> Destination {
    Destination::new(Arc::<str>::from(name))
}

async fn handle(body: Bytes) {
    side::handled(&body);
}

async fn wait(body: Bytes) {
    yield_now().await;
    side::handled(&body);
}

async fn handle_batch(batch: Batch<Bytes>) {
    batch.iter().for_each(|message| side::handled(message.body()));
}
