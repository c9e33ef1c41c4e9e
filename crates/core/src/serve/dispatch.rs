use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::batching::Work;
use super::phase::Phase;
use super::replies::Replies;
use super::settle::{settle_one, with_heartbeats};
use crate::broker::{Publish, PublishError, Received, Subscriber};
use crate::extract::Verdicts;
use crate::handler::{ErasedHandler, RouteOptions};
use crate::message::{Delivery, Envelope, Outcome, Receipt, Runtime, Settlement};
use crate::middleware::{
    Attempts, Endpoint, Middleware, Next, Outlet as _, Overrides, RetryLater, ScopeUse, Settler, Unforwarded, decide,
    panicked, process_with,
};
use crate::publish::Publisher;
use crate::telemetry::{Consumer, Incoming, Instrumentation, Receiving, Scope, run_in};

/// How often it is looked whether another member gets a message that waits here for its next attempt.
const WITHDRAWAL_CHECK: Duration = Duration::from_millis(50);

/// Takes a delivery of one subscription through telemetry, middleware and handler, publishes the replies and settles.
pub(super) struct Dispatcher {
    handler: Arc<dyn ErasedHandler<()>>,
    /// What takes care of messages that failed: the dead letter, and within it the place where they wait for another attempt.
    around: Vec<Arc<dyn Middleware>>,
    chain: Vec<Arc<dyn Middleware>>,
    replies: Replies,
    concurrency: usize,
    consumer: Option<Consumer>,
    /// For telemetry that is placed as ordinary middleware.
    overrides: Option<Overrides>,
    receive_spans: bool,
    scope_use: ScopeUse,
    /// Whether nothing but telemetry can stand around the chain.
    may_be_bare: bool,
    redelivers: bool,
    phase: watch::Receiver<Phase>,
    runtime: Arc<Runtime>,
}

impl Dispatcher {
    pub(super) fn new(
        subscriber: &dyn Subscriber,
        transport: Arc<dyn Publish>,
        handler: Arc<dyn ErasedHandler<()>>,
        options: RouteOptions,
        instrumentation: Option<&Instrumentation>,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        let source = subscriber.source();
        let overrides = Overrides { parent: options.parent, trust: options.trust };
        let consumer =
            instrumentation.map(|instrumentation| overrides.apply(instrumentation.consumer(Arc::clone(&source))));
        let is_overridden = overrides.parent.is_some() || overrides.trust.is_some();
        let publisher = Publisher::of_app(transport, options.middleware.clone(), instrumentation);
        let telemetry = instrumentation.map(Instrumentation::to_any);
        let runtime = Runtime { telemetry, source: Arc::clone(&source), services: Box::new(publisher.clone()) };
        let retry_later = subscriber.retry_route().map(|route| Arc::new(RetryLater::new(route)) as Arc<dyn Middleware>);
        let around: Vec<_> = options.dead_letter.into_iter().chain(retry_later).collect();
        Self {
            scope_use: match (options.middleware.is_empty(), handler.uses_scope()) {
                (false, _) => ScopeUse::Middleware,
                (true, true) => ScopeUse::Arguments,
                (true, false) => ScopeUse::Nobody,
            },
            may_be_bare: !is_overridden && around.is_empty(),
            handler,
            around,
            chain: options.middleware,
            replies: Replies::new(publisher, options.replies),
            concurrency: options.concurrency.unwrap_or_else(|| subscriber.concurrency()).max(1),
            overrides: Some(overrides).filter(|_| is_overridden && consumer.is_none()),
            consumer,
            receive_spans: instrumentation.is_some_and(|instrumentation| instrumentation.engine.settings.receive_spans),
            redelivers: subscriber.redelivers(),
            phase,
            runtime: Arc::new(runtime),
        }
    }

    pub(super) const fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Starts the receive span, where the user wants one (SPAN-30).
    pub(super) fn receiving(&self) -> Option<Receiving> {
        self.consumer.as_ref().filter(|_| self.receive_spans).map(Consumer::receive)
    }

