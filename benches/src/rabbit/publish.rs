use std::error::Error;
use std::fmt;
use std::future::ready;

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream as streams};
use lapin::Channel;
use throughline_core::Publisher;
use throughline_rabbit::{Rabbit, RabbitOptions};

use super::clients;
use super::hand::{CLIENT, Spans, end};
use crate::load::body;
use crate::programs::{Case, Program, engine, provider};
use crate::stopwatch::{Round, Stopwatch};

const QUEUE: &str = "bench.publish";

/// How many messages the queue keeps.
const KEPT: i32 = 1_000;

/// A way to publish. Each message is awaited until the server has confirmed it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Publish {
    way: Way,
    messages: usize,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// So many are under way at a time.
    InFlight(usize),
    /// So many at a time: all are sent, then all are awaited.
    Batch(usize),
}

impl Publish {
    pub(super) const ALL: [Self; 4] = [
        Self { way: Way::InFlight(1), messages: 2_000 },
        Self { way: Way::InFlight(64), messages: 20_000 },
        Self { way: Way::InFlight(256), messages: 30_000 },
        Self { way: Way::Batch(1_000), messages: 30_000 },
    ];

    async fn by_client(self, url: &str, program: Program) -> Result<Round, Box<dyn Error>> {
        let connection = clients::connect(url).await?;
        let channel = clients::confirming(&connection).await?;
        clients::publish(&channel, QUEUE, None).await?;
        let provider = (program == Program::ByHand).then(provider);
        let spans = provider.as_ref().map(|provider| Spans::new(provider, QUEUE));
        let (channel, spans) = (&channel, spans.as_ref());
        let watch = Stopwatch::start();
        match self.way {
            Way::InFlight(most) => self.all_of(most, |_| send(channel, spans)).await?,
            Way::Batch(size) => {
                for _ in 0..self.messages / size {
                    let sent = join_all((0..size).map(|_| send(channel, spans))).await;
                    sent.into_iter().collect::<Result<(), _>>()?;
                }
            }
        }
        let round = watch.stop(self.messages);
        connection.close(200, "done".into()).await?;
        Ok(round)
    }

    async fn by_ours(self, url: &str, program: Program) -> Result<Round, Box<dyn Error>> {
        let rabbit = Rabbit::connect_with(url, RabbitOptions::new().name(CLIENT)).await?;
        let provider = (program == Program::Traced).then(provider);
        let publisher = match &provider {
            Some(provider) => rabbit.publisher().telemetry(engine(provider)),
            None => rabbit.publisher().without_telemetry(),
        };
        publisher.publish(QUEUE, body()).await?;
        let round = self.publish(&publisher).await;
        rabbit.close().await?;
        round
    }

    async fn publish(self, publisher: &Publisher) -> Result<Round, Box<dyn Error>> {
        let watch = Stopwatch::start();
        match self.way {
            Way::InFlight(most) => {
                let publish = |_| async move {
                    publisher.publish(QUEUE, body()).await?;
                    Ok(())
                };
                self.all_of(most, publish).await?;
            }
            Way::Batch(size) => {
                for _ in 0..self.messages / size {
                    publisher.publish_batch(QUEUE, (0..size).map(|_| body())).await?;
                }
            }
        }
        Ok(watch.stop(self.messages))
    }

    async fn all_of<F>(self, most: usize, publish: impl Fn(usize) -> F) -> Result<(), Box<dyn Error>>
    where
        F: Future<Output = Result<(), Box<dyn Error>>>,
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

async fn send(channel: &Channel, spans: Option<&Spans>) -> Result<(), Box<dyn Error>> {
    let Some(spans) = spans else { return clients::publish(channel, QUEUE, None).await };
    let (span, headers) = spans.send();
    clients::publish(channel, QUEUE, Some(headers)).await?;
    end(span);
    Ok(())
}

impl Case for Publish {
    async fn prepare(&self, url: &str) -> Result<(), Box<dyn Error>> {
        clients::declare(url, QUEUE, Some(KEPT)).await
    }

    async fn round(&self, url: &str, program: Program) -> Result<Round, Box<dyn Error>> {
        match program {
            Program::Raw | Program::ByHand | Program::Careless => self.by_client(url, program).await,
            Program::Untraced | Program::Traced => self.by_ours(url, program).await,
        }
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way {
            Way::InFlight(1) => f.write_str("confirmed publish, one by one"),
            Way::InFlight(most) => write!(f, "confirmed publish, {most} in flight"),
            Way::Batch(size) => write!(f, "confirmed publish, batches of {size}"),
        }
    }
}
