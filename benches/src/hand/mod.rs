//! The baseline: what one writes without a library, tuned.
//!
//! Messages go through a channel of tokio. A handler is one boxed future, and each message is acknowledged. Where telemetry is there, the
//! tracer is the one of the SDK and no boxed one, attributes are made once, and the headers are read and written by code of this module.

pub mod baggage;
mod message;
mod meters;
mod spans;
pub mod traceparent;

use std::borrow::Cow;
use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry::context::FutureExt;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use self::message::Headers;
pub(crate) use self::message::Message;
use self::meters::Meters;
pub use self::spans::Effort;
use self::spans::{ConsumerSpans, ProducerSpans};
use crate::load::{BATCH, CHAIN, DESTINATION, Door, Load, Shape, body};
use crate::pipeline::Pipeline;
use crate::side::{self, Side};

type Handling = Pin<Box<dyn Future<Output = ()> + Send>>;
type Handler = Box<dyn Fn(Bytes) -> Handling + Send + Sync>;

thread_local! {
    static ACKNOWLEDGED: Cell<usize> = const { Cell::new(0) };
}

pub(crate) fn acknowledge(messages: usize) {
    ACKNOWLEDGED.set(ACKNOWLEDGED.get() + messages);
}

/// The baseline as a side.
pub struct Hand {
    runtime: Runtime,
    load: Load,
    outlet: Arc<Outlet>,
    pipeline: Pipeline,
}

impl Hand {
    /// Starts the tasks that handle messages. What is recorded beside spans is what ours records through `door`.
    #[must_use]
    pub fn new(load: Load, door: Door, effort: Effort) -> Self {
        Self::on(Pipeline::new(load.state), load, door, effort)
    }

    /// Does the same with providers of its own.
    #[must_use]
    pub fn on(pipeline: Pipeline, load: Load, door: Door, effort: Effort) -> Self {
        let runtime = side::runtime();
        let outlet = {
            let _entered = runtime.enter();
            match load.shape {
                Shape::Single => start(&pipeline, door, effort, DESTINATION, None),
                Shape::Batch => start_batch(&pipeline, door, effort),
                Shape::Chain => {
                    let last = start(&pipeline, door, effort, CHAIN[2], None);
                    let second = start(&pipeline, door, effort, CHAIN[1], Some(last));
                    start(&pipeline, door, effort, CHAIN[0], Some(second))
                }
            }
        };
        Self { runtime, load, outlet, pipeline }
    }
}

