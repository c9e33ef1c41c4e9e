use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use throughline_core::broker::{Broker, BrokerErrorKind, Publish, Received};
use throughline_core::message::CreationContext;
use throughline_core::telemetry::{Consumer, Incoming, Instrumentation, Outgoing, Producer};
use throughline_core::{BrokerError, Delivery, Envelope, PublishError, Settlement};

use super::{Ability, Door, DoorKind, GoldenError, Intake, Job, Message, Work};
use crate::conformance::bench::{Reader, acknowledge, chain, delivered};
use crate::conformance::wait::PATIENCE;
use crate::conformance::{Harness, Spec};

/// The engine itself, called by hand around an adapter's own transport and subscriber: what raw-client functions are made of, and
/// the reference for them.
///
/// # Examples
///
/// ```
/// use throughline_testing::conformance::{Door, DoorKind, EngineDoor, Harness};
///
/// fn is_raw<H: Harness>() -> bool {
///     <EngineDoor<H> as Door<H>>::KIND == DoorKind::Raw
/// }
/// ```
pub struct EngineDoor<H: Harness> {
    broker: H::Broker,
    transport: Arc<dyn Publish>,
    engine: Instrumentation,
    producer: Producer,
}

impl<H: Harness> std::fmt::Debug for EngineDoor<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineDoor").finish_non_exhaustive()
    }
}

#[async_trait]
impl<H: Harness> Door<H> for EngineDoor<H> {
    const KIND: DoorKind = DoorKind::Raw;

    fn can(ability: Ability) -> bool {
        ability != Ability::Limit
    }

    async fn open(harness: &H, engine: Instrumentation) -> Self {
        let broker = harness.connect().await;
        let transport = broker.transport();
        let producer = engine.producer(transport.system());
        Self { broker, transport, engine, producer }
    }

    async fn send(&self, message: Message) -> Result<(), String> {
        let mut envelope = envelope(&message);
        let destination = envelope.destination().clone();
        let target = self.transport.target(&destination);
        let sending = self.producer.send(&target, outgoing(&message, &mut envelope));
        let result = self.transport.publish(envelope).with_context(sending.context()).await;
        sending.finish(Vec::new(), result.as_ref().err());
        result.map(drop).map_err(|error| chain(&error))
    }

    async fn send_batch(&self, messages: Vec<Message>) -> Result<(), String> {
        let mut envelopes: Vec<Envelope> = messages.iter().map(envelope).collect();
        let Some(destination) = envelopes.first().map(|first| first.destination().clone()) else { return Ok(()) };
        let outgoing = messages.iter().zip(&mut envelopes).map(|(message, envelope)| outgoing(message, envelope));
        let sending = self.producer.send_batch(&self.transport.target(&destination), outgoing.collect());
        let results = self.transport.publish_batch(envelopes).with_context(sending.context()).await;
        let errors: Vec<&PublishError> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        let failed = errors.first().map(|error| chain(*error));
        sending.finish_batch(results.len(), &errors);
        failed.map_or(Ok(()), Err)
    }

    async fn request(&self, message: Message) -> Result<Bytes, String> {
        let mut envelope = envelope(&message);
        let destination = envelope.destination().clone();
        let target = self.transport.target(&destination);
        let sending = self.producer.request(&target, outgoing(&message, &mut envelope));
        let result = self.transport.request(envelope, PATIENCE).await;
        sending.finish(Vec::new(), result.as_ref().err());
        result.map(|reply| reply.payload().clone()).map_err(|error| chain(&error))
    }

    async fn take(&self, harness: &H, spec: &Spec, job: Job) -> Box<dyn Intake> {
        let reader = Reader::open(&self.broker, harness.subscription(spec)).await;
        let consumer = self.engine.consumer(reader.subscriber().source()).with_parent_mode(job.mode);
        let (transport, producer) = (Arc::clone(&self.transport), self.producer.clone());
        Box::new(Taking { reader, handling: Handling { consumer, transport, producer, job } })
    }
}

fn envelope(message: &Message) -> Envelope {
    let envelope = Envelope::new(&message.destination, message.body.clone());
    let envelope = match &message.id {
        Some(id) => envelope.with_id(id.as_str()),
        None => envelope,
    };
    match &message.correlation_id {
        Some(id) => envelope.with_correlation_id(id.as_str()),
        None => envelope,
    }
}

fn outgoing<'a>(message: &'a Message, envelope: &'a mut Envelope) -> Outgoing<'a> {
    Outgoing::new(envelope.headers_mut())
        .with_id(message.id.as_deref())
        .with_correlation_id(message.correlation_id.as_deref())
        .with_body_size(message.body.len())
        .with_creation(message.creation())
}

