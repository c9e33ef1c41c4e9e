use std::error::Error;
use std::fmt;
use std::future::ready;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use futures_util::{StreamExt, TryStreamExt, stream as streams};
use throughline_nats::Nats;

use super::hand::{Spans, end};
use crate::load::body;
use crate::programs::{Case, Program, engine, provider};
use crate::stopwatch::{Round, Stopwatch};

const CORE: &str = "bench.publish.core";
const STORED: &str = "bench.publish.stored";
const STREAM: &str = "BENCH_PUBLISH";

type BoxError = Box<dyn Error + Send + Sync>;

/// A way to publish.
#[derive(Clone, Copy, Debug)]
pub(super) struct Publish {
    /// Into a stream, each publish awaited until the server has stored it; else to core NATS, flushed at the end of a round.
    stored: bool,
    /// How many are under way at a time.
    in_flight: usize,
    messages: usize,
}

impl Publish {
    pub(super) const ALL: [Self; 4] = [
        Self { stored: false, in_flight: 1, messages: 50_000 },
        Self { stored: false, in_flight: 64, messages: 50_000 },
        Self { stored: true, in_flight: 1, messages: 2_000 },
        Self { stored: true, in_flight: 256, messages: 20_000 },
    ];

    const fn subject(self) -> &'static str {
        if self.stored { STORED } else { CORE }
    }

    async fn by_client(self, url: &str, program: Program) -> Result<Round, BoxError> {
        let client = async_nats::connect(url).await?;
        let jetstream = jetstream::new(client.clone());
        let provider = (program == Program::ByHand).then(provider);
        let spans = provider.as_ref().map(|provider| Spans::new(provider, self.subject()));
        let (client, jetstream, spans) = (&client, &jetstream, spans.as_ref());
        let watch = Stopwatch::start();
        let publish = |_| async move {
            let Some(spans) = spans else { return self.send(client, jetstream, None).await };
            let (span, headers) = spans.send();
            let result = self.send(client, jetstream, Some(headers)).await;
            end(span);
            result
        };
        self.all(publish).await?;
        client.flush().await?;
        Ok(watch.stop(self.messages))
    }

    async fn send(
        self,
        client: &async_nats::Client,
        jetstream: &jetstream::Context,
        headers: Option<HeaderMap>,
    ) -> Result<(), BoxError> {
        match (self.stored, headers) {
            (false, None) => client.publish(CORE, body()).await?,
            (false, Some(headers)) => client.publish_with_headers(CORE, headers, body()).await?,
            (true, None) => drop(jetstream.publish(STORED, body()).await?.await?),
            (true, Some(headers)) => drop(jetstream.publish_with_headers(STORED, headers, body()).await?.await?),
        }
        Ok(())
    }

    async fn by_ours(self, url: &str, program: Program) -> Result<Round, BoxError> {
        let nats = Nats::connect(url).await?;
        let nats = if self.stored { nats.publish_to_streams() } else { nats };
        let provider = (program == Program::Traced).then(provider);
        let publisher = match &provider {
            Some(provider) => nats.publisher().telemetry(engine(provider)),
            None => nats.publisher().without_telemetry(),
        };
        let publisher = &publisher;
        let watch = Stopwatch::start();
        let publish = |_| async move {
            publisher.publish(self.subject(), body()).await?;
            Ok(())
        };
        self.all(publish).await?;
        nats.client().flush().await?;
        Ok(watch.stop(self.messages))
    }

    async fn all<F: Future<Output = Result<(), BoxError>>>(self, publish: impl Fn(usize) -> F) -> Result<(), BoxError> {
        if self.in_flight == 1 {
            for message in 0..self.messages {
                publish(message).await?;
            }
            return Ok(());
        }
        let results = streams::iter(0..self.messages).map(publish).buffer_unordered(self.in_flight);
        results.try_for_each(|()| ready(Ok(()))).await
    }
}

impl Case for Publish {
    async fn prepare(&self, url: &str) -> Result<(), Box<dyn Error>> {
        if self.stored {
            let jetstream = jetstream::new(async_nats::connect(url).await?);
            let config = stream::Config {
                name: STREAM.to_owned(),
                subjects: vec![STORED.to_owned()],
                storage: stream::StorageType::Memory,
                max_messages: 1_000,
                ..stream::Config::default()
            };
            jetstream.get_or_create_stream(config).await?;
        }
        Ok(())
    }

    async fn round(&self, url: &str, program: Program) -> Result<Round, Box<dyn Error>> {
        let round = match program {
            Program::Raw | Program::ByHand | Program::Careless => self.by_client(url, program).await,
            Program::Untraced | Program::Traced => self.by_ours(url, program).await,
        };
        round.map_err(|error| -> Box<dyn Error> { error })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.stored { "JetStream publish" } else { "core publish" })?;
        if self.in_flight == 1 { f.write_str(", one by one") } else { write!(f, ", {} in flight", self.in_flight) }
    }
}