impl Side for Hand {
    fn run(&mut self, messages: usize) {
        let Self { runtime, load, outlet, .. } = self;
        let goal = side::total() + messages;
        let publish = async {
            match load.shape {
                Shape::Single if load.incoming => {
                    (0..messages).for_each(|_| outlet.publish_from_outside(load.traceparent()));
                }
                Shape::Single => (0..messages).for_each(|_| outlet.publish(body())),
                Shape::Batch => (0..messages / BATCH).for_each(|_| outlet.publish_batch((0..BATCH).map(|_| body()))),
                Shape::Chain => (0..messages / load.unit()).for_each(|_| outlet.publish(body())),
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

/// Where messages of one destination are published.
struct Outlet {
    destination: Arc<str>,
    sender: UnboundedSender<Message<Headers>>,
    spans: Option<ProducerSpans>,
    meters: Option<Meters>,
}

impl Outlet {
    fn publish(&self, payload: Bytes) {
        let clock = self.meters.as_ref().map(Meters::start);
        let mut headers = Headers::new();
        let span = self.spans.as_ref().map(|spans| spans.start(&mut headers));
        self.send(payload, headers);
        if let Some(span) = span {
            spans::end(span);
        }
        if let (Some(meters), Some(clock)) = (&self.meters, clock) {
            meters.sent(clock);
        }
    }

    fn publish_from_outside(&self, traceparent: Option<Bytes>) {
        let headers = traceparent.map(|value| (Cow::Borrowed(traceparent::NAME), value)).into_iter().collect();
        self.send(body(), headers);
    }

    fn publish_batch(&self, payloads: impl Iterator<Item = Bytes>) {
        let mut messages: Vec<(Bytes, Headers)> = payloads.map(|payload| (payload, Headers::new())).collect();
        let span = self.spans.as_ref().map(|spans| {
            let links = messages.iter_mut().map(|(_, headers)| spans.create(headers)).collect();
            spans.start_batch(links)
        });
        for (payload, headers) in messages {
            self.send(payload, headers);
        }
        if let Some(span) = span {
            spans::end(span);
        }
    }

    fn send(&self, payload: Bytes, headers: Headers) {
        let sent_at = self.meters.as_ref().and_then(Meters::sent_at);
        let message = Message { destination: Arc::clone(&self.destination), payload, headers, sent_at };
        // The receiver lives as long as the runtime.
        let _ = self.sender.send(message);
    }
}

/// What handles the messages of one destination.
struct Inlet {
    receiver: UnboundedReceiver<Message<Headers>>,
    spans: Option<ConsumerSpans>,
    meters: Option<Meters>,
    handler: Handler,
}

impl Inlet {
    async fn run(mut self) {
        while let Some(message) = self.receiver.recv().await {
            self.process(message).await;
            acknowledge(1);
        }
    }

    async fn process(&self, message: Message<Headers>) {
        let clock = self.meters.as_ref().map(|meters| meters.arrived(message.sent_at));
        match &self.spans {
            Some(spans) => {
                let context = spans.start(&message.headers);
                (self.handler)(message.payload).with_context(context.clone()).await;
                spans::end_of(&context);
            }
            None => (self.handler)(message.payload).await,
        }
        if let (Some(meters), Some(clock)) = (&self.meters, clock) {
            meters.processed(clock);
        }
    }

    async fn run_batches(mut self, handler: fn(Vec<Bytes>) -> Handling) {
        loop {
            let mut messages = Vec::with_capacity(BATCH);
            if self.receiver.recv_many(&mut messages, BATCH).await == 0 {
                return;
            }
            let context = self.spans.as_ref().map(|spans| spans.start_batch(&messages));
            let count = messages.len();
            let handling = handler(messages.into_iter().map(|message| message.payload).collect());
            match context {
                Some(context) => {
                    handling.with_context(context.clone()).await;
                    spans::end_of(&context);
                }
                None => handling.await,
            }
            acknowledge(count);
        }
    }
}

fn start(
    pipeline: &Pipeline,
    door: Door,
    effort: Effort,
    destination: &'static str,
    next: Option<Arc<Outlet>>,
) -> Arc<Outlet> {
    let handler: Handler = Box::new(move |payload| {
        let next = next.clone();
        Box::pin(async move {
            side::handled(&payload);
            if let Some(next) = next {
                next.publish(payload);
            }
        })
    });
    let (outlet, inlet) = connect(pipeline, door, effort, destination, handler);
    tokio::spawn(inlet.run());
    outlet
}

fn start_batch(pipeline: &Pipeline, door: Door, effort: Effort) -> Arc<Outlet> {
    let (outlet, inlet) = connect(pipeline, door, effort, DESTINATION, Box::new(|_| Box::pin(async {})));
    tokio::spawn(inlet.run_batches(|payloads| Box::pin(async move { payloads.iter().for_each(side::handled) })));
    outlet
}

fn connect(
    pipeline: &Pipeline,
    door: Door,
    effort: Effort,
    destination: &'static str,
    handler: Handler,
) -> (Arc<Outlet>, Inlet) {
    let (sender, receiver) = unbounded_channel();
    let meters = || pipeline.meter.as_ref().map(|provider| Meters::new(provider, door, destination));
    let spans = pipeline.tracer.as_ref().map(|provider| ProducerSpans::new(provider, destination, effort));
    let outlet = Outlet { destination: destination.into(), sender, spans, meters: meters() };
    let spans = pipeline.tracer.as_ref().map(|provider| ConsumerSpans::new(provider, destination, effort));
    (Arc::new(outlet), Inlet { receiver, spans, meters: meters(), handler })
}
