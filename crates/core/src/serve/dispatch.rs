use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::replies::Replies;
use super::settle::{settle_one, with_heartbeats};
use crate::broker::{BrokerError, Publish, PublishError, Received, Subscriber};
use crate::extract::Verdicts;
use crate::handler::{ErasedHandler, RouteOptions};
use crate::message::{Delivery, Envelope, Outcome, Receipt, Settlement, Source};
use crate::middleware::{Endpoint, Middleware, Next, Overrides, Settler, panicked, process_with};
use crate::publish::Publisher;
use crate::telemetry::{Consumer, Incoming, Instrumentation};

/// Takes a delivery of one subscription through telemetry, middleware and handler, publishes the replies and settles.
pub(super) struct Dispatcher {
    handler: Arc<dyn ErasedHandler<()>>,
    chain: Vec<Arc<dyn Middleware>>,
    concurrency: usize,
    consumer: Option<Consumer>,
    /// For telemetry that is placed as ordinary middleware.
    overrides: Option<Overrides>,
    receive_spans: bool,
    source: Arc<Source>,
    redelivers: bool,
    publisher: Publisher,
    runtime: Arc<dyn Any + Send + Sync>,
}

impl Dispatcher {
    pub(super) fn new(
        subscriber: &dyn Subscriber,
        transport: Arc<dyn Publish>,
        handler: Arc<dyn ErasedHandler<()>>,
        options: RouteOptions,
        instrumentation: Option<&Instrumentation>,
    ) -> Self {
        let source = subscriber.source();
        let overrides = Overrides { parent: options.parent, trust: options.trust };
        let consumer =
            instrumentation.map(|instrumentation| overrides.apply(instrumentation.consumer(Arc::clone(&source))));
        let is_overridden = overrides.parent.is_some() || overrides.trust.is_some();
        let publisher = Publisher::of_app(transport, options.middleware.clone(), instrumentation);
        let replies: Arc<dyn Middleware> = Arc::new(Replies::new(publisher.clone(), options.replies));
        Self {
            handler,
            chain: options.dead_letter.into_iter().chain([replies]).chain(options.middleware).collect(),
            concurrency: options.concurrency,
            overrides: Some(overrides).filter(|_| is_overridden && consumer.is_none()),
            consumer,
            receive_spans: instrumentation.is_some_and(|instrumentation| instrumentation.engine.settings.receive_spans),
            source,
            redelivers: subscriber.redelivers(),
            runtime: Arc::new(publisher.clone()),
            publisher,
        }
    }

    pub(super) const fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Waits for messages, and records that wait as a receive span where the user wants one (SPAN-30).
    pub(super) async fn received(
        &self,
        is_batch: bool,
        next: impl Future<Output = Result<Vec<Received>, BrokerError>>,
    ) -> Result<Vec<Received>, BrokerError> {
        let receiving = self.consumer.as_ref().filter(|_| self.receive_spans).map(Consumer::receive);
        let received = next.await?;
        if let Some(receiving) = receiving {
            let messages: Vec<_> =
                received.iter().map(|received| Incoming::from_delivery(&received.delivery)).collect();
            match messages.as_slice() {
                [message] if !is_batch => receiving.finish(message),
                messages => receiving.finish_batch(messages),
            }
        }
        Ok(received)
    }

    /// Handles a message or a batch to its end. Where the broker cannot deliver again, what is to be retried is handled again here.
    pub(super) async fn dispatch(&self, mut received: Vec<Received>, is_batch: bool) {
        while !received.is_empty() {
            let delivery = self.delivery(&received, is_batch);
            let outcome = with_heartbeats(&received, self.process(delivery.clone())).await;
            received = self.settle(received, &delivery, outcome).await;
        }
    }

    fn delivery(&self, received: &[Received], is_batch: bool) -> Delivery {
        let mut messages: Vec<Delivery> = received.iter().map(|received| received.delivery.clone()).collect();
        for message in &mut messages {
            message.set_source(Arc::clone(&self.source));
            message.set_runtime(Arc::clone(&self.runtime));
        }
        match messages.pop() {
            Some(single) if !is_batch && messages.is_empty() => single,
            Some(last) => {
                messages.push(last);
                Delivery::batch(messages)
            }
            None => Delivery::batch(messages),
        }
    }

    async fn process(&self, delivery: Delivery) -> Outcome {
        match (&self.consumer, self.overrides) {
            (Some(consumer), _) => process_with(consumer, delivery, |delivery| self.handle(delivery)).await,
            (None, Some(overrides)) => {
                let mut delivery = delivery;
                delivery.insert_extension(overrides);
                self.handle(delivery).await
            }
            (None, None) => self.handle(delivery).await,
        }
    }

    /// Runs middleware and handler and publishes the replies, all inside the process span (SPAN-28).
    async fn handle(&self, delivery: Delivery) -> Outcome {
        Next::new(&self.chain, self).run(delivery).await
    }

    /// Settles every message; returns those that are to be handled again here, with their next attempt.
    async fn settle(&self, received: Vec<Received>, delivery: &Delivery, outcome: Outcome) -> Vec<Received> {
        let settler = outcome.extension::<Settler>();
        let mut again = Vec::new();
        let mut delay = Duration::ZERO;
        for (index, mut received) in received.into_iter().enumerate() {
            let settlement = outcome.settlement_of(index);
            let message = delivery.messages().get(index).unwrap_or(delivery);
            match settlement {
                Settlement::Retry { after } if !self.redelivers => {
                    delay = delay.max(after.unwrap_or_default());
                    let attempt = received.delivery.attempt().saturating_add(1);
                    received.delivery = received.delivery.with_attempt(attempt);
                    if let Some(settler) = settler {
                        settler.consumer.count_settlement("retry");
                    }
                    again.push(received);
                }
                _ => {
                    let own = outcome.each().get(index).and_then(Option::as_ref).unwrap_or(&outcome);
                    settle_one(received.settle.as_deref(), message, own, settlement, settler).await;
                }
            }
        }
        if !again.is_empty() {
            with_heartbeats(&again, tokio::time::sleep(delay)).await;
        }
        again
    }
}

#[async_trait]
impl Endpoint for Dispatcher {
    async fn call(&self, mut delivery: Delivery) -> Outcome {
        let verdicts = delivery.is_batch().then(Verdicts::default);
        if let Some(verdicts) = &verdicts {
            delivery.insert_extension(verdicts.clone());
        }
        let Some(verdicts) = verdicts else { return self.handler.call(delivery, &()).await };
        // Caught here already: a panic must not take the verdicts on single messages with it.
        let handled = AssertUnwindSafe(self.handler.call(delivery, &())).catch_unwind().await;
        handled.unwrap_or_else(|panic| panicked(panic.as_ref())).with_each(verdicts.take())
    }

    async fn publish(&self, envelope: Envelope) -> Result<Receipt, PublishError> {
        self.publisher.publish_envelope(envelope).await
    }
}
