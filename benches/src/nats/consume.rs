use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{self, AckPolicy};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::TraceContextExt;
use throughline_core::{App, serve};
use throughline_nats::{Nats, Stream, Subject};

use super::hand::Spans;
use crate::hand::traceparent;
use crate::load::body;
use crate::programs::{Case, Program, engine, provider};
use crate::stopwatch::Round;
use crate::tally::{self, handle};

const CORE: &str = "bench.consume.core";
const STORED: &str = "bench.consume.stored";
const STREAM: &str = "BENCH_CONSUME";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Fewer than a subscription of the client holds, so that none is dropped.
const MESSAGES: usize = 20_000;
/// How many messages of a stream are asked for at a time, by all alike: the default of async-nats.
const PREFETCH: usize = 200;

static ROUND: AtomicUsize = AtomicUsize::new(0);

/// A way to consume.
#[derive(Clone, Copy, Debug)]
pub(super) enum Consume {
    /// Published by another connection while they are consumed.
    Core,
    /// Stored before, acknowledged one by one.
    Stored,
}

impl Consume {
    pub(super) const ALL: [Self; 2] = [Self::Core, Self::Stored];

    async fn by_client(self, url: &str, program: Program, name: String) -> Result<Round, Box<dyn Error>> {
        let client = async_nats::connect(url).await?;
        let provider = (program == Program::ByHand).then(provider);
        let worker = match self {
            Self::Core => {
                let mut messages = client.subscribe(CORE).await?;
                client.flush().await?;
                let spans = provider.as_ref().map(|provider| Spans::new(provider, CORE));
                tokio::spawn(async move {
                    while let Some(message) = messages.next().await {
                        process(spans.as_ref(), message.headers.as_ref(), message.payload.clone()).await;
                    }
                })
            }
            Self::Stored => {
                let stream = jetstream::new(client).get_stream(STREAM).await?;
                let config = consumer::pull::Config {
                    durable_name: Some(name),
                    ack_policy: AckPolicy::Explicit,
                    ..consumer::pull::Config::default()
                };
                let consumer = stream.create_consumer(config).await?;
                let mut messages = consumer.stream().max_messages_per_batch(PREFETCH).messages().await?;
                let spans = provider.as_ref().map(|provider| Spans::new(provider, STORED));
                tokio::spawn(async move {
                    while let Some(Ok(message)) = messages.next().await {
                        process(spans.as_ref(), message.headers.as_ref(), message.payload.clone()).await;
                        if message.ack().await.is_err() {
                            return;
                        }
                    }
                })
            }
        };
        let round = self.fill(url).await;
        worker.abort();
        round
    }

    async fn by_ours(self, url: &str, program: Program, name: String) -> Result<Round, Box<dyn Error>> {
        let nats = Nats::connect(url).await?;
        let provider = (program == Program::Traced).then(provider);
        let app = match self {
            Self::Core => App::new().subscribe(Subject::new(CORE), handle),
            Self::Stored => {
                let stream = Stream::new(STREAM).durable(name).filter(STORED).prefetch(PREFETCH);
                App::new().subscribe(stream, handle)
            }
        };
        let app = match &provider {
            Some(provider) => app.telemetry(engine(provider).into()),
            None => app.without_telemetry(),
        };
        let running = serve(nats, app).start().await?;
        let round = self.fill(url).await;
        running.shutdown().await?;
        round
    }

    async fn fill(self, url: &str) -> Result<Round, Box<dyn Error>> {
        if matches!(self, Self::Core) {
            let client = async_nats::connect(url).await?;
            for _ in 0..MESSAGES {
                client.publish_with_headers(CORE, headers(), body()).await?;
            }
            client.flush().await?;
        }
        Ok(tally::round().await?)
    }
}

async fn process(spans: Option<&Spans>, headers: Option<&HeaderMap>, payload: bytes::Bytes) {
    let Some(spans) = spans else { return handle(payload).await };
    let context = spans.process(headers);
    handle(payload).with_context(context.clone()).await;
    context.span().end();
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(traceparent::NAME, TRACEPARENT);
    headers
}

impl Case for Consume {
    /// Fills the stream that each round reads from its start.
    async fn prepare(&self, url: &str) -> Result<(), Box<dyn Error>> {
        if matches!(self, Self::Stored) {
            let jetstream = jetstream::new(async_nats::connect(url).await?);
            let config = stream::Config {
                name: STREAM.to_owned(),
                subjects: vec![STORED.to_owned()],
                storage: stream::StorageType::Memory,
                ..stream::Config::default()
            };
            // What an earlier run left is counted wrongly.
            let _ = jetstream.delete_stream(STREAM).await;
            jetstream.create_stream(config).await?;
            for _ in 0..MESSAGES / 100 {
                let mut acks = Vec::with_capacity(100);
                for _ in 0..100 {
                    acks.push(jetstream.publish_with_headers(STORED, headers(), body()).await?);
                }
                for ack in acks {
                    ack.await?;
                }
            }
        }
        Ok(())
    }

    async fn round(&self, url: &str, program: Program) -> Result<Round, Box<dyn Error>> {
        tally::begin(MESSAGES);
        // Each round reads the stream from its start, and so as a consumer of its own.
        let name = format!("bench-{}", ROUND.fetch_add(1, Ordering::Relaxed));
        match program {
            Program::Raw | Program::ByHand | Program::Careless => self.by_client(url, program, name).await,
            Program::Untraced | Program::Traced => self.by_ours(url, program, name).await,
        }
    }
}

impl fmt::Display for Consume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Core => "core consume",
            Self::Stored => "JetStream consume",
        })
    }
}
