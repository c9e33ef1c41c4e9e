use std::sync::Arc;

use bytes::Bytes;
use opentelemetry::context::FutureExt;
use throughline_core::Headers;
use throughline_core::broker::BoxFuture;
use throughline_core::message::{Source, Target};
use throughline_core::telemetry::{Consumer, Incoming, Instrumentation, Outgoing, Producer};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{engine, shared_system};
use crate::hand::{Message, acknowledge};
use crate::load::{BATCH, CHAIN, DESTINATION, Load, Shape, State, body};
use crate::pipeline::Pipeline;
use crate::side::{self, Side};

/// The engine called by hand, around the channel of the baseline.
///
/// Without telemetry there is no engine to call: that is the baseline itself.
pub struct Raw {
    runtime: Runtime,
    load: Load,
    outlet: Outlet,
    pipeline: Pipeline,
}

impl Raw {
    /// Starts the tasks that handle messages.
    #[must_use]
    pub fn new(load: Load) -> Self {
        Self::on(Pipeline::new(load.state), load)
    }

    /// Does the same with providers of its own.
    #[allow(clippy::expect_used)] // the table of cases has no such case
    #[must_use]
    pub fn on(pipeline: Pipeline, load: Load) -> Self {
        assert!(load.state != State::Untraced, "the raw door without telemetry is the baseline");
        let engine = engine(load.state, &pipeline).expect("a state with telemetry has an engine");
        let runtime = side::runtime();
        let outlet = {
            let _entered = runtime.enter();
            match load.shape {
                Shape::Single => start(&engine, DESTINATION, None),
                Shape::Batch => start_batch(&engine),
                Shape::Chain => {
                    let last = start(&engine, CHAIN[2], None);
                    let second = start(&engine, CHAIN[1], Some(last));
                    start(&engine, CHAIN[0], Some(second))
                }
            }
        };
        Self { runtime, load, outlet, pipeline }
    }
}

impl Side for Raw {
    fn run(&mut self, messages: usize) {
        let Self { runtime, load, outlet, .. } = self;
        let goal = side::total() + messages;
        let publish = async {
            for _ in 0..messages / load.unit() {
                match load.shape {
                    Shape::Single if load.incoming => outlet.publish_from_outside(load.traceparent()),
                    Shape::Batch => outlet.publish_batch((0..BATCH).map(|_| body())),
                    _ => outlet.publish(body()),
                }
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

#[derive(Clone)]
struct Outlet {
    destination: Arc<str>,
    sender: UnboundedSender<Message<Headers>>,
    producer: Producer,
    target: Arc<Target<'static>>,
}

impl Outlet {
    fn publish(&self, payload: Bytes) {
        let mut headers = Headers::new();
        let sending = self.producer.send(&self.target, Outgoing::new(&mut headers));
        self.send(payload, headers);
        sending.finish(Vec::new(), None);
    }

    fn publish_from_outside(&self, traceparent: Option<Bytes>) {
        self.send(body(), traceparent.map(|value| ("traceparent", value)).into_iter().collect());
    }

    fn publish_batch(&self, payloads: impl Iterator<Item = Bytes>) {
        let mut messages: Vec<(Bytes, Headers)> = payloads.map(|payload| (payload, Headers::new())).collect();
        let outgoing = messages.iter_mut().map(|(_, headers)| Outgoing::new(headers)).collect();
        let sending = self.producer.send_batch(&self.target, outgoing);
        let count = messages.len();
        for (payload, headers) in messages {
            self.send(payload, headers);
        }
        sending.finish_batch(count, &[]);
    }

    fn send(&self, payload: Bytes, headers: Headers) {
        let message = Message { destination: Arc::clone(&self.destination), payload, headers, sent_at: None };
        // The receiver lives as long as the runtime.
        let _ = self.sender.send(message);
    }
}

fn start(engine: &Instrumentation, destination: &'static str, next: Option<Outlet>) -> Outlet {
    let (outlet, receiver, consumer) = connect(engine, destination);
    tokio::spawn(run(receiver, consumer, next));
    outlet
}

async fn run(mut receiver: UnboundedReceiver<Message<Headers>>, consumer: Consumer, next: Option<Outlet>) {
    while let Some(message) = receiver.recv().await {
        let Message { destination, payload, headers, .. } = message;
        let processing = consumer.process(&Incoming::new(&destination, &headers));
        let next = next.clone();
        // Boxed as in the baseline: a table of handlers needs one type.
        let handler: BoxFuture<'static, ()> = Box::pin(async move {
            side::handled(&payload);
            if let Some(next) = next {
                next.publish(payload);
            }
        });
        processing.run(handler).await;
        acknowledge(1);
    }
}

fn start_batch(engine: &Instrumentation) -> Outlet {
    let (outlet, receiver, consumer) = connect(engine, DESTINATION);
    tokio::spawn(run_batches(receiver, consumer));
    outlet
}

async fn run_batches(mut receiver: UnboundedReceiver<Message<Headers>>, consumer: Consumer) {
    loop {
        let mut messages = Vec::with_capacity(BATCH);
        if receiver.recv_many(&mut messages, BATCH).await == 0 {
            return;
        }
        let count = messages.len();
        let processing = consumer.process_batch(&incoming(&messages));
        let payloads: Vec<Bytes> = messages.into_iter().map(|message| message.payload).collect();
        let handler: BoxFuture<'static, ()> = Box::pin(async move { payloads.iter().for_each(side::handled) });
        processing.run(handler).await;
        acknowledge(count);
    }
}

fn incoming(messages: &[Message<Headers>]) -> Vec<Incoming<'_>> {
    messages.iter().map(|message| Incoming::new(&message.destination, &message.headers)).collect()
}

fn connect(
    engine: &Instrumentation,
    destination: &'static str,
) -> (Outlet, UnboundedReceiver<Message<Headers>>, Consumer) {
    let (sender, receiver) = unbounded_channel();
    let system = shared_system();
    let producer = engine.producer(Arc::clone(&system));
    let consumer = engine.consumer(Arc::new(Source::new(system).with_destination(destination)));
    let target = Arc::new(Target::new(destination));
    (Outlet { destination: destination.into(), sender, producer, target }, receiver, consumer)
}