    /// Handles a message or a batch to its end. Where the broker cannot deliver again, what is to be retried is handled again here.
    pub(super) async fn dispatch(&self, work: Work) {
        let mut received = match work {
            Work::Single(received) => received,
            // Boxed, so that single messages do not carry the room for it.
            Work::Batch(received) => return Box::pin(self.dispatch_batch(received)).await,
        };
        loop {
            if received.is_withdrawn() {
                return;
            }
            let delivery = self.equip(received.delivery.clone());
            let handled = if self.is_bare(&received) {
                // What `process` comes to where nothing stands around it: each future less on the way is felt here.
                let outcome = Next::new(&self.chain, self).run(delivery).await;
                let asked = &received.delivery;
                let outcome = if outcome.has_replies() { self.reply(outcome, asked, None).await } else { outcome };
                Handled::without_span(outcome)
            } else {
                let handling = pin!(self.process(delivery, &received.delivery));
                with_heartbeats(std::slice::from_ref(&received), handling).await
            };
            let Some(delay) = self.next_attempt(&mut received, 0, &handled) else {
                return handled.settle(&mut received, 0).await;
            };
            // Boxed, as the rare one of the two ways on.
            let Some(again) = Box::pin(self.pause(vec![received], delay)).await.pop() else { return };
            received = again;
        }
    }

    async fn dispatch_batch(&self, mut received: Vec<Received>) {
        loop {
            received.retain(|message| !message.is_withdrawn());
            if received.is_empty() {
                return;
            }
            let messages = received.iter().map(|received| self.equip(received.delivery.clone()));
            let delivery = Delivery::batch(messages.collect());
            let handling = pin!(self.process(delivery.clone(), &delivery));
            let handled = with_heartbeats(&received, handling).await;
            let mut again = Vec::new();
            let mut longest = Duration::ZERO;
            for (index, mut message) in received.into_iter().enumerate() {
                match self.next_attempt(&mut message, index, &handled) {
                    None => handled.settle(&mut message, index).await,
                    Some(delay) => {
                        longest = longest.max(delay);
                        again.push(message);
                    }
                }
            }
            received = if again.is_empty() { again } else { self.pause(again, longest).await };
        }
    }

    /// Waits before messages are handled again here, and returns those that are. One that another member gets is given up at once, so
    /// that nobody waits for it; and when the app ends, those that the broker delivers again.
    async fn pause(&self, mut received: Vec<Received>, delay: Duration) -> Vec<Received> {
        let due = Instant::now() + delay;
        let mut phase = self.phase.clone();
        loop {
            let stays = |message: &mut Received| !message.needs_settlement() || *phase.borrow() == Phase::Running;
            received.retain_mut(|message| stays(message) && !message.is_withdrawn());
            if received.is_empty() || Instant::now() >= due {
                return received;
            }
            let waiting = async {
                tokio::select! {
                    () = sleep_until(due.min(Instant::now() + WITHDRAWAL_CHECK)) => {}
                    _ = phase.wait_for(|phase| *phase != Phase::Running), if *phase.borrow() == Phase::Running => {}
                }
            };
            with_heartbeats(&received, pin!(waiting)).await;
        }
    }

    fn equip(&self, mut delivery: Delivery) -> Delivery {
        delivery.set_runtime(Arc::clone(&self.runtime));
        delivery
    }

    async fn process(&self, mut delivery: Delivery, asked: &Delivery) -> Handled {
        if let Some(consumer) = &self.consumer {
            let run = |delivery| self.handle(delivery, asked);
            let (outcome, settler) = process_with(consumer, delivery, self.scope_use, run).await;
            return Handled { outcome, settler: Some(settler) };
        }
        if let Some(overrides) = self.overrides {
            delivery.insert_extension(overrides);
        }
        let outcome = self.handle(delivery, asked).await;
        Handled::without_span(outcome)
    }

    /// Whether only the chain stands around the handler: no dead letter, no retry elsewhere, no heartbeats, and no telemetry that has anything to do.
    fn is_bare(&self, received: &Received) -> bool {
        let passes =
            |consumer: &Consumer| self.chain.is_empty() && consumer.passes_through(received.delivery.headers());
        self.may_be_bare && received.heartbeat().is_none() && self.consumer.as_ref().is_none_or(passes)
    }

    async fn handle(&self, delivery: Delivery, asked: &Delivery) -> Outcome {
        if self.around.is_empty() {
            return self.answer(delivery, asked).await;
        }
        let inner = Answering { dispatcher: self, asked, scope: delivery.made_scope() };
        Next::new(&self.around, &inner).run(delivery).await
    }