fn incoming(delivery: &Delivery) -> Incoming<'_> {
    Incoming::new(delivery.destination(), delivery.headers())
        .with_attempt(delivery.attempt())
        .with_id(delivery.id())
        .with_correlation_id(delivery.correlation_id())
        .with_body_size(delivery.payload().len())
        .with_sent_at(delivery.sent_at())
}

struct Taking {
    reader: Reader,
    handling: Handling,
}

struct Handling {
    consumer: Consumer,
    transport: Arc<dyn Publish>,
    producer: Producer,
    job: Job,
}

#[async_trait]
impl Intake for Taking {
    async fn finish(mut self: Box<Self>) {
        let Self { reader, handling } = &mut *self;
        let job = &handling.job;
        if job.pull {
            handling.pull(reader).await;
        } else if job.batch {
            let ambient = job.ambient.clone().unwrap_or_default();
            handling.process_batch(reader).with_context(ambient).await;
        } else {
            let deliveries = if job.work == Work::FailTwice { 1 } else { job.runs() };
            for _ in 0..deliveries {
                let ambient = job.ambient.clone().unwrap_or_default();
                handling.process_one(reader).with_context(ambient).await;
            }
        }
        self.reader.close().await;
    }
}

impl Handling {
    async fn pull(&self, reader: &mut Reader) {
        let receiving = self.consumer.receive();
        if self.job.fault {
            return receiving.fail(&fault());
        }
        let mut taken = take(reader, self.job.messages).await;
        match taken.as_slice() {
            [only] if !self.job.batch => receiving.finish(&incoming(&only.delivery)),
            taken => receiving.finish_batch(&incomings(taken)),
        }
        acknowledge_all(&mut taken).await;
    }

    async fn process_batch(&self, reader: &mut Reader) {
        let mut taken = take(reader, self.job.messages).await;
        let processing = self.consumer.process_batch(&incomings(&taken));
        self.job.drive(processing.run(self.handle(None))).await;
        acknowledge_all(&mut taken).await;
    }

    async fn process_one(&self, reader: &mut Reader) {
        let mut received = reader.take().await;
        let processing = self.consumer.process(&incoming(&received.delivery));
        let context = processing.scope().context().clone();
        self.job.drive(processing.run(self.handle(Some(&received.delivery)))).await;
        match self.job.settlement() {
            None => acknowledge(&mut received).await,
            Some(settlement) => self.settle(&mut received, &settlement, &context).await,
        }
    }

    async fn settle(&self, received: &mut Received, settlement: &Settlement, process: &Context) {
        if !received.needs_settlement() {
            return;
        }
        let settling = self.consumer.settle(settlement, process);
        let result = received.settle(settlement).await;
        let fault = self.job.fault.then(fault);
        settling.finish(&[incoming(&received.delivery)], fault.as_ref().or(result.as_ref().err()));
        delivered(result);
    }

    /// What a user's handler does, three times over where it retries by itself.
    async fn handle(&self, delivery: Option<&Delivery>) -> Result<(), GoldenError> {
        let mut result = self.job.run().await;
        while self.job.work == Work::FailTwice && result.is_err() {
            result = self.job.run().await;
        }
        let Some(delivery) = delivery else { return result };
        match &self.job.work {
            Work::Bury { to } => self.publish(Envelope::forward(delivery, to), CreationContext::Kept).await,
            Work::Publish { to } => self.publish(Envelope::new(to, "new"), CreationContext::New).await,
            Work::Reply => {
                if let Some(inbox) = delivery.reply_to() {
                    self.publish(Envelope::new(inbox.clone(), "a reply"), CreationContext::New).await;
                }
            }
            _ => {}
        }
        result
    }

    async fn publish(&self, mut envelope: Envelope, creation: CreationContext) {
        let destination = envelope.destination().clone();
        let target = self.transport.target(&destination);
        let outgoing = Outgoing::new(envelope.headers_mut()).with_creation(creation);
        let sending = self.producer.send(&target, outgoing);
        let result = self.transport.publish(envelope).await;
        sending.finish(Vec::new(), result.as_ref().err());
        delivered(result);
    }
}

fn fault() -> BrokerError {
    BrokerError::new(BrokerErrorKind::Timeout, "timeout", "no answer in time")
}

fn incomings(taken: &[Received]) -> Vec<Incoming<'_>> {
    taken.iter().map(|received| incoming(&received.delivery)).collect()
}

async fn take(reader: &mut Reader, count: usize) -> Vec<Received> {
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        taken.push(reader.take().await);
    }
    taken
}

async fn acknowledge_all(taken: &mut [Received]) {
    for received in taken {
        acknowledge(received).await;
    }
}
