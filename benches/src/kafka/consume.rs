use std::error::Error;
use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::TraceContextExt;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedMessage, Message};
use throughline_core::extract::Batch;
use throughline_core::{App, serve};
use throughline_kafka::{Kafka, Topic};
use tokio::time::{Instant, timeout_at};

use super::hand::Spans;
use super::{clients, topics};
use crate::programs::{Case, FOUR, Program, engine, provider};
use crate::stopwatch::Round;
use crate::tally::{self, count, handle, handle_slice};

/// Most of a second of work, and commits come every second.
const MESSAGES: usize = 200_000;
const BATCH: usize = 100;
const BATCH_WAIT: Duration = Duration::from_millis(50);

const WITH_CARELESS: &[Program] =
    &[Program::Raw, Program::Untraced, Program::Traced, Program::ByHand, Program::Careless];

static ROUND: AtomicUsize = AtomicUsize::new(0);

/// A way to consume messages that are stored before.
pub(super) struct Consume {
    topic: &'static str,
    partitions: i32,
    in_batches: bool,
}

impl Consume {
    pub(super) fn all() -> [Self; 3] {
        let ways = [("one", 1, false), ("four", 4, false), ("batch", 1, true)];
        ways.map(|(name, partitions, in_batches)| {
            let topic = topics::name(&format!("consume.{name}"));
            Self { topic, partitions, in_batches }
        })
    }

    async fn by_client(&self, url: &str, program: Program, group: &str) -> Result<Round, Box<dyn Error>> {
        let consumer = clients::consumer(url, group, self.topic)?;
        let provider = (program == Program::ByHand).then(provider);
        let spans = provider.as_ref().map(|provider| Spans::new(provider, self.topic));
        let (in_batches, stores) = (self.in_batches, program != Program::Careless);
        let worker = tokio::spawn(async move {
            let ended = if in_batches {
                read_batches(&consumer, spans.as_ref()).await
            } else {
                read(&consumer, spans.as_ref(), stores).await
            };
            if let Err(failed) = ended {
                eprintln!("the plain client ended: {failed}");
            }
        });
        let round = tally::round().await;
        // Until the consumer is closed, with its last commit.
        worker.abort();
        let _ = worker.await;
        Ok(round?)
    }

    async fn by_ours(&self, url: &str, program: Program, group: &'static str) -> Result<Round, Box<dyn Error>> {
        let kafka = Kafka::connect_with(clients::config(url)).await?;
        let provider = (program == Program::Traced).then(provider);
        let topic = Topic::new(self.topic).group(group);
        let app = if self.in_batches {
            App::new().subscribe(topic.batch(BATCH, BATCH_WAIT), handle_batch)
        } else {
            App::new().subscribe(topic, handle)
        };
        let app = match &provider {
            Some(provider) => app.telemetry(engine(provider).into()),
            None => app.without_telemetry(),
        };
        let running = serve(kafka, app).start().await?;
        let round = tally::round().await;
        running.shutdown().await?;
        Ok(round?)
    }
}

/// What a careful program does: an offset is stored when its message is handled, and the client commits what is stored.
async fn read(consumer: &StreamConsumer, spans: Option<&Spans>, stores: bool) -> KafkaResult<()> {
    loop {
        let message = consumer.recv().await?;
        let body = message.payload().unwrap_or_default();
        match spans {
            None => handle_slice(body).await,
            Some(spans) => {
                let context = spans.process(&message);
                handle_slice(body).with_context(context.clone()).await;
                context.span().end();
            }
        }
        if stores {
            consumer.store_offset_from_message(&message)?;
        }
    }
}

/// Does the same in batches, of which only the last offset is to be stored: there is one partition.
async fn read_batches(consumer: &StreamConsumer, spans: Option<&Spans>) -> KafkaResult<()> {
    loop {
        let batch = collect(consumer).await?;
        match spans {
            None => handle_messages(&batch).await,
            Some(spans) => {
                let context = spans.process_batch(&batch);
                handle_messages(&batch).with_context(context.clone()).await;
                context.span().end();
            }
        }
        if let Some(last) = batch.last() {
            consumer.store_offset_from_message(last)?;
        }
    }
}

async fn collect(consumer: &StreamConsumer) -> KafkaResult<Vec<BorrowedMessage<'_>>> {
    let mut messages = consumer.stream();
    let mut batch = Vec::with_capacity(BATCH);
    batch.extend(messages.next().await.transpose()?);
    let deadline = Instant::now() + BATCH_WAIT;
    while batch.len() < BATCH {
        // A timer only where there is something to wait for.
        let next = match messages.next().now_or_never() {
            Some(next) => next,
            None => match timeout_at(deadline, messages.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        batch.extend(next.transpose()?);
    }
    Ok(batch)
}

async fn handle_messages(batch: &[BorrowedMessage<'_>]) {
    batch.iter().for_each(|message| {
        black_box(message.payload());
    });
    count(batch.len());
}

async fn handle_batch(batch: Batch<Bytes>) {
    batch.iter().for_each(|message| {
        black_box(message.body());
    });
    count(batch.len());
}

impl Case for Consume {
    fn programs(&self) -> &'static [Program] {
        if self.in_batches { FOUR } else { WITH_CARELESS }
    }

    /// Fills the topic that each round reads from its start.
    async fn prepare(&self, url: &str) -> Result<(), Box<dyn Error>> {
        topics::create(url, self.topic, self.partitions).await?;
        topics::fill(url, self.topic, self.partitions, MESSAGES).await
    }

    async fn round(&self, url: &str, program: Program) -> Result<Round, Box<dyn Error>> {
        tally::begin(MESSAGES);
        // Each round reads the topic from its start, and so in a group of its own.
        let group = topics::name(&format!("group-{}", ROUND.fetch_add(1, Ordering::Relaxed)));
        match program {
            Program::Raw | Program::ByHand | Program::Careless => self.by_client(url, program, group).await,
            Program::Untraced | Program::Traced => self.by_ours(url, program, group).await,
        }
    }
}

impl fmt::Display for Consume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.in_batches, self.partitions) {
            (true, _) => write!(f, "consume, batches of {BATCH}"),
            (false, 1) => f.write_str("consume, one partition"),
            (false, _) => f.write_str("consume, four partitions"),
        }
    }
}