    /// Runs middleware and handler, and publishes and confirms what they replied before the message is settled. A reply that cannot
    /// be published fails the delivery like any other error.
    async fn answer(&self, delivery: Delivery, asked: &Delivery) -> Outcome {
        let scope = delivery.made_scope();
        let outcome = Next::new(&self.chain, self).run(delivery).await;
        if outcome.has_replies() { self.reply(outcome, asked, scope).await } else { outcome }
    }

    fn reply<'a>(&'a self, outcome: Outcome, asked: &'a Delivery, scope: Option<Scope>) -> BoxFuture<'a, Outcome> {
        let replying = AssertUnwindSafe(self.replies.publish(outcome, asked, scope)).catch_unwind();
        Box::pin(
            replying
                .map(|replied| decide(replied.unwrap_or_else(|panic| panicked(panic.as_ref())), &Attempts::of(asked))),
        )
    }

    /// Counts the next attempt of a message that is to be handled again here, and returns how long to wait before it; `None` where
    /// the message is to be settled.
    fn next_attempt(&self, message: &mut Received, index: usize, handled: &Handled) -> Option<Duration> {
        let Settlement::Retry { after } = handled.outcome.settlement_of(index) else { return None };
        match handled.outcome_of(index).extension::<Unforwarded>() {
            // The same attempt once more. The broker would count it.
            Some(unforwarded) => message.delivery.insert_extension(*unforwarded),
            None if self.redelivers => return None,
            None => message.delivery.count_attempt(),
        }
        if let Some(settler) = &handled.settler {
            settler.consumer.count_settlement("retry", message.delivery.destination());
        }
        Some(after.unwrap_or_default())
    }
}

/// What came of a delivery, and what its settlement is recorded with.
struct Handled {
    outcome: Outcome,
    settler: Option<Settler>,
}

impl Handled {
    /// Without a process span of the framework's own place; where telemetry is ordinary middleware, the outcome brings its own.
    fn without_span(outcome: Outcome) -> Self {
        let settler = outcome.extension::<Settler>().cloned();
        Self { outcome, settler }
    }

    /// What came of one message.
    fn outcome_of(&self, index: usize) -> &Outcome {
        self.outcome.each().get(index).and_then(Option::as_ref).unwrap_or(&self.outcome)
    }

    fn settle<'a>(&'a self, message: &'a mut Received, index: usize) -> impl Future<Output = ()> + Send + 'a {
        settle_one(message, self.outcome_of(index), self.outcome.settlement_of(index), self.settler.as_ref())
    }
}

/// Ends the receive span with what was received.
pub(super) fn record_received(receiving: Receiving, work: &Work) {
    let messages: Vec<_> = work.messages().iter().map(|message| Incoming::from_delivery(&message.delivery)).collect();
    match (work, messages.as_slice()) {
        (Work::Single(_), [message]) => receiving.finish(message),
        (_, messages) => receiving.finish_batch(messages),
    }
}

impl Endpoint for Dispatcher {
    fn call(&self, mut delivery: Delivery) -> BoxFuture<'_, Outcome> {
        if !delivery.is_batch() {
            return self.handler.call(delivery, &());
        }
        let verdicts = Verdicts::default();
        delivery.insert_extension(verdicts.clone());
        let handled = AssertUnwindSafe(self.handler.call(delivery, &())).catch_unwind();
        // Caught here already: a panic must not take the verdicts on single messages with it.
        Box::pin(
            handled.map(move |handled| {
                handled.unwrap_or_else(|panic| panicked(panic.as_ref())).with_each(verdicts.take())
            }),
        )
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(self.replies.publisher().publish_envelope(envelope))
    }

    fn transport(&self) -> &dyn Publish {
        self.replies.publisher().transport()
    }
}

/// What dead letters and retries elsewhere stand before.
struct Answering<'a> {
    dispatcher: &'a Dispatcher,
    asked: &'a Delivery,
    scope: Option<Scope>,
}

impl Endpoint for Answering<'_> {
    fn call(&self, delivery: Delivery) -> BoxFuture<'_, Outcome> {
        Box::pin(self.dispatcher.answer(delivery, self.asked))
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        // Like a reply it sees what the handler has changed, whether or not its scope was open before.
        let context = self.scope.as_ref().map(|scope| scope.context().clone());
        Box::pin(run_in(context, self.dispatcher.publish(envelope)))
    }

    fn transport(&self) -> &dyn Publish {
        self.dispatcher.transport()
    }
}
