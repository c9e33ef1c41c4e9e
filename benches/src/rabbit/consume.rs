use std::error::Error;
use std::fmt;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::TraceContextExt;
use throughline_core::{App, serve};
use throughline_rabbit::{Queue, Rabbit, RabbitOptions};

use super::clients;
use super::hand::{CLIENT, Spans};
use crate::programs::{Case, Program, engine, provider};
use crate::stopwatch::Round;
use crate::tally::{self, handle};

const QUEUE: &str = "bench.consume";
const MESSAGES: usize = 30_000;
/// How many messages the server hands over before they are acknowledged, to all alike.
const PREFETCH: u16 = 100;

/// Consuming messages that are stored before, each of them acknowledged.
pub(super) struct Consume;

impl Consume {
    async fn by_client(url: &str, program: Program) -> Result<Round, Box<dyn Error>> {
        let connection = clients::connect(url).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let provider = (program == Program::ByHand).then(provider);
        let spans = provider.as_ref().map(|provider| Spans::new(provider, QUEUE));
        let consumer = channel.basic_consume(QUEUE.into(), "bench".into(), options, arguments).await?;
        let worker = tokio::spawn(read(consumer, channel, spans));
        let round = tally::round().await?;
        worker.await?;
        // What is acknowledged is written when this is answered.
        connection.close(200, "done".into()).await?;
        Ok(round)
    }

    async fn by_ours(url: &str, program: Program) -> Result<Round, Box<dyn Error>> {
        let rabbit = Rabbit::connect_with(url, RabbitOptions::new().name(CLIENT)).await?;
        let provider = (program == Program::Traced).then(provider);
        let queue = Queue::new(QUEUE).expires(clients::LEFT_FOR).prefetch(PREFETCH);
        let app = App::new().subscribe(queue, handle);
        let app = match &provider {
            Some(provider) => app.telemetry(engine(provider)),
            None => app.without_telemetry(),
        };
        let running = serve(rabbit, app).start().await?;
        let round = tally::round().await;
        running.shutdown().await?;
        Ok(round?)
    }
}

/// What a careful program does: it acknowledges each message when it is handled, and does not wait until that is written. The client
/// takes the acknowledgement with the first poll.
async fn read(consumer: Consumer, channel: Channel, spans: Option<Spans>) {
    let mut messages = consumer.take(MESSAGES);
    while let Some(Ok(message)) = messages.next().await {
        let (tag, context) = (message.delivery_tag, spans.as_ref().map(|spans| spans.process(&message)));
        let body = Bytes::from(message.data);
        match context {
            None => handle(body).await,
            Some(context) => {
                handle(body).with_context(context.clone()).await;
                context.span().end();
            }
        }
        if let Some(Err(failed)) = channel.basic_ack(tag, BasicAckOptions::default()).now_or_never() {
            eprintln!("the plain client ended: {failed}");
            return;
        }
    }
}

impl Case for Consume {
    async fn prepare(&self, url: &str) -> Result<(), Box<dyn Error>> {
        clients::declare(url, QUEUE, None).await
    }

    async fn round(&self, url: &str, program: Program) -> Result<Round, Box<dyn Error>> {
        clients::fill(url, QUEUE, MESSAGES).await?;
        tally::begin(MESSAGES);
        match program {
            Program::Raw | Program::ByHand | Program::Careless => Self::by_client(url, program).await,
            Program::Untraced | Program::Traced => Self::by_ours(url, program).await,
        }
    }
}

impl fmt::Display for Consume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "consume, prefetch {PREFETCH}")
    }
}
