use std::error::Error;
use std::fmt;
use std::future::ready;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream as streams};
use opentelemetry::trace::Span as _;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord};
use throughline_core::Publisher;
use throughline_kafka::Kafka;

use super::hand::{Spans, end};
use super::{clients, topics};
use crate::load::body;
use crate::programs::{Case, Program, engine, provider};
use crate::stopwatch::{Round, Stopwatch};

/// How long a publish waits for room in the client's queue, as ours.
const QUEUE_WAIT: Duration = Duration::from_secs(300);

type BoxError = Box<dyn Error + Send + Sync>;

/// A way to publish. Each message is awaited until the server has stored it.
pub(super) struct Publish {
    topic: &'static str,
    way: Way,
    messages: usize,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// So many are under way at a time.
    InFlight(usize),
    /// So many by one call: the plain client sends all, then awaits all.
    Batch(usize),
}

impl Publish {
    pub(super) fn all() -> [Self; 4] {
        let ways = [
            ("one", Way::InFlight(1), 5_000),
            ("some", Way::InFlight(64), 100_000),
            ("many", Way::InFlight(256), 150_000),
            ("batch", Way::Batch(1_000), 200_000),
        ];
        ways.map(|(name, way, messages)| Self { topic: topics::name(&format!("publish.{name}")), way, messages })
    }

    async fn by_client(&self, url: &str, program: Program) -> Result<Round, BoxError> {
        let producer = clients::producer(url)?;
        topics::reach(&producer, self.topic).await?;
        let provider = (program == Program::ByHand).then(provider);
        let spans = provider.as_ref().map(|provider| Spans::new(provider, self.topic));
        let (producer, spans) = (&producer, spans.as_ref());
        let watch = Stopwatch::start();
        match self.way {
            Way::InFlight(most) => {
                let publish = |_| async move {
                    let Some(spans) = spans else { return self.send(producer, None).await.map(drop) };
                    let (span, headers) = spans.send();
                    let stored = self.send(producer, Some(headers)).await?;
                    end(span, &stored);
                    Ok(())
                };
                self.all_of(most, publish).await?;
            }
            Way::Batch(size) => {
                for _ in 0..self.messages / size {
                    self.send_batch(producer, spans, size).await?;
                }
            }
        }
        Ok(watch.stop(self.messages))
    }

    async fn send(&self, producer: &FutureProducer, headers: Option<OwnedHeaders>) -> Result<Delivery, BoxError> {
        let body = body();
        let stored = producer.send(self.record(&body, headers), QUEUE_WAIT).await;
        stored.map_err(|(failed, _)| failed.into())
    }

    fn record<'a>(&self, body: &'a [u8], headers: Option<OwnedHeaders>) -> FutureRecord<'a, (), [u8]> {
        FutureRecord { headers, ..FutureRecord::to(self.topic).payload(body) }
    }

    async fn send_batch(&self, producer: &FutureProducer, spans: Option<&Spans>, size: usize) -> Result<(), BoxError> {
        let body = body();
        let mut reports = Vec::with_capacity(size);
        let mut span = None;
        // The client's queue has room for a hundred of them.
        if let Some(spans) = spans {
            let (headers, links): (Vec<_>, Vec<_>) = (0..size).map(|_| spans.create()).unzip();
            span = Some(spans.send_batch(links));
            for headers in headers {
                reports.push(producer.send_result(self.record(&body, Some(headers))).map_err(|(failed, _)| failed)?);
            }
        } else {
            for _ in 0..size {
                reports.push(producer.send_result(self.record(&body, None)).map_err(|(failed, _)| failed)?);
            }
        }
        for report in reports {
            report.await?.map_err(|(failed, _)| failed)?;
        }
        if let Some(mut span) = span {
            span.end();
        }
        Ok(())
    }

    async fn by_ours(&self, url: &str, program: Program) -> Result<Round, BoxError> {
        let kafka = Kafka::connect_with(clients::config(url)).await?;
        let provider = (program == Program::Traced).then(provider);
        let publisher = match &provider {
            Some(provider) => kafka.publisher().telemetry(engine(provider)),
            None => kafka.publisher().without_telemetry(),
        };
        publisher.publish(self.topic, body()).await?;
        let round = self.publish(&publisher).await;
        kafka.shutdown().await?;
        round
    }

    async fn publish(&self, publisher: &Publisher) -> Result<Round, BoxError> {
        let watch = Stopwatch::start();
        match self.way {
            Way::InFlight(most) => {
                let publish = |_| async move {
                    publisher.publish(self.topic, body()).await?;
                    Ok(())
                };
                self.all_of(most, publish).await?;
            }
            Way::Batch(size) => {
                for _ in 0..self.messages / size {
                    publisher.publish_batch(self.topic, (0..size).map(|_| body())).await?;
                }
            }
        }
        Ok(watch.stop(self.messages))
    }

    async fn all_of<F>(&self, most: usize, publish: impl Fn(usize) -> F) -> Result<(), BoxError>
    where
        F: Future<Output = Result<(), BoxError>>,
    {
        if most == 1 {
            for message in 0..self.messages {
                publish(message).await?;
            }
            return Ok(());
        }
        let results = streams::iter(0..self.messages).map(publish).buffer_unordered(most);
        results.try_for_each(|()| ready(Ok(()))).await
    }
}

impl Case for Publish {
    async fn prepare(&self, url: &str) -> Result<(), Box<dyn Error>> {
        topics::create(url, self.topic, 1).await
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
        match self.way {
            Way::InFlight(1) => f.write_str("publish, one by one"),
            Way::InFlight(most) => write!(f, "publish, {most} in flight"),
            Way::Batch(size) => write!(f, "publish, batches of {size}"),
        }
    }
}
