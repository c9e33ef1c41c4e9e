use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::context::FutureExt;
use throughline_core::extract::Batch;
use throughline_core::serve::Running;
use throughline_core::{App, Destination, Handler, Publisher, serve};
use throughline_memory::{Channel, Memory};
use tokio::runtime::Runtime;

use super::{engine, system};
use crate::load::{BATCH, CHAIN, DESTINATION, Load, Shape, body};
use crate::pipeline::Pipeline;
use crate::side::{self, Side};

/// An app on the in-memory broker as a side.
pub struct Framework {
    // Before the runtime, which its tasks run on.
    _running: Running,
    runtime: Runtime,
    load: Load,
    publisher: Publisher,
    destination: Destination,
    pipeline: Pipeline,
}

impl Framework {
    /// Starts the app.
    #[must_use]
    pub fn new(load: Load) -> Self {
        Self::on(Pipeline::new(load.state), load)
    }

    /// Does the same with providers of its own.
    #[allow(clippy::expect_used)] // a benchmark without its app measures nothing
    #[must_use]
    pub fn on(pipeline: Pipeline, load: Load) -> Self {
        let runtime = side::runtime();
        let engine = engine(load.state, &pipeline);
        let memory = Memory::new().with_system(system());
        let app = match &engine {
            Some(engine) => app(load.shape).telemetry(engine.clone()),
            None => app(load.shape).without_telemetry(),
        };
        let publisher = match engine.filter(|_| !load.incoming) {
            Some(engine) => memory.publisher().telemetry(&engine),
            None => memory.publisher().without_telemetry(),
        };
        let running = runtime.block_on(serve(memory, app).start()).expect("the app starts");
        let name = if load.shape == Shape::Chain { CHAIN[0] } else { DESTINATION };
        let destination = Destination::new(Arc::<str>::from(name));
        Self { _running: running, runtime, load, publisher, destination, pipeline }
    }
}

fn app(shape: Shape) -> App {
    match shape {
        Shape::Single => App::new().subscribe(Channel::new(DESTINATION), handle),
        Shape::Batch => {
            App::new().subscribe(Channel::new(DESTINATION).batch(BATCH, Duration::from_secs(60)), handle_batch)
        }
        Shape::Chain => App::new()
            .subscribe(Channel::new(CHAIN[0]), pass_on.reply_to(CHAIN[1]))
            .subscribe(Channel::new(CHAIN[1]), pass_on.reply_to(CHAIN[2]))
            .subscribe(Channel::new(CHAIN[2]), handle),
    }
}

async fn handle(body: Bytes) {
    side::handled(&body);
}

async fn handle_batch(batch: Batch<Bytes>) {
    batch.iter().for_each(|message| side::handled(message.body()));
}

async fn pass_on(body: Bytes) -> Bytes {
    side::handled(&body);
    body
}

impl Side for Framework {
    #[allow(clippy::expect_used)] // a message that is not published would be waited for without end
    fn run(&mut self, messages: usize) {
        let Self { runtime, load, publisher, destination, .. } = self;
        let goal = side::total() + messages;
        let publish = async {
            for _ in 0..messages / load.unit() {
                let publishing = match load.shape {
                    Shape::Batch => publisher.publish_batch(destination.clone(), (0..BATCH).map(|_| body())),
                    _ => publisher.publish(destination.clone(), body()),
                };
                let publishing = match load.traceparent() {
                    Some(value) => publishing.header("traceparent", value),
                    None => publishing,
                };
                publishing.await.expect("the in-memory broker takes every message");
            }
        };
        runtime.block_on(async {
            publish.with_context(load.context()).await;
            side::reached(goal).await;
        });
    }

    fn flush(&mut self) {
        self.pipeline.flush();
    }
}
